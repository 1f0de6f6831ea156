# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which simulator state a frame of recorded episodes shows: the episode's task and seed, and the actions executed since."""

from dataclasses import dataclass

import numpy as np

from ..data.lerobot_dataset import LeRobotDataset
from ..evaluation.demonstrations import RECORDING
from ..simulation.environment_table import find_environment
from ..simulation.expert_episodes import EXECUTED_ACTION

EPISODE_SEEDS = "episode_seeds"
EPISODE_TASKS = "episode_tasks"
POLICY_ACTIONS = "policy_actions"
"""In a dataset's conventions: what was executed in each episode before its first frame, a list of lists of numbers."""


@dataclass(frozen=True)
class SimulatorState:
    """
    A state that can be reached again.

    Attributes:
        task (`str`): a name of the environment's tasks.
        seed (`int`): of the episode.
        executed (`np.ndarray`): float32 `(n, A)`, the actions that led there.
    """

    task: str
    seed: int
    executed: np.ndarray


class SimulatorStates:
    """
    Simulator states behind the frames of a dataset of [`~nora15_hf.evaluation.demonstrations.record_demonstrations`] or
    [`~nora15_hf.preferences.reached_states.record_reached_states`].

    Args:
        dataset ([`LeRobotDataset`]): that dataset with all its episodes, whatever columns it was opened with.

    Raises:
        ValueError: opened only in part, without what was executed, or recorded by something that kept no seeds.
    """

    def __init__(self, dataset: LeRobotDataset):
        self._actions = dataset.column(EXECUTED_ACTION)
        self._episodes = dataset.episodes
        self._starts = _episode_starts(dataset)
        self._before = dataset.conventions.get(POLICY_ACTIONS)

    def state(self, episode_index: int, frame_index: int) -> SimulatorState:
        """The state that frame `frame_index` of episode `episode_index` shows."""
        start = int(self._episodes["from"][episode_index])
        executed = self._actions[start : start + frame_index]
        if self._before is not None:
            before = np.array(self._before[episode_index], dtype=np.float32)
            executed = np.concatenate([before.reshape(-1, executed.shape[1]), executed])
        return SimulatorState(*self._starts[episode_index], executed)


def _episode_starts(dataset: LeRobotDataset) -> list[tuple[str, int]]:
    conventions = dataset.conventions
    indices = dataset.episodes["index"].tolist()
    if indices != list(range(dataset.info["total_episodes"])):
        raise ValueError(
            f"The dataset was opened with {len(indices)} of its {dataset.info['total_episodes']} episodes. Open all of "
            "them: seeds are numbered consecutively."
        )
    if EPISODE_SEEDS not in conventions and RECORDING not in conventions:
        raise ValueError(
            f"The dataset's conventions ({sorted(conventions)}) do not contain the seeds of its episodes: it was not recorded "
            "by record_demonstrations or record_reached_states, and its states cannot be reached again."
        )
    if EPISODE_SEEDS in conventions:
        return list(zip(conventions[EPISODE_TASKS], conventions[EPISODE_SEEDS], strict=True))
    recording = conventions[RECORDING]
    environment = find_environment(conventions["simulator"])
    known_tasks = environment.tasks or environment.describe(environment.settings_in(conventions)).tasks
    task_of: dict[str, str] = {}
    for name in recording["failed_seeds"]:
        other = task_of.setdefault(known_tasks[name].instruction, name)
        if other != name:
            raise ValueError(
                f"The dataset holds {other!r} and {name!r}, which have the same instruction, so it is not known which of "
                "them an episode shows. Record them in separate datasets."
            )
    tasks = [task_of[instruction] for instruction, *_ in dataset.episodes["tasks"]]
    # A task's episodes stand in the order of its seeds, those left out that failed.
    next_seed = dict.fromkeys(tasks, recording["first_seed"])
    starts = []
    for task in tasks:
        while next_seed[task] in recording["failed_seeds"][task]:
            next_seed[task] += 1
        starts.append((task, next_seed[task]))
        next_seed[task] += 1
    return starts


__all__ = ["EPISODE_SEEDS", "EPISODE_TASKS", "POLICY_ACTIONS", "SimulatorState", "SimulatorStates"]
