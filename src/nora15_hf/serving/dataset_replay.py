# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A dataset's own actions in place of a policy's: what goes wrong then is the robot's or the connection's fault."""

import itertools
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from ..data import LeRobotDataset
from ..embodiment.embodiment import Embodiment
from .served_policy import ChunkRequest


class DatasetReplay:
    """
    Answers with the actions of a dataset, one episode after another: the n-th request of an episode gets the chunk that begins
    with the action behind the last one that the client has executed by then. Behind the end the last action is repeated.

    The seed of an episode is the position of the episode that is replayed, beginning again behind the last one. Clients that
    give no seed get the episodes in turn. Observations are checked as for a policy, and not used.

    Args:
        dataset ([`LeRobotDataset`]): Its chunk size is the server's.
        n_action_steps (`int`, *optional*): Actions of a chunk that the client executes before it asks again; default: all.

    Raises:
        ValueError: `n_action_steps` is not between 1 and the chunk size.
    """

    needs_state = False

    def __init__(self, dataset: LeRobotDataset, n_action_steps: int | None = None):
        self.dataset = dataset
        self.n_action_steps = dataset.chunk_size if n_action_steps is None else n_action_steps
        if not 1 <= self.n_action_steps <= dataset.chunk_size:
            raise ValueError(
                f"n_action_steps={n_action_steps} must lie between 1 and the chunk size {dataset.chunk_size}."
            )
        self.dataset_key = dataset.dataset_key
        self.dataset_keys = [self.dataset_key]
        self._seeds = itertools.count()
        self._actions = dataset.all_actions()
        self._first_frames = dataset.episodes["from"]
        self.metadata = {
            "policy": f"replay of {self.dataset_key}",
            "policy_revision": None,
            "dataset_key": self.dataset_key,
            "dataset_keys": self.dataset_keys,
            "chunk_size": dataset.chunk_size,
            "action_dim": dataset.action_dim,
            "needs_state": False,
            "num_steps": None,
            "contract": self.contract(self.dataset_key).to_dict(),
            "conventions": dataset.conventions,
            "versions": {"nora15_hf": version("nora15_hf")},
        }

    def contract(self, dataset_key: str) -> Embodiment:
        """That of the dataset."""
        return self.dataset.embodiment

    def new_seed(self) -> int:
        """The position of the next episode."""
        return next(self._seeds)

    def predict(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray | Exception]:
        """The recorded chunk for each noise key `(seed, number of the prediction)`."""
        return [self._chunk(*request.noise_key, 0) for request in requests]

    def _chunk(self, seed: int, prediction: int, *_: int) -> np.ndarray:
        first = int(self._first_frames[seed % self.dataset.num_episodes])
        frame = self.dataset.subgoal_index(first, prediction * self.n_action_steps)
        return self._actions[
            np.minimum(frame + np.arange(self.dataset.chunk_size), self.dataset.last_frame_index(first))
        ]

    def warm_up(self) -> None:
        """There is nothing to warm up."""


__all__ = ["DatasetReplay"]
