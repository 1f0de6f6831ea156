# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""States that the policy itself reaches, recorded like demonstrations in a simulator with scripted experts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..actions.keyed_noise import keyed_rng
from ..control.chunk_policy import Nora15ChunkPolicy
from ..data.lerobot_dataset import LeRobotDataset
from ..evaluation.demonstrations import open_recording, require_expert
from ..evaluation.environment_fit import check_policy_fits
from ..evaluation.lockstep import DrivenEpisode, drive_in_lockstep
from ..simulation.environment import EnvironmentSpec
from ..simulation.simulation_pool import SimulationPool
from ..simulation.simulation_worker import RecordedSteps
from .simulator_states import EPISODE_SEEDS, EPISODE_TASKS

REACHED_STATES = "reached_states"


@dataclass
class _Drive(DrivenEpisode):
    """An episode whose first steps are the policy's."""

    task: str
    seed: int
    policy_steps: int
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    success: bool = False

    @property
    def num_steps(self) -> int:
        return sum(len(part["action"]) for part in self.parts)

    def add(self, recorded: RecordedSteps) -> None:
        self.parts.append(recorded.frames)
        self.success, self.observation = recorded.success, recorded.observation


def record_reached_states(
    root: str | Path,
    policy: Nora15ChunkPolicy,
    tasks: Sequence[str],
    episodes_per_task: int,
    *,
    pool: SimulationPool,
    max_policy_steps: int = 60,
    n_action_steps: int = 5,
    first_seed: int = 0,
    steps_after_success: int = 8,
    progress: bool = True,
) -> Path:
    """
    Lets the policy act and the expert label, then finish: a LeRobot dataset of states that the policy reaches.

    Frames are those of demonstrations: `action` is what the expert wants at the frame, `executed_action` what moved the
    robot. In each episode the policy acts for a number of steps drawn between `n_action_steps` and `max_policy_steps`, or
    until it succeeds; then the expert takes over, so that the last frame shows the task done, as a goal must. Episodes
    that the expert cannot bring to success are left out and counted in the dataset's conventions.

    Args:
        root (`str` or `Path`): folder of the new dataset, absent or empty.
        policy ([`Nora15ChunkPolicy`]): who acts first.
        tasks (`Sequence[str]`): names of the environment's tasks.
        episodes_per_task (`int`): episodes tried of each, with the seeds from `first_seed` on.
        pool ([`SimulationPool`]): simulators under the policy's conventions.
        max_policy_steps (`int`, *optional*, defaults to 60): most control steps of the policy.
        n_action_steps (`int`, *optional*, defaults to 5): actions that the policy executes before it looks again.
        first_seed (`int`, *optional*, defaults to 0): keep away from 10000 and above, which are for evaluation.
        steps_after_success (`int`, *optional*, defaults to 8): how long the expert's part goes on after success.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        `Path`: `root`. [`reached_positions`] tells which of its frames the policy reached.

    Raises:
        ValueError: no task, fewer than one episode, too few steps, an environment without scripted experts, or one that the
            policy does not fit (see [`check_policy_fits`]).
        RuntimeError: no episode succeeded.
    """
    if not tasks or episodes_per_task < 1:
        raise ValueError(
            f"tasks={list(tasks)}, episodes_per_task={episodes_per_task}: name at least one task and one episode."
        )
    spec = pool.spec
    check_policy_steps(spec, max_policy_steps, n_action_steps)
    require_expert(spec)
    check_policy_fits(policy.processor, spec, policy.dataset_key)
    tasks_of_episodes, seeds, policy_steps, failed = [], [], [], []
    writer = open_recording(
        root,
        spec,
        {
            EPISODE_TASKS: tasks_of_episodes,
            EPISODE_SEEDS: seeds,
            REACHED_STATES: {"policy_steps": policy_steps, "failed": failed, "max_policy_steps": max_policy_steps},
        },
    )
    episodes = [(task, first_seed + number) for task in tasks for number in range(episodes_per_task)]
    with tqdm(total=len(episodes), desc="Reached states", unit="episode", disable=not progress) as bar:
        for start in range(0, len(episodes), pool.num_slots):
            group = episodes[start : start + pool.num_slots]
            for drive in _drive(policy, group, pool, max_policy_steps, n_action_steps, steps_after_success):
                bar.update()
                if not drive.success:
                    failed.append([drive.task, drive.seed])
                    continue
                frames = {key: np.concatenate([part[key] for part in drive.parts]) for key in drive.parts[0]}
                writer.add_episode(spec.task(drive.task).instruction, frames)
                tasks_of_episodes.append(drive.task)
                seeds.append(drive.seed)
                policy_steps.append(drive.policy_steps)
    if not seeds:
        raise RuntimeError(
            f"The expert brought none of the {len(episodes)} episodes to success within {spec.max_steps} steps. Lower "
            "max_policy_steps or raise the pool's max_steps."
        )
    return writer.finalize()


def check_policy_steps(spec: EnvironmentSpec, max_policy_steps: int, n_action_steps: int) -> None:
    """
    Raises:
        ValueError: Less than one look of the policy, or nothing of an episode left to the expert.
    """
    if not 1 <= n_action_steps <= max_policy_steps < spec.max_steps:
        raise ValueError(
            f"n_action_steps={n_action_steps}, max_policy_steps={max_policy_steps}, but 1 <= n_action_steps <= "
            f"max_policy_steps < {spec.max_steps} must hold: the expert also needs some of the steps within the pool's limit."
        )


def _drive(
    policy: Nora15ChunkPolicy,
    episodes: Sequence[tuple[str, int]],
    pool: SimulationPool,
    max_policy_steps: int,
    n_action_steps: int,
    steps_after_success: int,
) -> list[_Drive]:
    """Episodes that have a slot each."""
    seen = pool.start([(slot, task, seed) for slot, (task, seed) in enumerate(episodes)])
    drives = []
    for (task, seed), observation in zip(episodes, seen, strict=True):
        draw = keyed_rng((seed, len(task), *task.encode()))
        policy_steps = int(draw.integers(n_action_steps, max_policy_steps + 1))
        drives.append(_Drive(observation, (seed,), task, seed, policy_steps))
    driven = dict(enumerate(drives))
    for actions in drive_in_lockstep(policy, driven, n_action_steps=n_action_steps, action_dim=pool.spec.action_dim):
        steps = [
            (slot, chunk[: driven[slot].policy_steps - driven[slot].num_steps]) for slot, chunk in actions.items()
        ]
        for slot, recorded in zip(actions, pool.record(steps, steps_after_success), strict=True):
            drive = driven[slot]
            drive.add(recorded)
            if recorded.ended or drive.num_steps == drive.policy_steps:
                del driven[slot]
    for drive in drives:
        drive.policy_steps = drive.num_steps
    finishes = pool.record([(slot, None) for slot in range(len(drives))], steps_after_success)
    for drive, recorded in zip(drives, finishes, strict=True):
        drive.add(recorded)
    return drives


def reached_positions(dataset: LeRobotDataset) -> list[int]:
    """
    Positions of the frames that the policy reached, the expert's part left out.

    Args:
        dataset ([`LeRobotDataset`]): of [`record_reached_states`], with any of its episodes.
    """
    policy_steps = dataset.conventions[REACHED_STATES]["policy_steps"]
    episodes = dataset.episodes
    return [
        position
        for start, index in zip(episodes["from"].tolist(), episodes["index"].tolist(), strict=True)
        for position in range(start, start + policy_steps[index])
    ]


__all__ = ["REACHED_STATES", "reached_positions", "record_reached_states"]
