# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""States that the policy reaches by itself, recorded like demonstrations. Needs the `sim` extra."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..actions.keyed_noise import keyed_rng
from ..control.flow_chunk_policy import FlowChunkPolicy
from ..data.lerobot_dataset import LeRobotDataset
from ..data.lerobot_writer import LeRobotWriter
from ..evaluation.demonstrations import ROBOT_TYPE
from ..evaluation.evaluate import check_conventions
from ..simulation.expert_episodes import FRAME_KEYS
from ..simulation.metaworld_env import ACTION_SIZE, CONTROL_RATE, STATE_SIZE
from ..simulation.metaworld_tasks import get_task
from ..simulation.simulation_pool import SimulationPool
from .simulator_states import EPISODE_SEEDS, EXECUTED_ACTIONS

REACHED_STATES = "reached_states"


@dataclass
class _Drive:
    """An episode in its slot."""

    task: str
    seed: int
    policy_steps: int
    image: np.ndarray
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    success: bool = False

    @property
    def num_steps(self) -> int:
        return sum(len(part["action"]) for part in self.parts)


def record_reached_states(
    root: str | Path,
    policy: FlowChunkPolicy,
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

    Frames are those of demonstrations: `action` is what the expert wants at the frame, `action.executed` what moved the
    robot. In each episode the policy acts for a number of steps drawn between `n_action_steps` and `max_policy_steps`, or
    until it succeeds; then the expert takes over, so that the last frame shows the task done, as a goal must. Episodes
    that the expert cannot bring to success are left out and counted in the dataset's conventions.

    Args:
        root (`str` or `Path`): folder of the new dataset, absent or empty.
        policy ([`FlowChunkPolicy`]): who acts first.
        tasks (`Sequence[str]`): keys of `METAWORLD_TASKS`.
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
        ValueError: no task, fewer than one episode, too few steps, or a pool under other conventions than the policy's.
        RuntimeError: no episode succeeded.
    """
    if not tasks or episodes_per_task < 1:
        raise ValueError(
            f"tasks={list(tasks)}, episodes_per_task={episodes_per_task}: name at least one task and one episode."
        )
    if not 1 <= n_action_steps <= max_policy_steps < pool.max_steps:
        raise ValueError(
            f"n_action_steps={n_action_steps}, max_policy_steps={max_policy_steps}, but 1 <= n_action_steps <= "
            f"max_policy_steps < {pool.max_steps} must hold: the expert needs steps of the pool's limit, too."
        )
    conventions = pool.conventions()
    for recorded in policy.processor.conventions.values():
        check_conventions(recorded, conventions)
    seeds, policy_steps, failed = [], [], []
    conventions |= {
        EPISODE_SEEDS: seeds,
        REACHED_STATES: {"policy_steps": policy_steps, "failed": failed, "max_policy_steps": max_policy_steps},
    }
    size = conventions["image_size"]
    shapes = {"observation.state": (STATE_SIZE,), "action": (ACTION_SIZE,), EXECUTED_ACTIONS: (ACTION_SIZE,)}
    writer = LeRobotWriter(
        root,
        fps=CONTROL_RATE,
        features={
            "observation.image": {"dtype": "image", "shape": (size, size, 3)},
            **{name: {"dtype": "float32", "shape": shape} for name, shape in shapes.items()},
        },
        robot_type=ROBOT_TYPE,
        conventions=conventions,
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
                frames = {key: np.concatenate([part[key] for part in drive.parts]) for key in FRAME_KEYS}
                writer.add_episode(get_task(drive.task).instruction, frames)
                seeds.append(drive.seed)
                policy_steps.append(drive.policy_steps)
    if not seeds:
        raise RuntimeError(
            f"The expert brought none of the {len(episodes)} episodes to success within {pool.max_steps} steps. Lower "
            "max_policy_steps or raise the pool's max_steps."
        )
    return writer.finalize()


def _drive(
    policy: FlowChunkPolicy,
    episodes: Sequence[tuple[str, int]],
    pool: SimulationPool,
    max_policy_steps: int,
    n_action_steps: int,
    steps_after_success: int,
) -> list[_Drive]:
    """Episodes that have a slot each."""
    images = pool.start([(slot, task, seed) for slot, (task, seed) in enumerate(episodes)])
    drives = []
    for (task, seed), image in zip(episodes, images, strict=True):
        draw = keyed_rng((seed, len(task), *task.encode()))
        drives.append(_Drive(task, seed, int(draw.integers(n_action_steps, max_policy_steps + 1)), image))
    replan = 0
    while running := [
        s for s, drive in enumerate(drives) if not drive.success and drive.num_steps < drive.policy_steps
    ]:
        live = [drives[slot] for slot in running]
        chunks = policy(
            np.stack([drive.image for drive in live]),
            [get_task(drive.task).instruction for drive in live],
            [(drive.seed, replan) for drive in live],
        )
        steps = [
            (slot, chunk[: min(n_action_steps, drive.policy_steps - drive.num_steps)].astype(np.float32))
            for slot, drive, chunk in zip(running, live, chunks, strict=True)
        ]
        for drive, part in zip(live, pool.record(steps, steps_after_success), strict=True):
            drive.success = part.pop("success")
            drive.image = part.pop("next_image")
            drive.parts.append(part)
        replan += 1
    for drive in drives:
        drive.policy_steps = drive.num_steps
    finishes = pool.record([(slot, None) for slot in range(len(drives))], steps_after_success)
    for drive, part in zip(drives, finishes, strict=True):
        drive.success = part.pop("success")
        drive.parts.append(part)
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
