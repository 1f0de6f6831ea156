# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What every command that trains on a preference dataset loads."""

from typing import Protocol

import torch
from datasets import Dataset
from transformers import BitsAndBytesConfig, TrainingArguments

from ..nora15 import Nora15Config, Nora15ForActionPrediction, Nora15Processor
from ..preferences import load_preferences, split_by_episode
from ..preferences.preference_dataset import pairs_fingerprint
from ..repo_files.checkpoint import Checkpoint

__all__ = ["PreferenceTraining", "policy_and_preferences", "training_data"]


class PreferenceTraining(Protocol):
    """Options of such a command."""

    policy: str
    policy_revision: str | None
    preferences: str
    preferences_revision: str | None
    validation_fraction: float | None

    def quantization_config(self, bf16: bool) -> BitsAndBytesConfig | None: ...


def training_data(options: PreferenceTraining) -> str:
    """Digest of the preference rows. A policy that is none is refused before they are read; its weights are not loaded."""
    source = Checkpoint(options.policy, {"revision": options.policy_revision})
    source.refuse_other_model(Nora15Config.model_type)
    source.check_complete()
    return pairs_fingerprint(load_preferences(options.preferences, revision=options.preferences_revision))


def policy_and_preferences(
    options: PreferenceTraining, config: TrainingArguments
) -> tuple[Nora15ForActionPrediction, Nora15Processor, Dataset, Dataset | None]:
    """The policy with its processor, and the rows for training and for evaluation."""
    # Master weights in float32, also with bf16=True: smaller types round steps of 5e-7 away.
    policy = Nora15ForActionPrediction.from_pretrained(
        options.policy,
        dtype=torch.float32,
        quantization_config=options.quantization_config(config.bf16),
        revision=options.policy_revision,
    )
    processor = Nora15Processor.from_pretrained(options.policy, revision=options.policy_revision)
    rows = load_preferences(
        options.preferences, revision=options.preferences_revision, policy=policy, processor=processor
    )
    if options.validation_fraction is None:
        return policy, processor, rows, None
    return policy, processor, *split_by_episode(rows, options.validation_fraction, config.seed)
