# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A trained policy as what a rollout calls: observations in, chunks in physical units out."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..actions.keyed_noise import NoiseKey
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..simulation.environment import Observation
from .chunk_prediction import predict_chunks
from .chunk_samplers import ChunkSampler, FlowSampler
from .policy_metadata import policy_metadata


class Nora15ChunkPolicy:
    """
    Batched sampling for closed-loop evaluation (the `ChunkPolicy` contract).

    The noise of a chunk depends on its episode's seed and on how often that episode has asked before, on nothing else:
    two policies on the same seeds are paired, whichever episodes of the batch are still running.

    Args:
        model ([`Nora15ForActionPrediction`]): The policy; it is put into evaluation mode.
        processor ([`Nora15Processor`]): Its processor.
        dataset_key (`str`, *optional*): Whose units the actions are in; may be omitted when there is only one.
        sampler ([`FlowSampler`], [`FastSampler`] or [`GreedyFastSampler`], *optional*): How; by flow matching by default.
        revision (`str`, *optional*): Commit of its repo, for `metadata`.

    Attributes:
        metadata (`dict[str, Any]`): What tells this policy from others, see [`policy_metadata`].
    """

    def __init__(
        self,
        model: Nora15ForActionPrediction,
        processor: Nora15Processor,
        dataset_key: str | None = None,
        sampler: ChunkSampler | None = None,
        revision: str | None = None,
    ):
        self.model = model.eval()
        self.processor = processor
        self.dataset_key = dataset_key
        self.sampler = sampler or FlowSampler()
        self.revision = revision

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return policy_metadata(
            self.model, self.processor, dataset_key=self.dataset_key, sampler=self.sampler, revision=self.revision
        )

    def __call__(self, observations: Sequence[Observation], noise_keys: Sequence[NoiseKey]) -> np.ndarray:
        """
        Args:
            observations (`list[Observation]`): One per episode, with the cameras of the training, and others that are left out.
            noise_keys (`list[tuple[int, ...]]`): One per episode, as `(episode seed, replan index)`, see [`keyed_noise`].

        Returns:
            `np.ndarray` of shape `(batch, chunk_size, action_dim)`, float32, physical units.
        """
        cameras = self.processor.camera_names(self.dataset_key)
        return predict_chunks(
            self.model,
            self.processor,
            [[observation.images[camera] for camera in cameras or observation.images] for observation in observations],
            [observation.instruction for observation in observations],
            noise_keys,
            states=[observation.state for observation in observations],
            dataset_key=self.dataset_key,
            sampler=self.sampler,
        )


__all__ = ["Nora15ChunkPolicy"]
