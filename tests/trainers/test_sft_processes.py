# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The training command in processes of its own: in one, in two, killed and started again."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import TrainerState

from helpers.paths import ROOT
from helpers.small_demonstrations import write_demonstrations
from helpers.warm_processes import run_process, run_processes
from nora15_hf.commands import sft
from nora15_hf.trainers import Nora15SFTTrainer

pytestmark = pytest.mark.slow

CURVES = ("loss", "lm_loss", "flow_loss", "grad_norm")
OPTIONS = {
    "image_size": 56,
    "validation_fraction": 0.3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
    "logging_steps": 1,
    "eval_steps": 20,
    "open_loop_episodes": 1,
    "image_augmentation": {},
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}

STEPS = {"max_steps": 20, "save_steps": 2, "save_total_limit": 2}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """Twenty frames; the chunks at the ends of their episodes are padded and have no FAST tokens."""
    return write_demonstrations(tmp_path_factory.mktemp("demonstrations") / "arm", lengths=(9, 4, 7))


def write_config(folder: Path, demonstrations: Path, **options) -> Path:
    """The tiny example's configuration with other options."""
    config = yaml.safe_load((ROOT / "examples" / "configs" / "sft_tiny.yaml").read_text())
    config |= {"datasets": [str(demonstrations)], "output_dir": str(folder / "run"), **OPTIONS, **options}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in config.items() if value is not None}))
    return file


def logged(run: Path) -> list[dict[str, float]]:
    """The logs of the newest checkpoint, one entry for each step."""
    return [{name: entry[name] for name in CURVES} for entry in log_history(run) if "loss" in entry]


def log_history(run: Path) -> list[dict[str, float]]:
    newest = max(run.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    return json.loads((newest / "trainer_state.json").read_text())["log_history"]


def evaluated(run: Path) -> dict[str, float]:
    """The metrics of the evaluation after the last step."""
    return next(entry for entry in log_history(run) if "eval_loss" in entry)


def finish(config: Path) -> None:
    output = config.with_suffix(".log")
    assert run_process(sft.main, ["--config", str(config)], output=output) == 0, output.read_text()[-4000:]


@pytest.mark.parametrize("file", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_configurations_have_no_unknown_keys(file):
    found = load_config_from_file(str(file)).to_dict()
    assert found["num_processes"] == 8
    assert found["mixed_precision"] == "bf16"


@pytest.fixture(scope="module")
def whole(demonstrations, tmp_path_factory):
    """The run in one process, without interruption: 20 steps with a batch of 4."""
    folder = tmp_path_factory.mktemp("whole")
    finish(write_config(folder, demonstrations, per_device_train_batch_size=4, **STEPS))
    return folder / "run"


def test_two_processes_see_the_losses_of_one(demonstrations, whole, tmp_path):
    """2 x 2 rows, with unequal numbers of tokens and of valid actions in the two processes."""
    config = write_config(tmp_path, demonstrations, per_device_train_batch_size=2, **STEPS)
    run_processes(sft.main, ["--config", str(config)])
    one, two = logged(whole), logged(tmp_path / "run")
    assert len(one) == len(two) == 20
    for step in range(20):
        for name in CURVES:
            assert two[step][name] == pytest.approx(one[step][name], rel=1e-4), (step, name)
    errors = [evaluated(run)["eval_action_error"] for run in (whole, tmp_path / "run")]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)
    assert len(list((tmp_path / "run" / "open_loop").glob("*/*.png"))) == 1


def run_until(owner: type, method: str, step: int, config: Path) -> None:
    """Runs the command until it kills itself, where nothing can be tidied up any more."""
    original = getattr(owner, method)

    def kill_at_step(self, *args, **kwargs):
        state = self if owner is TrainerState else self.state
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    setattr(owner, method, kill_at_step)
    sft.main(["--config", str(config)])


def kill(config: Path, owner: type, method: str, step: int) -> set[str]:
    """Runs the command until it is killed; the complete checkpoints that it leaves."""
    output = config.with_suffix(".log")
    code = run_process(run_until, owner, method, step, config, output=output)
    assert code == -signal.SIGKILL, output.read_text()[-4000:]
    return {state.parent.name for state in (config.parent / "run").glob("checkpoint-*/trainer_state.json")}


def test_a_run_that_is_killed_twice_continues_bit_for_bit(demonstrations, whole, tmp_path):
    """Killed while a checkpoint is written, and again between two checkpoints; the same command finishes the run."""
    config = write_config(tmp_path, demonstrations, per_device_train_batch_size=4, **STEPS)
    run = tmp_path / "run"
    # The state is written last, so that the interrupted checkpoint has none.
    assert "checkpoint-6" not in kill(config, TrainerState, "save_to_json", 6)
    assert (run / "checkpoint-6").is_dir()
    assert "checkpoint-10" in kill(config, Nora15SFTTrainer, "training_step", 11)
    finish(config)
    assert logged(run) == logged(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
