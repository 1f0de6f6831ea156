# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop evaluation of a policy on Meta-World tasks, with the two controls that show what it uses."""

from collections.abc import Sequence
from typing import Any, Literal

from ..control.flow_chunk_policy import FlowChunkPolicy
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..simulation.metaworld_tasks import get_task, tasks_sharing_scene
from ..simulation.simulation_pool import SimulationPool
from .rollout import Episode, EpisodeResult, ShuffledImages, rollout

# What a policy cannot know about its pictures and actions and must therefore find as it was in training.
BINDING_CONVENTIONS = (
    "simulator",
    "renderer",
    "image_size",
    "camera",
    "camera_turned_degrees",
    "crop",
    "show_goal",
    "control_rate_hz",
    "action",
)

Control = Literal["swapped_instruction", "shuffled_images"]


def check_conventions(recorded: dict[str, Any], simulator: dict[str, Any]) -> None:
    """
    Refuses a simulator that shows or does something else than the demonstrations did.

    Args:
        recorded (`dict`): Conventions of the demonstrations, as kept in the dataset and in the processor.
        simulator (`dict`): Conventions of the simulator, see [`SimulationPool.conventions`].

    Raises:
        ValueError: Lists every convention that differs.
    """
    differing = [
        f"{name}: recorded {recorded[name]!r}, simulator {simulator[name]!r}"
        for name in BINDING_CONVENTIONS
        if name in recorded and recorded[name] != simulator[name]
    ]
    if differing:
        raise ValueError(
            "The simulator does not agree with the recorded demonstrations, so that success would mean nothing: "
            f"{'; '.join(differing)}. Evaluate with the recorded settings, or record the demonstrations anew."
        )


def swapped_instructions(tasks: Sequence[str]) -> dict[str, str]:
    """For each task that shares its scene with another of `tasks`: the other's instruction."""
    swapped = {}
    for task in tasks:
        others = [other for other in tasks_sharing_scene(task) if other in tasks]
        if others:
            swapped[task] = get_task(others[0]).instruction
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
    control: Control | None = None,
    record_frames: int = 0,
    progress: bool = True,
) -> list[EpisodeResult]:
    """
    Runs a policy in closed loop.

    Args:
        model, processor: The policy.
        tasks (`list[str]`): Meta-World tasks.
        pool ([`SimulationPool`]): The simulators.
        episodes_per_task (`int`): Episodes of each task, with the seeds from `first_seed` on.
        first_seed (`int`, *optional*, defaults to 10000): Beyond all training seeds.
        n_action_steps (`int`, *optional*, defaults to 5): Actions executed of each chunk.
        control (`str`, *optional*):
            `"swapped_instruction"` tells the policy what another task of the same scene is told (tasks that share no
            scene are left out); `"shuffled_images"` shows it another episode's pictures.
        record_frames (`int`, *optional*, defaults to 0): Keep every n-th picture the policy saw; 0 keeps none.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar.

    Returns:
        `list[EpisodeResult]`, task by task.

    Raises:
        ValueError: The policy was trained under other conventions, or no two tasks share a scene for the swap.
    """
    for recorded in processor.conventions.values():
        check_conventions(recorded, pool.conventions())
    instructions: dict[str, str | None] = dict.fromkeys(tasks)
    if control == "swapped_instruction":
        instructions = swapped_instructions(tasks)
        if not instructions:
            raise ValueError(f"No two of the tasks {list(tasks)} share a scene, so instructions cannot be swapped.")
    episodes = [
        Episode(task, seed, instruction)
        for task, instruction in instructions.items()
        for seed in range(first_seed, first_seed + episodes_per_task)
    ]
    policy = FlowChunkPolicy(model, processor)
    if control == "shuffled_images":
        policy = ShuffledImages(policy)
    return rollout(
        policy, episodes, pool, n_action_steps=n_action_steps, record_frames=record_frames, progress=progress
    )


__all__ = ["BINDING_CONVENTIONS", "check_conventions", "evaluate_policy", "swapped_instructions"]
