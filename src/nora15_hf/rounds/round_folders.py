# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Where a run of rounds keeps what, and what it opens of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..data.lerobot_dataset import LeRobotDataset
from ..evaluation.demonstrations import RECORDING
from ..preferences.simulator_states import EPISODE_TASKS
from ..simulation.simulation_pool import SimulationPool
from ..stages.post_training import PostTraining
from .config import RoundsConfig

STATE_FOLDER = ".rounds"
POLICY, CONTROL, WORLD_MODEL = "policy", "policy-continued-sft", "world-model"


@dataclass(frozen=True)
class RoundsRun:
    """
    A run of preference rounds.

    Attributes:
        output (`Path`): Its folder, with a folder for each round; round 0 holds what the run begins with.
        config ([`RoundsConfig`]): What it does.
        pool ([`SimulationPool`], *optional*): The simulators, in the process that uses them.
        dataset_key (`str`), chunk_size (`int`): The policy's, once it has been opened.
    """

    output: Path
    config: RoundsConfig
    pool: SimulationPool | None = None
    dataset_key: str = ""
    chunk_size: int = 1

    def folder(self, number: int) -> Path:
        """Of a round."""
        return self.output / round_name(number)

    def policy(self, number: int) -> Path:
        """The policy that a round ended with; of round 0 the one that the run began with."""
        return self.folder(number) / POLICY

    def control(self, number: int) -> Path:
        """The policy after as much continued supervised training."""
        return self.folder(number) / (CONTROL if number else POLICY)

    def world_model(self, number: int) -> Path:
        """The world model that judges in a round."""
        return self.folder(number if self.config.refresh_steps else 0) / WORLD_MODEL

    def trainer(self, number: int, name: str) -> Path:
        """For a trainer of a round."""
        return self.output / STATE_FOLDER / f"{round_name(number)}-{name}"

    @cached_property
    def demonstrations(self) -> LeRobotDataset:
        """The demonstrations, with chunks as the policy takes them."""
        config = self.config
        return LeRobotDataset(
            config.demonstrations,
            revision=config.demonstrations_revision,
            chunk_size=self.chunk_size,
            dataset_key=config.dataset_key,
        )

    def episodes(self, number: int) -> str | Path:
        """Folder or Hub id of the dataset that a round takes its states from."""
        match self.config.states_from:
            case "demonstrations":
                return self.config.demonstrations
            case "simulator":
                return self.folder(number) / "episodes"
            case _:
                return self.config.episodes[number - 1]

    def states_dataset(self, number: int) -> LeRobotDataset:
        """That dataset, under the policy's key of the demonstrations."""
        if self.config.states_from == "demonstrations":
            return self.demonstrations
        return LeRobotDataset(self.episodes(number), chunk_size=self.chunk_size, dataset_key=self.dataset_key)

    @property
    def tasks(self) -> list[str]:
        """
        The simulator's tasks: those of the configuration, or those of the demonstrations.

        Raises:
            ValueError: Neither names any.
        """
        if self.config.tasks:
            return list(self.config.tasks)
        conventions = self.demonstrations.conventions
        recorded = [*conventions.get(RECORDING, {}).get("failed_seeds", {}), *conventions.get(EPISODE_TASKS, [])]
        if not recorded:
            raise ValueError(
                f"The demonstrations {self.config.demonstrations!r} do not tell which tasks of the simulator they show. Name the "
                "tasks."
            )
        return list(dict.fromkeys(recorded))

    def budget(self, number: int) -> PostTraining:
        """Of the trainings of a round."""
        config = self.config
        return PostTraining(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            beta=config.beta,
            seed=config.seed + number,
        )


def round_name(number: int) -> str:
    """Of its folder, and at the beginning of its stages' names."""
    return f"round-{number:02d}"


__all__ = ["CONTROL", "POLICY", "STATE_FOLDER", "WORLD_MODEL", "RoundsRun", "round_name"]
