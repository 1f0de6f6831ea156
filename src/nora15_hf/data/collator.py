# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Samples of a dataset to model inputs."""

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from .lerobot_dataset import Sample


class PolicyCollator:
    """Turns a list of samples into the policy's training inputs by one call of its processor.

    Args:
        processor (`ProcessorMixin`): The policy's processor; it normalises each sample's actions with the statistics
            of the sample's `dataset_key`.
        action_tokens (`bool`, *optional*, defaults to `True`): Append FAST tokens; False for flow matching alone.
    """

    def __init__(self, processor: ProcessorMixin, action_tokens: bool = True):
        self.processor = processor
        self.action_tokens = action_tokens

    def __call__(self, samples: list[Sample]) -> BatchFeature:
        # Datasets of a mixture may have states of different widths, which few policies need.
        return self.processor(
            images=[sample["images"] for sample in samples],
            text=[sample["instruction"] for sample in samples],
            actions=np.stack([sample["actions"] for sample in samples]),
            action_mask=np.stack([sample["action_mask"] for sample in samples]),
            state=np.stack([sample["state"] for sample in samples]) if self.processor.needs_state else None,
            dataset_key=[sample["dataset_key"] for sample in samples],
        )


__all__ = ["PolicyCollator"]
