# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The training example as a user starts it: in one process, in two, killed and started again."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from helpers.paths import ROOT
from helpers.small_demonstrations import write_demonstrations
from helpers.two_processes import accelerate_launch

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "examples" / "sft.py"
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


def start(config: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(config: Path) -> None:
    process = start(config)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]


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
    accelerate_launch(SCRIPT, "--config", config, num_processes=2)
    one, two = logged(whole), logged(tmp_path / "run")
    assert len(one) == len(two) == 20
    for step in range(20):
        for name in CURVES:
            assert two[step][name] == pytest.approx(one[step][name], rel=1e-4), (step, name)
    errors = [evaluated(run)["eval_action_error"] for run in (whole, tmp_path / "run")]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)
    assert len(list((tmp_path / "run" / "open_loop").glob("*/*.png"))) == 1


# Runs a script that kills itself where nothing can be tidied up any more.
KILLED = """
import os, runpy, signal, sys
from transformers import TrainerState
from nora15_hf.trainers import Nora15SFTTrainer

owner, method, step, script = {"saving": TrainerState, "training": Nora15SFTTrainer}[sys.argv[1]], *sys.argv[2:5]
original = getattr(owner, method)

def kill_at_step(self, *args, **kwargs):
    state = self if owner is TrainerState else self.state
    if state.global_step == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)

setattr(owner, method, kill_at_step)
sys.argv = sys.argv[4:]
runpy.run_path(script, run_name="__main__")
"""


def kill(config: Path, moment: str, method: str, step: int) -> set[str]:
    """Runs the script until it is killed; the complete checkpoints that it leaves."""
    command = [sys.executable, "-c", KILLED, moment, method, str(step), str(SCRIPT), "--config", str(config)]
    killed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stdout[-4000:]
    return {state.parent.name for state in (config.parent / "run").glob("checkpoint-*/trainer_state.json")}


def test_a_run_that_is_killed_twice_continues_bit_for_bit(demonstrations, whole, tmp_path):
    """Killed while a checkpoint is written, and again between two checkpoints; the same command finishes the run."""
    config = write_config(tmp_path, demonstrations, per_device_train_batch_size=4, **STEPS)
    run = tmp_path / "run"
    # The state is written last, so that the interrupted checkpoint has none.
    assert "checkpoint-6" not in kill(config, "saving", "save_to_json", 6)
    assert (run / "checkpoint-6").is_dir()
    assert "checkpoint-10" in kill(config, "training", "training_step", 11)
    finish(config)
    assert logged(run) == logged(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
