# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Demonstrations by a simulator's scripted experts, written as a LeRobot v3.0 dataset."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..data.lerobot_writer import LeRobotWriter
from ..data.told_embodiment import EMBODIMENT
from ..simulation.environment import FIRST_EVALUATION_SEED, EnvironmentSpec
from ..simulation.expert_episodes import ExpertNoise, recorded_features
from ..simulation.simulation_pool import SimulationPool
from .environment_fit import environment_embodiment

# Among the conventions of a dataset of `record_demonstrations`: how it was recorded.
RECORDING = "demonstrations"


class FailingExpertError(RuntimeError):
    """A task's expert fails too often for a recording."""


def record_demonstrations(
    root: str | Path,
    tasks: Sequence[str],
    episodes_per_task: int,
    *,
    pool: SimulationPool,
    first_seed: int = 0,
    noise_std: float = 0.3,
    burst_probability: float = 0.03,
    burst_steps: tuple[int, int] = (3, 6),
    steps_after_success: int = 8,
    progress: bool = True,
) -> Path:
    """Record disturbed experts with clean labels until every task has its number of successful episodes.

    Seeds are used from `first_seed` on, per task; a failed episode (the pool's step limit came before success) is
    left out, counted in the dataset's conventions and replaced by the next unused seed. The result depends neither
    on the number of workers nor on their timing.

    Args:
        root (`str` or `Path`): folder of the new dataset, absent or empty.
        tasks (`Sequence[str]`): names of the environment's tasks.
        episodes_per_task (`int`): successful episodes wanted of each.
        pool ([`SimulationPool`]): where the experts run; decides everything that the conventions name.
        first_seed (`int`, defaults to 0): of each task; seeds from 10000 on are for evaluation.
        noise_std, burst_probability, burst_steps, steps_after_success: see [`ExpertNoise`].
        progress (`bool`, defaults to `True`): show a progress bar.

    Returns:
        `Path`: `root`.

    Raises:
        ValueError: unknown task, no task, a task or an instruction twice, fewer than one episode, seeds outside 0 to 9999, or an environment
            without scripted experts.
        FailingExpertError: a task's expert failed more than `episodes_per_task` times (and more than five).
        LostEnvironmentError: an environment failed, as where its expert has no plan for the task.
    """
    if not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"`tasks` is {list(tasks)}; name at least one task and none twice.")
    max_failures = max(5, episodes_per_task)
    end_of_seeds = first_seed + episodes_per_task + max_failures
    if episodes_per_task < 1 or not 0 <= first_seed < end_of_seeds <= FIRST_EVALUATION_SEED:
        raise ValueError(
            f"`episodes_per_task` ({episodes_per_task}) must be 1 or more and `first_seed` ({first_seed}) 0 or more, so that no "
            f"seed, with {max_failures} in reserve for failures, reaches {FIRST_EVALUATION_SEED}: a policy is evaluated on "
            "those from there on."
        )
    spec = pool.spec
    require_expert(spec)
    instructions = {task: spec.task(task).instruction for task in tasks}
    if len(set(instructions.values())) < len(tasks):
        raise ValueError(
            f"A dataset knows a task by its instruction, and some of the tasks {list(tasks)} have the same. Record them apart."
        )
    noise = asdict(ExpertNoise(noise_std, burst_probability, burst_steps, steps_after_success))
    failed_seeds: dict[str, list[int]] = {task: [] for task in tasks}
    recording = {"expert_noise": noise, "first_seed": first_seed, "failed_seeds": failed_seeds}
    writer = open_recording(root, spec, {RECORDING: recording})
    requests = [(task, first_seed + number) for task in tasks for number in range(episodes_per_task)]
    next_seed = dict.fromkeys(tasks, first_seed + episodes_per_task)
    with tqdm(total=len(requests), desc="demonstrations", disable=not progress) as bar:
        while requests:
            replacements = []
            for (task, seed), frames in zip(requests, pool.expert_episodes(requests, noise), strict=True):
                if frames is not None:
                    writer.add_episode(instructions[task], frames)
                    bar.update()
                    continue
                failed_seeds[task].append(seed)
                if len(failed_seeds[task]) > max_failures:
                    raise FailingExpertError(
                        f"The expert of {task!r} failed {len(failed_seeds[task])} times (seeds {failed_seeds[task]}) "
                        f"within {spec.max_steps} steps. Raise the pool's `max_steps` or lower `noise_std`."
                    )
                replacements.append((task, next_seed[task]))
                next_seed[task] += 1
            requests = replacements
    return writer.finalize()


def require_expert(spec: EnvironmentSpec) -> None:
    """Refuse an environment that has no scripted expert to record."""
    if not spec.has_expert:
        raise ValueError(
            f"The environment {spec.name!r} has no scripted expert, which is needed to act or to label. Record in one that "
            "has, or write demonstrations of your own with LeRobotWriter."
        )


def open_recording(root: str | Path, spec: EnvironmentSpec, recording: dict[str, Any]) -> LeRobotWriter:
    """A writer for the frames of [`record_steps`], with the simulator's conventions and what holds for this recording alone."""
    return LeRobotWriter(
        root,
        fps=spec.control_rate,
        features=recorded_features(spec),
        robot_type=spec.robot_type,
        conventions={**spec.conventions, EMBODIMENT: environment_embodiment(spec).to_dict()},
        recording=recording,
    )


__all__ = ["RECORDING", "FailingExpertError", "open_recording", "record_demonstrations", "require_expert"]
