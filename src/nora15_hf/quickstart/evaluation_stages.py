# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stages in the simulator: demonstrations, evaluation of every policy, and the controls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..control.chunk_policy import Nora15ChunkPolicy
from ..control.chunk_samplers import FlowSampler
from ..evaluation.demonstrations import record_demonstrations
from ..evaluation.episodes import EpisodeResult
from ..evaluation.evaluate import Control, evaluate_policy, swapped_instructions
from ..simulation.simulation_pool import SimulationPool
from ..stages.post_training import load_policy
from .config import STATE_FOLDER, QuickstartConfig
from .policy_stages import initial_policy, open_demonstrations

POLICY_FOLDERS = {"sft": "policy-sft", "continued_sft": "policy-continued-sft", "dpo": "policy-dpo"}
# Every second look of a policy makes an animation of readable speed.
RECORD_EVERY = 2
ROLLOUTS_PER_ARM = 4


def record(output: Path, config: QuickstartConfig, pool: SimulationPool) -> dict[str, Any]:
    """Scripted experts with disturbed actions and clean labels, as a LeRobot v3.0 dataset."""
    open_demonstrations.cache_clear()
    record_demonstrations(output / "demonstrations", config.tasks, config.episodes, pool=pool)
    return {}


def evaluate_arm(output: Path, config: QuickstartConfig, pool: SimulationPool, arm: str) -> dict[str, Any]:
    """Success of one policy on the held-out seeds; a few episodes are kept as pictures."""
    results = evaluate_policy(
        _chunk_policy(output, config, arm),
        config.tasks,
        pool,
        # Random weights fail in episodes of full length: a few of them show it.
        episodes_per_task=config.control_episodes if arm == "random" else config.evaluation_episodes,
        n_action_steps=config.num_action_steps,
        record_every=RECORD_EVERY * config.num_action_steps,
    )
    _save_rollouts(rollouts_file(output, arm), results)
    return {"episodes": _as_json(results)}


def evaluate_controls(output: Path, config: QuickstartConfig, pool: SimulationPool) -> dict[str, Any]:
    """The SFT policy with the instruction of the other task of its scene, and with another episode's pictures."""
    policy = _chunk_policy(output, config, "sft")
    controls: list[Control] = ["shuffled_images"]
    if swapped_instructions(config.tasks, pool.spec):
        controls.insert(0, "swapped_instruction")
    outcomes = {}
    for control in controls:
        results = evaluate_policy(
            policy,
            config.tasks,
            pool,
            episodes_per_task=config.control_episodes,
            n_action_steps=config.num_action_steps,
            control=control,
        )
        outcomes[control] = _as_json(results)
    return outcomes


def rollouts_file(output: Path, arm: str) -> Path:
    """Where the recorded episodes of an arm are."""
    return output / STATE_FOLDER / f"rollouts-{arm}.npz"


def _chunk_policy(output: Path, config: QuickstartConfig, arm: str) -> Nora15ChunkPolicy:
    model, processor = initial_policy(output, config) if arm == "random" else load_policy(output / POLICY_FOLDERS[arm])
    return Nora15ChunkPolicy(model, processor, sampler=FlowSampler(temperature=config.temperature))


def _as_json(results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    names = ("task", "seed", "instruction", "success", "num_steps")
    return [{name: vars(result)[name] for name in names} for result in results]


def _save_rollouts(file: Path, results: Sequence[EpisodeResult]) -> None:
    """The first success of different tasks and the first failure; keys are positions in the list of episodes."""
    positions: list[int] = []
    for success in (True, False):
        seen: set[str] = set()
        for position, result in enumerate(results):
            if result.success == success and result.task not in seen and len(positions) < ROLLOUTS_PER_ARM - success:
                seen.add(result.task)
                positions.append(position)
    np.savez_compressed(file, **{str(position): np.stack(results[position].frames) for position in positions})


__all__ = ["POLICY_FOLDERS", "evaluate_arm", "evaluate_controls", "record", "rollouts_file"]
