# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop evaluation of a policy in a simulator, with the two controls that show what it uses."""

from collections.abc import Sequence
from typing import Literal

from ..control.chunk_policy import Nora15ChunkPolicy
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..simulation.environment import EnvironmentSpec
from ..simulation.simulation_pool import SimulationPool
from .environment_fit import check_policy_fits
from .rollout import Episode, EpisodeResult, ShuffledImages, rollout

Control = Literal["swapped_instruction", "shuffled_images"]


def swapped_instructions(tasks: Sequence[str], spec: EnvironmentSpec) -> dict[str, str]:
    """For each task that shares its scene with another of `tasks`: the other's instruction."""
    swapped = {}
    for task in tasks:
        others = [other for other in spec.tasks_sharing_scene(task) if other in tasks]
        if others:
            swapped[task] = spec.task(others[0]).instruction
    return swapped


def evaluate_policy(
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
    tasks: Sequence[str],
    pool: SimulationPool,
    *,
    episodes_per_task: int,
    first_seed: int = 10_000,
    n_action_steps: int = 5,
    dataset_key: str | None = None,
    control: Control | None = None,
    record_frames: int = 0,
    progress: bool = True,
) -> list[EpisodeResult]:
    """
    Runs a policy in closed loop.

    Args:
        model, processor: The policy.
        tasks (`list[str]`): Names of the environment's tasks.
        pool ([`SimulationPool`]): The simulators.
        episodes_per_task (`int`): Episodes of each task, with the seeds from `first_seed` on.
        first_seed (`int`, *optional*, defaults to 10000): Beyond all training seeds.
        n_action_steps (`int`, *optional*, defaults to 5): Actions executed of each chunk.
        dataset_key (`str`, *optional*):
            Which of the policy's datasets the simulator continues; may be omitted when there is only one.
        control (`str`, *optional*):
            `"swapped_instruction"` tells the policy what another task of the same scene is told (tasks that share no
            scene are left out); `"shuffled_images"` shows it another episode's pictures.
        record_frames (`int`, *optional*, defaults to 0): Keep every n-th picture the policy saw; 0 keeps none.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar.

    Returns:
        `list[EpisodeResult]`, task by task.

    Raises:
        ValueError: The policy does not fit the simulator (see [`check_policy_fits`]), or no two tasks share a scene for
            the swap.
    """
    check_policy_fits(processor, pool.spec, dataset_key)
    instructions: dict[str, str | None] = dict.fromkeys(tasks)
    if control == "swapped_instruction":
        instructions = swapped_instructions(tasks, pool.spec)
        if not instructions:
            raise ValueError(f"No two of the tasks {list(tasks)} share a scene, so instructions cannot be swapped.")
    episodes = [
        Episode(task, seed, instruction)
        for task, instruction in instructions.items()
        for seed in range(first_seed, first_seed + episodes_per_task)
    ]
    policy = Nora15ChunkPolicy(model, processor, dataset_key)
    if control == "shuffled_images":
        policy = ShuffledImages(policy)
    return rollout(
        policy, episodes, pool, n_action_steps=n_action_steps, record_frames=record_frames, progress=progress
    )


__all__ = ["Control", "evaluate_policy", "swapped_instructions"]
