# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole pipeline: a smoke run, its resumption after a kill, its artefacts, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from helpers.warm_processes import run_process
from nora15_hf import commands
from nora15_hf.evaluation.environment_fit import differing_conventions
from nora15_hf.evaluation.evaluate import swapped_instructions
from nora15_hf.quickstart.config import STATE_FOLDER
from nora15_hf.repo_files.run_folder import LOCK_FILE
from nora15_hf.simulation.installation import extra_command
from nora15_hf.simulation.metaworld.metaworld_env import MetaWorldEnv
from nora15_hf.stages import stage_runner
from nora15_hf.stages.stage_runner import StageRunner
from nora15_hf.trainers import Nora15SFTTrainer

pytestmark = pytest.mark.slow

TOKEN = "hf_" + "q" * 34
ARTEFACTS = ("policy-sft", "policy-dpo", "world-model", "preferences", "demonstrations")


def run_smoke(output: Path, *options: str, run: Callable = commands.main) -> tuple[int, str]:
    """Exit code of the command in a process of its own, and what it printed."""
    printed = output.with_suffix(".log")
    command = ["quickstart", "--smoke", "--output", str(output), *options]
    code = run_process(run, command, output=printed, HF_TOKEN=TOKEN)
    return code, printed.read_text()


def successes(output: Path) -> dict:
    results = json.loads((output / "results.json").read_text())
    return {arm: {task: row["successes"] for task, row in table.items()} for arm, table in results["success"].items()}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("quickstart") / "run"
    code, printed = run_smoke(output)
    assert code == 0, printed
    assert "continued SFT" in printed
    assert TOKEN not in printed
    return output


def test_leaves_every_artefact_with_a_card(finished_run):
    for name in ARTEFACTS:
        card = (finished_run / name / "README.md").read_text()
        assert card.startswith("---\n"), name
        assert str(finished_run) not in card, f"the card of {name} names a path of this machine"
    assert (finished_run / "report.html").stat().st_size > 50_000
    results = json.loads((finished_run / "results.json").read_text())
    assert results["conventions"]["simulator"]["renderer"] in ("raycast", "osmesa", "egl")
    assert results["conventions"]["evaluation"]["temperature of the flow's noise"] == 0.3
    assert set(results["success"]) == {"random", "sft", "continued_sft", "dpo"}
    assert len(results["stages"]) == 11


def test_the_token_is_in_no_file_of_the_run(finished_run):
    files = [path for path in finished_run.rglob("*") if path.is_file()]
    assert {"report.html", "results.json", "README.md"} <= {path.name for path in files}
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_artefacts_load_in_a_fresh_process(finished_run):
    code = """
import sys
import nora15_hf
from datasets import load_dataset
from transformers import AutoModel, AutoProcessor
root = sys.argv[1]
for name in ("policy-sft", "policy-dpo", "world-model"):
    model = AutoModel.from_pretrained(f"{root}/{name}")
    processor = AutoProcessor.from_pretrained(f"{root}/{name}")
    print(type(model).__name__, type(processor).__name__)
row = load_dataset(f"{root}/preferences", split="train")[0]
frame = load_dataset(f"{root}/demonstrations", split="train")[0]["observation.image"]
print(sorted(row), frame.size)
"""
    done = subprocess.run([sys.executable, "-c", code, str(finished_run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Nora15ForActionPrediction Nora15Processor"
    assert lines[2] == "VJEPA2ACModel VJEPA2ACProcessor"
    assert "chosen" in lines[3]
    assert "rejected" in lines[3]


def kill_in_training(command: list[str]) -> int:
    """The command, killed with its simulators in the fourth of six steps of supervised training."""
    training_step = Nora15SFTTrainer.training_step

    def kill_at_step(self, *args, **kwargs):
        if self.state.global_step == 3:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        return training_step(self, *args, **kwargs)

    Nora15SFTTrainer.training_step = kill_at_step
    return commands.main(command)


def test_resumes_after_a_kill_with_the_same_result(finished_run, tmp_path):
    output = tmp_path / "run"
    code, printed = run_smoke(output, run=kill_in_training)
    assert code == -signal.SIGKILL, printed
    assert (output / STATE_FOLDER / "demonstrations.json").exists()
    assert not (output / STATE_FOLDER / "policy-sft.json").exists()

    code, printed = run_smoke(output, "--resume")
    assert code == 0, printed
    assert "Record demonstrations: done before" in printed
    assert successes(output) == successes(finished_run)
    first, second = ((folder / "policy-dpo" / "model.safetensors").read_bytes() for folder in (finished_run, output))
    assert first == second


def test_resuming_a_finished_run_shows_its_result(finished_run, capsys):
    before = successes(finished_run)
    assert commands.main(["quickstart", "--smoke", "--resume", "--output", str(finished_run)]) == 0
    assert capsys.readouterr().out.count("done before") == 11
    assert successes(finished_run) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "fly-to-the-moon"], ["Unknown task", "Nearest", "faucet-open"]),
        (["--tasks", "faucet-open,faucet-open"], ["more than once"]),
    ],
)
def test_refuses_bad_options(options, words, tmp_path, capsys):
    assert commands.main(["quickstart", "--smoke", "--output", str(tmp_path / "run"), *options]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_refuses_an_output_folder_that_is_not_empty(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert commands.main(["quickstart", "--smoke", "--output", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err
    # --overwrite removes earlier runs, not other people's files.
    assert commands.main(["quickstart", "--smoke", "--output", str(tmp_path), "--overwrite"]) == 2
    assert (tmp_path / "thesis.txt").exists()


def test_refuses_a_cache_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    assert commands.main(["quickstart", "--smoke", "--output", str(tmp_path / "run")]) == 2
    assert re.search(r"home/datasets, cannot be written .*HF_HOME to a folder", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_refuses_to_resume_with_other_settings(finished_run, capsys):
    assert commands.main(["quickstart", "--smoke", "--seed", "7", "--resume", "--output", str(finished_run)]) == 2
    assert "other settings" in capsys.readouterr().err


def test_missing_simulator_names_the_pip_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    for module in ("metaworld.env_dict", "nora15_hf.simulation.metaworld.metaworld_env"):
        monkeypatch.delitem(sys.modules, module)
    assert commands.main(["quickstart", "--smoke", "--output", str(tmp_path / "run")]) == 2
    assert extra_command("sim") in capsys.readouterr().err


def test_a_simulator_that_differs_from_the_recording():
    recorded = {"renderer": "osmesa", "image_size": 84, "camera": "corner4"}
    simulator = MetaWorldEnv.describe(renderer="raycast", image_size=96)
    assert differing_conventions(recorded, simulator) == [
        "renderer: recorded 'osmesa', simulator 'raycast'",
        "image_size: recorded 84, simulator 96",
    ]


def test_swaps_only_within_a_scene():
    swapped = swapped_instructions(
        ["faucet-open", "faucet-close", "button-press-topdown"], MetaWorldEnv.describe(renderer="raycast")
    )
    assert swapped == {"faucet-open": "close the faucet", "faucet-close": "open the faucet"}


def open_run(output: Path, *, resume: bool = False, is_main_process: bool = True, **settings: Any) -> StageRunner:
    options = {"made_by": "a test", "overwrite": False, "num_stages": 1, "is_main_process": is_main_process}
    return StageRunner(output, ".test", settings, resume=resume, **options)


def test_a_run_that_has_done_nothing_does_not_block_its_folder(tmp_path):
    def refuse():
        raise ValueError("wrong option")

    with pytest.raises(ValueError, match="wrong option"):
        open_run(tmp_path / "run", option="wrong").run("stage", "Check", refuse)
    assert open_run(tmp_path / "run", option="right").run("stage", "Check", lambda: {"done": 1}) == {"done": 1}
    with pytest.raises(ValueError, match="option: 'right', now 'wrong'"):
        open_run(tmp_path / "run", option="wrong", resume=True)


class Clock:
    """Time that passes while somebody sleeps; `wake` is called each time."""

    def __init__(self, wake: Callable[[], None] = lambda: None):
        self.now, self.wake = 0.0, wake

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.wake()


def test_other_processes_do_not_wait_for_a_first_one_that_has_ended(tmp_path, monkeypatch):
    open_run(tmp_path / "run")
    waiting = open_run(tmp_path / "run", is_main_process=False)
    monkeypatch.setattr(stage_runner, "time", Clock())
    with pytest.raises(RuntimeError, match="has not been at work for 120 s, and the stage 'stage' is not finished"):
        waiting.run("stage", "Wait", dict)


def test_other_processes_wait_while_the_first_one_is_at_work(tmp_path, monkeypatch):
    open_run(tmp_path / "run")
    waiting = open_run(tmp_path / "run", is_main_process=False)

    def wake():
        if clock.now > 500:
            record = {"seconds": 500, "peak_memory_mib": 1, "result": {"done": 1}}
            (tmp_path / "run" / ".test" / "stage.json").write_text(json.dumps(record))

    clock = Clock(wake)
    monkeypatch.setattr(stage_runner, "time", clock)
    with FileLock(tmp_path / "run" / ".test" / LOCK_FILE):
        assert waiting.run("stage", "Wait", dict) == {"done": 1}


def test_an_interrupted_stage_leaves_nothing_behind(tmp_path):
    runner = open_run(tmp_path / "run")

    def half_a_stage():
        (tmp_path / "run" / "artefact").mkdir()
        (tmp_path / "run" / "artefact" / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run("stage", "Half a stage", half_a_stage, ("artefact",))
    runner = open_run(tmp_path / "run", resume=True)
    result = runner.run(
        "stage", "A whole stage", lambda: {"left": (tmp_path / "run" / "artefact").exists()}, ("artefact",)
    )
    assert result == {"left": False}
