# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Samples of a dataset with what a policy takes for them, made ready by data-loading workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import BatchFeature

from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..nora15 import Nora15Processor
from .chunk_prediction import prepare_inputs


def sample_inputs(processor: Nora15Processor, samples: Sequence[Sample]) -> BatchFeature:
    """
    What a policy takes for some samples, on the CPU: also where it goes to a GPU, whose pictures would be rounded otherwise than those
    of data-loading workers.
    """
    return prepare_inputs(
        processor,
        [sample["images"] for sample in samples],
        [sample["instruction"] for sample in samples],
        states=[sample["state"] for sample in samples] if processor.needs_state else None,
        dataset_key=[sample["dataset_key"] for sample in samples],
    )


@dataclass
class PreparedSamples:
    """
    Attributes:
        samples (`list[Sample]`): Of the dataset.
        inputs (`BatchFeature`): See [`sample_inputs`].
    """

    samples: list[Sample]
    inputs: BatchFeature

    def pin_memory(self) -> "PreparedSamples":
        """The same, with inputs that a GPU copies by itself."""
        self.inputs = BatchFeature({name: tensor.pin_memory() for name, tensor in self.inputs.items()})
        return self


@dataclass(frozen=True)
class SamplePreparation:
    """Makes [`PreparedSamples`] of positions in a dataset, for [`~nora15_hf.runtime.prepared_ahead.PreparedAhead`]."""

    dataset: LeRobotDataset
    processor: Nora15Processor

    def __call__(self, positions: Sequence[int]) -> PreparedSamples:
        samples = [self.dataset[position] for position in positions]
        return PreparedSamples(samples, sample_inputs(self.processor, samples))


__all__ = ["PreparedSamples", "SamplePreparation", "sample_inputs"]
