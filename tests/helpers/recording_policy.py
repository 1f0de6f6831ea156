# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A served policy without a model, whose chunks tell what they were asked for, and which waits when it is told to."""

import itertools
import threading

import numpy as np

from nora15_hf.embodiment import Camera, Embodiment

H, A = 4, 3
CONTRACT = Embodiment(
    cameras={"top": Camera(height=8, width=8, role="external"), "wrist": Camera(role="wrist")},
    action_names=("dx", "dy", "gripper"),
    delta_actions=(True, True, False),
    state_names=("x", "y"),
    control_rate=10.0,
    chunk_size=H,
    image_size=56,
)


class RecordingPolicy:
    """
    The first action of a chunk is (first number of the noise key, its last number, mean of the first picture), the others are
    0.

    Attributes:
        batches (`list[int]`): Sizes of the batches, in order.
        requests (`list[ChunkRequest]`): Everything that was asked for.
        go (`threading.Event`): Predictions wait for it; it is set at first.
        entered (`threading.Semaphore`): Released when a prediction begins.
    """

    needs_state = True
    dataset_key, dataset_keys = "arm", ["arm", "other"]

    def __init__(self):
        self.batches, self.requests = [], []
        self.go, self.entered = threading.Event(), threading.Semaphore(0)
        self.go.set()
        self._seeds = itertools.count(900)
        self.metadata = {
            "policy": "recording", "dataset_key": "arm", "dataset_keys": self.dataset_keys, "chunk_size": H, "action_dim": A,
            "needs_state": True, "num_steps": 10,
        }  # fmt: skip

    def contract(self, dataset_key):
        return CONTRACT

    def new_seed(self):
        return next(self._seeds)

    def predict(self, requests):
        self.entered.release()
        assert self.go.wait(30)
        self.batches.append(len(requests))
        self.requests += requests
        return [self.chunk(request) for request in requests]

    def chunk(self, request):
        chunk = np.zeros((H, A), dtype=np.float32)
        picture = next(iter(request.observation.images.values()))
        chunk[0] = request.noise_key[0], request.noise_key[-1], picture.mean()
        return chunk

    def warm_up(self):
        pass


def observation(level: int = 100) -> dict:
    """A good message to a server of this policy, in the policy's own names."""
    pictures = {name: np.full((8, 8, 3), level, dtype=np.uint8) for name in CONTRACT.cameras}
    return {"images": pictures, "state": np.zeros(2), "prompt": "push"}


__all__ = ["CONTRACT", "A", "H", "RecordingPolicy", "observation"]
