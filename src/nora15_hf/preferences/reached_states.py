# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Demonstrations that begin where the policy led, recorded in a simulator with scripted experts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..actions.keyed_noise import keyed_rng
from ..control.chunk_policy import Nora15ChunkPolicy
from ..evaluation.demonstrations import open_recording, require_expert
from ..evaluation.environment_fit import check_policy_fits
from ..evaluation.lockstep import DrivenEpisode, drive_in_lockstep
from ..simulation.environment import EnvironmentSpec
from ..simulation.simulation_pool import SimulationPool
from ..simulation.simulation_worker import RecordedSteps, StepOutcome
from .simulator_states import EPISODE_SEEDS, EPISODE_TASKS, POLICY_ACTIONS

REACHED_STATES = "reached_states"


@dataclass
class _Drive(DrivenEpisode):
    """An episode that the policy begins."""

    task: str
    seed: int
    policy_steps: int
    executed: list[np.ndarray] = field(default_factory=list)

    @property
    def steps_left(self) -> int:
        return self.policy_steps - len(self.executed)

    def add(self, chunk: np.ndarray, outcome: StepOutcome) -> None:
        # Execution stops at success.
        self.executed.extend(chunk[: outcome.num_steps - len(self.executed)])
        self.observation = outcome.observation


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
    Lets the policy act and then the expert take over: a LeRobot dataset of demonstrations that begin where the policy led.

    In each episode the policy acts for a number of steps drawn between `n_action_steps` and `max_policy_steps`, or
    until it succeeds; then the expert brings the episode to its end. Only the expert's part is recorded. There each chunk of
    consecutive actions is what the expert did from that state on, and the frame behind it shows where that led. What the
    expert would have wanted in each of the policy's steps makes no chunk: each of these actions answers another action of
    the policy than the expert's. Episodes that the expert cannot bring to success are left out and counted in the dataset's
    conventions, which also hold the policy's actions, so that states can be reached again.

    Args:
        root (`str` or `Path`): folder of the new dataset, absent or empty.
        policy ([`Nora15ChunkPolicy`]): who acts first.
        tasks (`Sequence[str]`): names of the environment's tasks.
        episodes_per_task (`int`): episodes tried of each, with the seeds from `first_seed` on.
        pool ([`SimulationPool`]): simulators under the policy's conventions.
        max_policy_steps (`int`, *optional*, defaults to 60): most control steps of the policy.
        n_action_steps (`int`, *optional*, defaults to 5): actions that the policy executes before it looks again.
        first_seed (`int`, *optional*, defaults to 0): keep away from 10000 and above, which are for evaluation.
        steps_after_success (`int`, *optional*, defaults to 8): how long the expert's part goes on after success, at least 1.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        `Path`: `root`.

    Raises:
        ValueError: no task, fewer than one episode, too few steps of the policy or after success, an environment without
            scripted experts, or one that the policy does not fit (see [`check_policy_fits`]).
        RuntimeError: no episode succeeded.
    """
    if not tasks or episodes_per_task < 1:
        raise ValueError(
            f"tasks={list(tasks)}, episodes_per_task={episodes_per_task}: name at least one task and one episode."
        )
    if steps_after_success < 1:
        raise ValueError(
            f"steps_after_success={steps_after_success} must be at least 1: the last frame shows the task done, as a goal must, "
            "and an episode in which the policy itself succeeds has no other frames."
        )
    spec = pool.spec
    check_policy_steps(spec, max_policy_steps, n_action_steps)
    require_expert(spec)
    check_policy_fits(policy.processor, spec, policy.dataset_key)
    tasks_of_episodes, seeds, policy_actions, failed = [], [], [], []
    writer = open_recording(
        root,
        spec,
        {
            EPISODE_TASKS: tasks_of_episodes,
            EPISODE_SEEDS: seeds,
            POLICY_ACTIONS: policy_actions,
            REACHED_STATES: {"failed": failed, "max_policy_steps": max_policy_steps},
        },
    )
    episodes = [(task, first_seed + number) for task in tasks for number in range(episodes_per_task)]
    with tqdm(total=len(episodes), desc="Reached states", unit="episode", disable=not progress) as bar:
        for start in range(0, len(episodes), pool.num_slots):
            group = episodes[start : start + pool.num_slots]
            for drive, recorded in _drive(policy, group, pool, max_policy_steps, n_action_steps, steps_after_success):
                bar.update()
                if not recorded.success:
                    failed.append([drive.task, drive.seed])
                    continue
                writer.add_episode(spec.task(drive.task).instruction, recorded.frames)
                tasks_of_episodes.append(drive.task)
                seeds.append(drive.seed)
                policy_actions.append([action.tolist() for action in drive.executed])
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
) -> Iterator[tuple[_Drive, RecordedSteps]]:
    """What the policy did in episodes that have a slot each, and what the expert did then."""
    seen = pool.start([(slot, task, seed) for slot, (task, seed) in enumerate(episodes)])
    drives = []
    for (task, seed), observation in zip(episodes, seen, strict=True):
        draw = keyed_rng((seed, len(task), *task.encode()))
        policy_steps = int(draw.integers(n_action_steps, max_policy_steps + 1))
        drives.append(_Drive(observation, (seed,), task, seed, policy_steps))
    driven = dict(enumerate(drives))
    for actions in drive_in_lockstep(policy, driven, n_action_steps=n_action_steps, action_dim=pool.spec.action_dim):
        steps = [(slot, chunk[: driven[slot].steps_left]) for slot, chunk in actions.items()]
        for (slot, chunk), outcome in zip(steps, pool.advance(steps), strict=True):
            driven[slot].add(chunk, outcome)
            if outcome.ended or not driven[slot].steps_left:
                del driven[slot]
    finishes = pool.record(range(len(drives)), steps_after_success)
    return zip(drives, finishes, strict=True)


__all__ = ["REACHED_STATES", "check_policy_steps", "record_reached_states"]
