# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Samples of a dataset to model inputs."""

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from .lerobot_dataset import Sample


class PolicyCollator:
    """Turns a list of samples into the policy's training inputs by one call of its processor.

    Args:
        processor (`ProcessorMixin`): The policy's processor; it normalises the actions with its own statistics.
    """

    def __init__(self, processor: ProcessorMixin):
        self.processor = processor

    def __call__(self, samples: list[Sample]) -> BatchFeature:
        """
        Raises:
            ValueError: The samples come from datasets with different keys.
        """
        keys = sorted({sample["dataset_key"] for sample in samples})
        if len(keys) > 1:
            raise ValueError(
                f"One batch holds samples of the datasets {', '.join(keys)}, whose statistics differ. "
                "Draw each batch from one dataset, or open the datasets with the same `dataset_key`."
            )
        return self.processor(
            images=[sample["images"] for sample in samples],
            text=[sample["instruction"] for sample in samples],
            actions=np.stack([sample["actions"] for sample in samples]),
            action_mask=np.stack([sample["action_mask"] for sample in samples]),
            dataset_key=keys[0],
        )


__all__ = ["PolicyCollator"]
