# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy that is ready to be trained on a dataset: its statistics, its state input, its quantised backbone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BitsAndBytesConfig

from ..data.lerobot_dataset import LeRobotDataset
from ..data.statistics import compute_statistics
from ..nora15 import FastActionTokenizer, Nora15ForActionPrediction, Nora15Processor
from ..nora15.normalization import normalize
from ..nora15.presets import tiny_policy

TINY_NORMALIZATION_MODE = "min_max"
TINY_FAST_VOCABULARY = 256


def complete_chunk_indices(dataset: LeRobotDataset) -> np.ndarray:
    """Positions whose chunk ends within its episode."""
    episodes = dataset.episodes
    return np.concatenate(
        [
            np.arange(start, stop - dataset.chunk_size + 1)
            for start, stop in zip(episodes["from"], episodes["to"], strict=True)
        ]
    )


def tiny_policy_for(
    dataset: LeRobotDataset,
    instructions: Sequence[str],
    *,
    image_size: int = 84,
    state_input: bool = False,
    seed: int = 0,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    [`tiny_policy`] with random weights, and codec and statistics fitted on a dataset.

    Args:
        dataset ([`LeRobotDataset`]): Gives chunk size, action width, dataset key and conventions.
        instructions (`list[str]`): Their words become single tokens.
        image_size (`int`, *optional*, defaults to 84), seed (`int`, *optional*, defaults to 0): See [`tiny_policy`].
        state_input (`bool`, *optional*, defaults to `False`): Whether the policy reads the dataset's state.
    """
    statistics = compute_statistics(dataset)
    actions = normalize(dataset.all_actions(), statistics["action"], TINY_NORMALIZATION_MODE)
    chunks = actions[complete_chunk_indices(dataset)[:, None] + np.arange(dataset.chunk_size)]
    return tiny_policy(
        instructions,
        image_size=image_size,
        chunk_size=dataset.chunk_size,
        action_dim=dataset.action_dim,
        action_codec=FastActionTokenizer.fit(chunks, vocab_size=TINY_FAST_VOCABULARY),
        norm_stats={dataset.dataset_key: statistics["action"]},
        state_dim=dataset.state_dim if state_input else None,
        state_stats={dataset.dataset_key: statistics["state"]} if state_input else None,
        normalization_mode=TINY_NORMALIZATION_MODE,
        conventions={dataset.dataset_key: dataset.conventions},
        seed=seed,
    )


def load_policy_for(
    source: str | Path,
    dataset: LeRobotDataset,
    *,
    state_input: bool = False,
    quantization_config: BitsAndBytesConfig | None = None,
    revision: str | None = None,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    A checkpoint to be trained on a dataset: float32 weights, and the dataset's statistics in the processor.

    Statistics that the checkpoint already has for the dataset's key are kept, since its weights were trained with them.

    Args:
        source (`str` or `Path`): Folder or Hub id of the policy.
        dataset ([`LeRobotDataset`]): What it will be trained on.
        state_input (`bool`, *optional*, defaults to `False`):
            Give a policy that reads no state a state input of the dataset's width. Statistics of other datasets are then
            dropped, as nothing is known of their states.
        quantization_config (`BitsAndBytesConfig`, *optional*): Of the backbone, to be trained through adapters.
        revision (`str`, *optional*): Branch, tag or commit of the policy's repo.

    Raises:
        ValueError: The dataset has another action width or state width than the policy, or no state.
    """
    model = Nora15ForActionPrediction.from_pretrained(
        source, dtype=torch.float32, quantization_config=quantization_config, revision=revision
    )
    processor = Nora15Processor.from_pretrained(source, revision=revision)
    key = dataset.dataset_key
    action_stats, state_stats = processor.norm_stats, processor.state_stats
    if state_input and processor.state_dim is None:
        if dataset.state_dim == 0:
            raise ValueError(
                f"state_input=True, but the dataset {key!r} was opened without a state: name its state_key."
            )
        model.add_state_input(dataset.state_dim)
        processor.state_dim = dataset.state_dim
        action_stats, state_stats = {}, {}
    if key not in action_stats:
        found = compute_statistics(
            dataset, delta_mask=processor.delta_action_mask, angle_mask=processor.angle_action_mask
        )
        action_stats = {**action_stats, key: found["action"]}
        if processor.state_dim is not None:
            state_stats = {**state_stats, key: found["state"]}
    processor.set_norm_stats(action_stats, state_stats)
    processor.conventions[key] = dataset.conventions
    return model, processor


__all__ = [
    "TINY_FAST_VOCABULARY",
    "TINY_NORMALIZATION_MODE",
    "complete_chunk_indices",
    "load_policy_for",
    "tiny_policy_for",
]
