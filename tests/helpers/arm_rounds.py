# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rounds of the smallest size on the two-camera arm, in this process or one of its own."""

import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.two_camera_arm import in_the_table
from nora15_hf.clips import ClipConventions
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.rounds import publication
from nora15_hf.rounds.config import RoundsConfig
from nora15_hf.rounds.report import RoundsReport
from nora15_hf.rounds.rounds import run_rounds
from nora15_hf.simulation.simulation_pool import SimulationPool
from nora15_hf.stages.stage_runner import StageRunner
from nora15_hf.trainers import tiny_policy_for
from nora15_hf.vjepa2_ac.presets import tiny_world_model

__all__ = ["make_inputs", "run_arm", "run_killed"]

SETTINGS = {
    "dataset_key": "arm",
    "rounds": 1,
    "reached_episodes": 2,
    "max_policy_steps": 6,
    "num_states": 4,
    "num_candidates": 2,
    "steps": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "evaluation_episodes": 1,
    "num_workers": 1,
    # Nothing is learnt in two steps.
    "tolerated_loss": 1.0,
    "tasks": ("left",),
}


def make_inputs(folder: Path) -> None:
    """Demonstrations of the arm, and an untrained policy and world model that know them."""
    with in_the_table(), SimulationPool("arm", num_workers=1, max_steps=25, cameras=("front",)) as pool:
        record_demonstrations(folder / "demonstrations", ["left"], 2, pool=pool, progress=False)
    dataset = LeRobotDataset(folder / "demonstrations", dataset_key="arm")
    model, processor = tiny_policy_for(dataset, dataset.episodes["tasks"][0], image_size=56)
    for part in (model, processor):
        part.save_pretrained(folder / "policy")
    world_model, frames = tiny_world_model(56, dataset.action_dim)
    conventions = ClipConventions.of_policy(
        LeRobotDataset(folder / "demonstrations", dataset_key="arm", action_key="executed_action"), processor, "arm"
    )
    for part in (world_model, frames, conventions):
        part.save_pretrained(folder / "world-model")


def run_arm(inputs: Path, output: Path, *, resume: bool = False, **changes: Any) -> RoundsReport:
    """Rounds on these inputs."""
    sources = {name: str(inputs / name.replace("_", "-")) for name in ("policy", "demonstrations", "world_model")}
    # Drawing takes longer than everything else.
    with in_the_table(), patch.object(publication, "write_preference_figures"):
        return run_rounds(output, RoundsConfig(**{**sources, **SETTINGS, **changes}), resume=resume)


def run_killed(inputs: Path, output: Path, finished: int, changes: dict[str, Any]) -> None:
    """The same, continued: so many stages are finished, and it is killed in the next one, with the work done but no result."""
    run = StageRunner.run
    begun = iter(range(1000))

    def killed(self, name, title, stage, *arguments, **options):
        def work():
            result = stage()
            if next(begun) == finished:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            return result

        return run(self, name, title, work, *arguments, **options)

    StageRunner.run = killed
    run_arm(inputs, output, resume=True, **changes)
