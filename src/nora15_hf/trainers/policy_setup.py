# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy that is ready to be trained on a dataset: its statistics, its state input, its quantised backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BitsAndBytesConfig

from ..actions import FastActionTokenizer
from ..actions.normalization import normalize
from ..data.lerobot_dataset import LeRobotDataset
from ..data.lerobot_mixture import LeRobotMixture
from ..data.policy_fit import check_dataset_fits
from ..data.statistics import compute_statistics
from ..evaluation.environment_fit import CAMERA_NAMES
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..nora15.presets import tiny_policy
from ..simulation.environment import camera_name

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


def dataset_members(dataset: LeRobotDataset | LeRobotMixture) -> list[LeRobotDataset]:
    """The members of a mixture, or the dataset alone."""
    return dataset.members if isinstance(dataset, LeRobotMixture) else [dataset]


def tiny_policy_for(
    dataset: LeRobotDataset | LeRobotMixture,
    instructions: Sequence[str],
    *,
    image_size: int = 84,
    state_input: bool = False,
    seed: int = 0,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    [`tiny_policy`] with random weights, and codec and statistics fitted on a dataset.

    Args:
        dataset ([`LeRobotDataset`] or [`LeRobotMixture`]): Gives chunk size, action width, dataset keys and conventions.
        instructions (`list[str]`): Their words become single tokens.
        image_size (`int`, *optional*, defaults to 84), seed (`int`, *optional*, defaults to 0): See [`tiny_policy`].
        state_input (`bool`, *optional*, defaults to `False`): Whether the policy reads the dataset's state.
    """
    members = dataset_members(dataset)
    statistics = {member.dataset_key: compute_statistics(member) for member in members}
    chunks = []
    for member in members:
        actions = normalize(member.all_actions(), statistics[member.dataset_key]["action"], TINY_NORMALIZATION_MODE)
        chunks.append(actions[complete_chunk_indices(member)[:, None] + np.arange(member.chunk_size)])
    return tiny_policy(
        instructions,
        image_size=image_size,
        chunk_size=dataset.chunk_size,
        action_dim=dataset.action_dim,
        action_codec=FastActionTokenizer.fit(np.concatenate(chunks), vocab_size=TINY_FAST_VOCABULARY),
        norm_stats={key: found["action"] for key, found in statistics.items()},
        state_dim=members[0].state_dim if state_input else None,
        state_stats={key: found["state"] for key, found in statistics.items()} if state_input else None,
        normalization_mode=TINY_NORMALIZATION_MODE,
        conventions={member.dataset_key: _conventions(member) for member in members},
        seed=seed,
    )


def load_policy_for(
    source: str | Path,
    dataset: LeRobotDataset | LeRobotMixture,
    *,
    state_input: bool = False,
    quantization_config: BitsAndBytesConfig | None = None,
    revision: str | None = None,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    A checkpoint to be trained on a dataset: float32 weights, and the dataset's statistics in the processor.

    Statistics that the checkpoint already has for a dataset's key are kept, since its weights were trained with them.

    Args:
        source (`str` or `Path`): Folder or Hub id of the policy.
        dataset ([`LeRobotDataset`] or [`LeRobotMixture`]): What it will be trained on.
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
    members = dataset_members(dataset)
    action_stats, state_stats = dict(processor.norm_stats), dict(processor.state_stats)
    if state_input and processor.state_dim is None:
        stateless = [member.dataset_key for member in members if member.state_dim == 0]
        if stateless:
            raise ValueError(f"state_input=True, but {stateless} were opened without a state: name the state_key.")
        model.add_state_input(members[0].state_dim)
        processor.state_dim = members[0].state_dim
        action_stats, state_stats = {}, {}
    for member in members:
        key = member.dataset_key
        processor.conventions[key] = _conventions(member)
        if key in action_stats:
            continue
        found = compute_statistics(
            member, delta_mask=processor.delta_action_mask, angle_mask=processor.angle_action_mask
        )
        action_stats[key] = found["action"]
        if processor.state_dim is not None:
            state_stats[key] = found["state"]
    processor.set_norm_stats(action_stats, state_stats)
    check_dataset_fits(dataset, processor)
    return model, processor


def _conventions(member: LeRobotDataset) -> dict[str, Any]:
    """The dataset's conventions, and which cameras the policy is trained on in which order."""
    return member.conventions | {CAMERA_NAMES: [camera_name(key) for key in member.image_keys]}


__all__ = [
    "TINY_FAST_VOCABULARY",
    "TINY_NORMALIZATION_MODE",
    "complete_chunk_indices",
    "dataset_members",
    "load_policy_for",
    "tiny_policy_for",
]
