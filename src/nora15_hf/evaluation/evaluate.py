# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop evaluation of a policy in a simulator, with the two controls that show what it uses."""

from collections.abc import Sequence
from typing import Any, Literal

from ..simulation.environment import FIRST_EVALUATION_SEED, EnvironmentSpec
from ..simulation.simulation_pool import SimulationPool
from .environment_fit import check_evaluated_policy_fits
from .episodes import Episode, EpisodeResult
from .evaluated_policy import EvaluatedPolicy
from .rollout import rollout
from .shuffled_images import ShuffledImages

Control = Literal["swapped_instruction", "shuffled_images"]


def swapped_instructions(tasks: Sequence[str], spec: EnvironmentSpec) -> dict[str, str]:
    """For each task that shares its scene with another of `tasks`: the other's instruction."""
    swapped = {}
    for task in tasks:
        others = [other for other in spec.tasks_sharing_scene(task) if other in tasks]
        if others:
            swapped[task] = spec.task(others[0]).instruction
    return swapped


def evaluation_episodes(
    policy: EvaluatedPolicy,
    tasks: Sequence[str],
    spec: EnvironmentSpec,
    *,
    episodes_per_task: int,
    first_seed: int = FIRST_EVALUATION_SEED,
    control: Control | None = None,
    record_every: int = 0,
    recorded_per_task: int | None = None,
) -> list[Episode]:
    """
    The episodes of an evaluation, task by task; arguments as for [`evaluate_policy`].

    Raises:
        ValueError: The policy does not fit the simulator (see [`check_evaluated_policy_fits`]), fewer than one episode, more
            than the benchmark has initial states, or no two tasks share a scene for the swap.
    """
    check_evaluated_policy_fits(policy, spec)
    if episodes_per_task < 1:
        raise ValueError(f"episodes_per_task={episodes_per_task} must be at least 1.")
    end = first_seed + episodes_per_task - FIRST_EVALUATION_SEED
    if spec.initial_states is not None and not (first_seed >= FIRST_EVALUATION_SEED and end <= spec.initial_states):
        raise ValueError(
            f"{spec.title} has {spec.initial_states} official initial states per task, those of the seeds from "
            f"{FIRST_EVALUATION_SEED} on; {episodes_per_task} episodes from seed {first_seed} on are not all among them."
        )
    instructions: dict[str, str | None] = dict.fromkeys(tasks)
    if control == "swapped_instruction":
        instructions = swapped_instructions(tasks, spec)
        if not instructions:
            raise ValueError(f"No two of the tasks {list(tasks)} share a scene, so instructions cannot be swapped.")
    recorded = episodes_per_task if recorded_per_task is None else recorded_per_task
    return [
        Episode(task, first_seed + number, instruction, record_every if number < recorded else 0)
        for task, instruction in instructions.items()
        for number in range(episodes_per_task)
    ]


def evaluate_policy(
    policy: EvaluatedPolicy,
    tasks: Sequence[str],
    pool: SimulationPool,
    *,
    episodes_per_task: int,
    first_seed: int = FIRST_EVALUATION_SEED,
    n_action_steps: int = 5,
    control: Control | None = None,
    record_every: int = 0,
    recorded_per_task: int | None = None,
    **options: Any,
) -> list[EpisodeResult]:
    """
    Runs a policy in closed loop.

    Args:
        policy ([`EvaluatedPolicy`]): As [`~nora15_hf.control.chunk_policy.Nora15ChunkPolicy`]`(model, processor)`.
        tasks (`list[str]`): Names of the environment's tasks.
        pool ([`SimulationPool`]): The simulators.
        episodes_per_task (`int`): Episodes of each task, with the seeds from `first_seed` on.
        first_seed (`int`, *optional*, defaults to 10000): Beyond all training seeds.
        n_action_steps (`int`, *optional*, defaults to 5): Actions executed of each chunk.
        control (`str`, *optional*):
            `"swapped_instruction"` tells the policy what another task of the same scene is told (tasks that share no
            scene are left out); `"shuffled_images"` shows it another episode's pictures.
        record_every (`int`, *optional*, defaults to 0): Keep the picture of every so many steps; 0 keeps none.
        recorded_per_task (`int`, *optional*): Of the first so many episodes of a task; of all by default.
        options: Further arguments of [`rollout`].

    Returns:
        `list[EpisodeResult]`, task by task.

    Raises:
        ValueError: See [`evaluation_episodes`].
        LostEnvironmentError: An environment fails, or dies or hangs twice.
    """
    episodes = evaluation_episodes(
        policy,
        tasks,
        pool.spec,
        episodes_per_task=episodes_per_task,
        first_seed=first_seed,
        control=control,
        record_every=record_every,
        recorded_per_task=recorded_per_task,
    )
    return run_episodes(policy, episodes, pool, n_action_steps=n_action_steps, control=control, **options)


def run_episodes(
    policy: EvaluatedPolicy,
    episodes: Sequence[Episode],
    pool: SimulationPool,
    *,
    n_action_steps: int,
    control: Control | None = None,
    **options: Any,
) -> list[EpisodeResult]:
    """[`rollout`] with the arguments for a policy and a control."""
    return rollout(
        ShuffledImages(policy) if control == "shuffled_images" else policy,
        episodes,
        pool,
        n_action_steps=n_action_steps,
        num_groups=num_groups_for(policy),
        end_invalid=policy.metadata["decoder"] == "fast",
        **options,
    )


def num_groups_for(policy: EvaluatedPolicy) -> int:
    """Half of the simulators move while the policy predicts for the other half, unless they would compete for the same CPUs."""
    return 1 if policy.metadata["device"] == "cpu" else 2


__all__ = [
    "Control",
    "evaluate_policy",
    "evaluation_episodes",
    "num_groups_for",
    "run_episodes",
    "swapped_instructions",
]
