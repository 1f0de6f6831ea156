# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Policies behind a server that remember what they were asked."""

from collections.abc import Sequence

import numpy as np

from helpers.two_camera_arm import CORNERS, METRES_PER_ACTION, TwoCameraArm
from nora15_hf.actions.keyed_noise import NoiseKey, keyed_noise
from nora15_hf.embodiment import Embodiment
from nora15_hf.evaluation.environment_fit import environment_embodiment
from nora15_hf.serving.served_policy import ChunkRequest, ModelPolicy

CHUNK_SIZE = 5


class WatchedPolicy(ModelPolicy):
    """
    Attributes:
        requests (`list[ChunkRequest]`), chunks (`list[np.ndarray]`): What it was asked, and what it answered.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.requests, self.chunks = [], []

    def predict(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        chunks = super().predict(requests)
        self.requests += requests
        self.chunks += chunks
        return chunks


class NoisyArmExpert:
    """
    Moves the hand of [`TwoCameraArm`] to the corner of the instruction, shaken by the noise of the request's key: how many steps an
    episode takes depends on the state, the instruction and the keys, and on nothing else.

    Attributes:
        chunks (`dict[NoiseKey, np.ndarray]`): What it answered.
    """

    needs_state = True
    dataset_key = "arm"
    dataset_keys = ("arm",)

    def __init__(self):
        self.metadata = {"policy": "expert", "dataset_key": "arm", "chunk_size": CHUNK_SIZE, "action_dim": 3}
        self.chunks = {}

    def contract(self, dataset_key: str) -> Embodiment:
        known = environment_embodiment(TwoCameraArm.describe()).to_dict()
        return Embodiment.from_dict({**known, "chunk_size": CHUNK_SIZE, "image_size": 56}, "the arm")

    def new_seed(self) -> int:
        return 0

    def warm_up(self) -> None: ...

    def predict(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        return [self._chunk(request.observation, request.noise_key) for request in requests]

    def __call__(self, observations, noise_keys) -> np.ndarray:
        return np.stack([self._chunk(*each) for each in zip(observations, noise_keys, strict=True)])

    def _chunk(self, observation, noise_key: NoiseKey) -> np.ndarray:
        (corner,) = [corner for name, corner in CORNERS.items() if name in observation.instruction]
        wanted = (np.array(corner) - observation.state[:2]) / METRES_PER_ACTION / CHUNK_SIZE
        chunk = np.append(np.clip(wanted, -0.8, 0.8), 1.0) + 0.5 * keyed_noise([noise_key], (CHUNK_SIZE, 3))[0].numpy()
        self.chunks[noise_key] = chunk.astype(np.float32)
        return self.chunks[noise_key]


__all__ = ["CHUNK_SIZE", "NoisyArmExpert", "WatchedPolicy"]
