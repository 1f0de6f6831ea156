# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The facts of a policy's card that its configuration and processor give."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, ProcessorMixin

from ..actions.normalization import ActionStatistics, NormalizationMode
from ..embodiment.embodiment import Embodiment
from .card_info import NOT_STATED, PolicyCardInfo, Stage
from .card_settings import setting_text

EXAMPLE_INSTRUCTION = "pick up the red block"
# Names that conventions have for the meaning of the action dimensions: a dataset's own, and a simulator's.
ACTION_CONVENTIONS = ("action_space", "action")

_RANGES = {
    "q01_q99": "each dimension from its 1 % and 99 % quantiles to [-1, 1]",
    "min_max": "each dimension from its minimum and maximum to [-1, 1]",
    "mean_std": "each dimension to mean 0 and standard deviation 1",
}


def policy_card_info(
    config: PreTrainedConfig,
    processor: ProcessorMixin,
    *,
    repo_id: str,
    num_parameters: int,
    scheduler: str,
    name: str | None = None,
    stage: Stage = NOT_STATED,
    action_space: str | None = None,
    gripper: str | None = None,
    example_instruction: str | None = None,
    **facts: Any,
) -> PolicyCardInfo:
    """
    The card of a policy. What nobody told and no convention states is "not stated".

    Args:
        config ([`Nora15Config`]), processor ([`Nora15Processor`]): of the policy. The meaning of the action dimensions
            comes from the processor's `conventions`, in which a dataset and a simulator keep what they were recorded with,
            that of the gripper's sign from its `embodiments`.
        repo_id (`str`): what a reader passes to `from_pretrained`.
        num_parameters (`int`): of the policy.
        scheduler (`str`): class of the flow scheduler.
        name (`str`, *optional*): title; the last part of `repo_id` by default.
        stage (`str`, *optional*): see [`PolicyCardInfo`].
        action_space (`str`, *optional*), gripper (`str`, *optional*): in place of what the conventions state.
        example_instruction (`str`, *optional*): an instruction of the training data.
        facts: other fields of [`PolicyCardInfo`].

    Raises:
        ValueError: see [`PolicyCardInfo`].
    """
    contracts = {
        key: processor.conventions.get(key, {}) | processor.embodiments.get(key, Embodiment()).to_dict()
        for key in processor.norm_stats
    }
    told = {
        "repo_id": repo_id,
        "name": name or repo_id.rpartition("/")[2],
        "stage": stage,
        "num_parameters": num_parameters,
        "image_size": processor.image_size,
        "chunk_size": config.chunk_size,
        "action_dim": config.action_dim,
        "n_action_steps": config.chunk_size,
        "action_space": action_space or stated(processor.norm_stats, processor.conventions, ACTION_CONVENTIONS),
        "gripper": gripper or stated(processor.norm_stats, contracts, ("gripper",)),
        "normalization": normalization_text(processor.normalization_mode, processor.norm_stats),
        "state_dim": config.state_dim,
        "relative_actions": processor.delta_action_mask is not None,
        "cameras": processor.camera_names(next(iter(processor.norm_stats), None)) or (),
        "statistics_keys": tuple(processor.norm_stats),
        "decoder": f"flow matching, {scheduler}, {config.num_inference_steps} steps",
        "example_instruction": example_instruction or EXAMPLE_INSTRUCTION,
    }
    return PolicyCardInfo(**(told | facts))


def stated(
    dataset_keys: Sequence[str] | Mapping[str, Any],
    conventions: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
) -> str:
    """
    What the conventions of several datasets state: once where all agree, otherwise each under its key.

    Args:
        dataset_keys (`Sequence[str]`): of the policy's statistics.
        conventions (`Mapping[str, Mapping]`): dataset key to conventions; a key may be missing.
        names (`Sequence[str]`): of the convention, the first one found counts.
    """
    values = {}
    for key in dataset_keys:
        found = [conventions[key][name] for name in names if name in conventions.get(key, {})]
        values[key] = setting_text(found[0]) if found else NOT_STATED
    if len(set(values.values())) <= 1:
        return next(iter(values.values()), NOT_STATED)
    return "; ".join(f"{key}: {value}" for key, value in values.items())


def raw_dimensions(statistics: Mapping[str, ActionStatistics]) -> dict[str, list[int]]:
    """Dataset key to the dimensions that are left in physical units."""
    return {key: np.flatnonzero(~value.mask).tolist() for key, value in statistics.items()}


def normalization_text(mode: NormalizationMode, statistics: Mapping[str, ActionStatistics]) -> str:
    """
    Which statistics map which dimensions to which range.

    Args:
        mode (`str`): see [`~nora15_hf.actions.normalization.normalize`].
        statistics (`Mapping[str, ActionStatistics]`): by dataset key.
    """
    raw = raw_dimensions(statistics)
    distinct = {tuple(dimensions) for dimensions in raw.values()}
    if not any(distinct):
        return _RANGES[mode]
    left = distinct.pop() if len(distinct) == 1 else {key: dimensions for key, dimensions in raw.items() if dimensions}
    return f"{_RANGES[mode]}; left in physical units: {json.dumps(left)}"


__all__ = [
    "ACTION_CONVENTIONS",
    "EXAMPLE_INSTRUCTION",
    "normalization_text",
    "policy_card_info",
    "raw_dimensions",
    "stated",
]
