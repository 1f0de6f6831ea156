# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy without a model for the two-camera arm, whose actions depend on everything that a batched policy's may depend on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nora15_hf.evaluation.environment_fit import environment_embodiment
from nora15_hf.simulation.environment import EnvironmentSpec, Observation

from .two_camera_arm import CORNERS, TASKS

__all__ = ["WalkingPolicy"]

CORNER_OF = {task.instruction: np.array(CORNERS[name]) for name, task in TASKS.items()}


class WalkingPolicy:
    """
    Walks to the corner that its instruction names, and does not arrive in all episodes. How fast depends on its noise key, on its
    row and on the size and the lengths of the batch, as rounding does.
    """

    def __init__(
        self, spec: EnvironmentSpec, device: str = "cpu", decoder: str = "flow", invalid_seeds: Sequence[int] = ()
    ):
        self.invalid_seeds = invalid_seeds
        self.batches: list[list[tuple[int, ...]]] = []
        self.metadata: dict[str, Any] = {
            "policy": "walker",
            "policy_revision": None,
            "policy_fingerprint": "w",
            "dataset_key": "arm",
            "dataset_keys": ["arm"],
            "chunk_size": 5,
            "action_dim": spec.action_dim,
            "needs_state": False,
            "dtype": "float32",
            "device": device,
            "decoder": decoder,
            "solver": None,
            "num_steps": None,
            "temperature": None,
            "contract": environment_embodiment(spec).to_dict(),
            "conventions": {},
            "versions": {},
        }

    def __call__(self, observations: Sequence[Observation], noise_keys: Sequence[tuple[int, ...]]) -> np.ndarray:
        self.batches.append(list(noise_keys))
        of_batch = len(observations) + sum(len(observation.instruction) for observation in observations) / 100
        chunks = np.zeros((len(observations), 5, 3), dtype=np.float32)
        for row, (observation, key) in enumerate(zip(observations, noise_keys, strict=True)):
            speed = np.random.default_rng(key).uniform(0.2, 0.5) + 0.03 * of_batch + 0.02 * row
            if key[0] % 3 == 0:
                speed /= 10
            chunks[row, :, :2] = np.clip(CORNER_OF[observation.instruction] - observation.state[:2], -speed, speed)
            if key[0] in self.invalid_seeds and key[1] == 2:
                chunks[row] = np.nan
        return chunks
