# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy that is ready to be trained on a dataset: its statistics, its state input, its quantised backbone."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BitsAndBytesConfig

from ..actions import FastActionTokenizer
from ..actions.normalization import normalize
from ..data.lerobot_dataset import LeRobotDataset
from ..data.lerobot_mixture import LeRobotMixture
from ..data.policy_fit import arranged_for, fit_dataset, policy_contract
from ..data.statistics import compute_statistics
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..nora15.presets import tiny_policy

logger = logging.getLogger(__name__)

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
    range_floor: float | None = None,
    seed: int = 0,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    [`tiny_policy`] with random weights, and codec and statistics fitted on a dataset.

    Args:
        dataset ([`LeRobotDataset`] or [`LeRobotMixture`]): Gives chunk size, action width, dataset keys and conventions.
        instructions (`list[str]`): Their words become single tokens.
        image_size (`int`, *optional*, defaults to 84), seed (`int`, *optional*, defaults to 0): See [`tiny_policy`].
        state_input (`bool`, *optional*, defaults to `False`): Whether the policy reads the dataset's state.
        range_floor (`float`, *optional*): See [`~nora15_hf.data.compute_statistics`].

    Raises:
        ValueError: A member without an episode as long as a chunk, or without the state that is asked for.
    """
    members = dataset_members(dataset)
    for member in members:
        longest = member.episodes["length"].max()
        if longest < member.chunk_size:
            raise ValueError(
                f"chunk_size={member.chunk_size} is longer than every episode of dataset {member.dataset_key!r}, of which the "
                f"longest has {longest} frames: no chunk is complete, and there are no chunks to fit the FAST codec on. Choose a "
                f"chunk_size of at most {longest}."
            )
    stateless = [member.dataset_key for member in members if not member.state_dim]
    if state_input and stateless:
        raise ValueError(
            f"state_input=True, but the datasets {stateless} are opened without a state. Name their column with state_key, or leave "
            "state_input out."
        )
    statistics = {member.dataset_key: compute_statistics(member, range_floor=range_floor) for member in members}
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
        conventions={member.dataset_key: member.conventions for member in members},
        embodiments={member.dataset_key: policy_contract(member) for member in members},
        seed=seed,
    )


def load_policy_for(
    source: str | Path,
    dataset: LeRobotDataset | LeRobotMixture,
    *,
    state_input: bool = False,
    range_floor: float | None = None,
    quantization_config: BitsAndBytesConfig | None = None,
    revision: str | None = None,
    strict: bool = False,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    A checkpoint to be trained on a dataset: float32 weights, and the dataset's statistics in the processor.

    Statistics and contract that the checkpoint already has for a dataset's key are kept, since its weights were trained
    with them, and compared with the dataset's.

    Args:
        source (`str` or `Path`): Folder or Hub id of the policy.
        dataset ([`LeRobotDataset`] or [`LeRobotMixture`]): What it will be trained on.
        state_input (`bool`, *optional*, defaults to `False`):
            Give a policy that reads no state a state input of the dataset's width. Statistics of other datasets are then
            dropped, as nothing is known of their states.
        range_floor (`float`, *optional*): Of statistics that the policy lacks, see [`~nora15_hf.data.compute_statistics`].
        quantization_config (`BitsAndBytesConfig`, *optional*): Of the backbone, to be trained through adapters.
        revision (`str`, *optional*): Branch, tag or commit of the policy's repo.
        strict (`bool`, *optional*, defaults to `False`): See [`~nora15_hf.data.check_dataset_fits`].

    Raises:
        ValueError: The dataset has another action width or state width than the policy, no state, or other cameras,
            actions or states than the policy's key of the same name.
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
    contracts = (processor.embodiments.get(member.dataset_key) for member in members)
    known = next((contract for contract in contracts if contract is not None), None)
    for member in members:
        key = member.dataset_key
        processor.conventions.setdefault(key, member.conventions)
        if key not in processor.embodiments:
            _tell_other_cameras(processor, member)
        # In a mixture the dimensions of all members are in one order: where the policy knows a member, in that of its training.
        member = arranged_for(member, processor, like=known)
        if key in action_stats:
            continue
        found = compute_statistics(
            member,
            delta_mask=processor.delta_action_mask,
            angle_mask=processor.angle_action_mask,
            range_floor=range_floor,
        )
        action_stats[key] = found["action"]
        if processor.state_dim is not None:
            state_stats[key] = found["state"]
    processor.set_norm_stats(action_stats, state_stats)
    fit_dataset(dataset, processor, strict=strict, action_tokens=False)
    return model, processor


def _tell_other_cameras(processor: Nora15Processor, member: LeRobotDataset) -> None:
    """Says that a dataset that is new to a policy shows it other cameras, by name, than those it has seen so far."""
    known = (embodiment.cameras for embodiment in processor.embodiments.values())
    seen = list(dict.fromkeys(tuple(cameras) for cameras in known if cameras))
    if seen and set(member.camera_names) not in map(set, seen):
        logger.warning(
            f"The policy was trained on the cameras {' or '.join(str(list(names)) for names in seen)} so far; dataset "
            f"{member.dataset_key!r} shows it {list(member.camera_names)}, in this order. If they are the same views, open it "
            "with image_keys={name: feature}; otherwise choose with image_keys which ones the policy is to see."
        )


__all__ = [
    "TINY_FAST_VOCABULARY",
    "TINY_NORMALIZATION_MODE",
    "complete_chunk_indices",
    "dataset_members",
    "load_policy_for",
    "tiny_policy_for",
]
