# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Samples of a dataset to model inputs."""

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from .image_augmentation import ImageAugmentation
from .lerobot_dataset import Sample


class PolicyCollator:
    """Turns a list of samples into the policy's training inputs by one call of its processor.

    It runs in the DataLoader's workers: decoding, augmentation, resizing, FAST tokens and padding are done there.

    Args:
        processor (`ProcessorMixin`): The policy's processor; it normalises each sample's actions with the statistics
            of the sample's `dataset_key`.
        action_tokens (`bool`, *optional*, defaults to `True`): Append FAST tokens; False for flow matching alone.
        augmentation ([`ImageAugmentation`], *optional*): Of the images; none by default.
        pad_to_multiple_of (`int`, *optional*): Pad prompts to a multiple of this length.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        action_tokens: bool = True,
        augmentation: ImageAugmentation | None = None,
        pad_to_multiple_of: int | None = None,
    ):
        self.processor = processor
        self.action_tokens = action_tokens
        self.augmentation = augmentation
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, samples: list[Sample]) -> BatchFeature:
        images = [sample["images"] for sample in samples]
        if self.augmentation is not None:
            images = [
                self.augmentation(cameras, sample["dataset_key"], sample["index"])
                for cameras, sample in zip(images, samples, strict=True)
            ]
        # Datasets of a mixture may have states of different widths, which few policies need.
        needs_state = self.processor.needs_state
        return self.processor(
            images=images,
            text=[sample["instruction"] for sample in samples],
            actions=np.stack([sample["actions"] for sample in samples]),
            action_mask=np.stack([sample["action_mask"] for sample in samples]),
            state=np.stack([sample["state"] for sample in samples]) if needs_state else None,
            dataset_key=[sample["dataset_key"] for sample in samples],
            action_tokens=self.action_tokens,
            pad_to_multiple_of=self.pad_to_multiple_of,
        )


__all__ = ["PolicyCollator"]
