# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether a policy's normalisation and FAST codec can take the values of a dataset."""

import logging
from collections.abc import Sequence

import numpy as np
from transformers import ProcessorMixin

from ..actions.normalization import lost_values, normalize
from ..actions.range_findings import (
    REACH_SAID,
    WAYS_OUT,
    dimension_name,
    find_range_problems,
)
from .lerobot_dataset import LeRobotDataset
from .lerobot_source import LeRobotReader
from .statistics import action_chunks

logger = logging.getLogger(__name__)

# A normalised value beyond this weighs ten thousand times as much as others in a squared error: a few frames are the loss.
REACH_REFUSED = 100


def check_values_fit(
    dataset: LeRobotReader, processor: ProcessorMixin, action_tokens: bool, other_units: Sequence[int] = ()
) -> None:
    """
    Refuse what would stop or spoil training at the step that draws it; warn of what is merely unusual.

    Every action of a map-style dataset is looked at; of a stream, which is not read ahead, the policy's statistics.

    Args:
        dataset: With statistics in the processor.
        processor (`Nora15Processor`): Of the policy.
        action_tokens (`bool`): Whether FAST tokens are made of the actions.
        other_units (`Sequence[int]`, *optional*):
            Dimensions of the action whose ranges differ from the policy's as a whole, which the caller has said. They are not
            searched for outliers.

    Raises:
        ValueError: A value that normalisation would lose, that is far out of its range, or that FAST cannot spell. Dataset
            and dimension are named with what to choose, and of a map-style dataset episode and frame.
    """
    mode = processor.normalization_mode
    if isinstance(dataset, LeRobotDataset):
        check_frames_fit(dataset, processor, action_tokens, other_units)
    else:
        for found in find_range_problems(processor.norm_stats[dataset.dataset_key], mode):
            beyond = found.reach > REACH_REFUSED and not processor.clip_actions
            if found.problem == "sparse" or (found.problem == "outliers" and beyond):
                raise ValueError(f"Dataset {dataset.dataset_key!r}: {found.describe(dataset.action_names)}")
            if found.problem == "outliers" and not processor.clip_actions:
                logger.warning(f"Dataset {dataset.dataset_key!r}: {found.describe(dataset.action_names)}")
    features = [(processor.norm_stats, dataset.action_key, dataset.action_names)]
    if processor.state_dim is not None:
        features.append((processor.state_stats, dataset.state_key, dataset.state_names))
    for stats_by_key, feature, names in features:
        for found in find_range_problems(stats_by_key[dataset.dataset_key], mode):
            # Others are told of the actions above; in the state they are read as 0 or clipped, which the processor says.
            if found.problem == "nearly constant" or (feature == dataset.state_key and found.problem != "constant"):
                logger.warning(f"Dataset {dataset.dataset_key!r}, {feature!r}: {found.describe(names)}")


def check_frames_fit(
    dataset: LeRobotDataset, processor: ProcessorMixin, action_tokens: bool, other_units: Sequence[int] = ()
) -> None:
    """The part of [`check_values_fit`] that looks at every action; arguments as there."""
    other_units = np.isin(np.arange(dataset.action_dim), other_units)
    statistics, mode = processor.norm_stats[dataset.dataset_key], processor.normalization_mode
    reach = np.zeros(dataset.action_dim)
    for first, chunks, inside in action_chunks(dataset, processor.delta_action_mask, processor.angle_action_mask):
        lost = np.argwhere(lost_values(chunks, statistics, mode).numpy())
        if len(lost):
            row, step, dimension = lost[0]
            raise ValueError(
                f"{_place(dataset, first + row, step, dimension)} is {chunks[row, step, dimension]:.6g}, where {mode} of the "
                f"statistics has no range, so the value would be lost. Choose {WAYS_OUT['sparse']}; or compute the "
                "statistics on this data."
            )
        normalized = normalize(chunks, statistics, mode, clip=processor.clip_actions)
        sizes = np.where(statistics.mask & ~other_units, np.abs(normalized), 0)
        reach = np.maximum(reach, sizes.max(axis=(0, 1)))
        far = np.argwhere(sizes > REACH_REFUSED)
        if len(far):
            row, step, dimension = far[0]
            raise ValueError(
                f"{_place(dataset, first + row, step, dimension)} is {chunks[row, step, dimension]:.6g}, "
                f"{sizes[row, step, dimension]:.4g} after normalisation to about [-1, 1]: such frames would dominate the "
                f"loss. Choose {WAYS_OUT['outliers']}; or repair or leave out the episode."
            )
        if action_tokens:
            complete = np.flatnonzero(inside.all(axis=1))
            unknown = np.argwhere(~processor.action_codec.spells(normalized[complete]) & ~other_units)
            if len(unknown):
                row, dimension = complete[unknown[0, 0]], unknown[0, 1]
                step = int(np.abs(normalized[row, :, dimension]).argmax())
                choice = WAYS_OUT["outliers"] if statistics.mask[dimension] else "an action_mask that normalises it"
                raise ValueError(
                    f"{_place(dataset, first + row, step, dimension)} is {chunks[row, step, dimension]:.6g}, "
                    f"{normalized[row, step, dimension]:.4g} in the policy's units, in a chunk that the policy's FAST codec "
                    f"cannot encode. Choose {choice}; or leave out the episode, train without FAST tokens "
                    "(objective='flow'), or fit a codec on this data."
                )
    for dimension in np.flatnonzero(reach > REACH_SAID).tolist():
        logger.warning(
            f"Dataset {dataset.dataset_key!r}: {dimension_name(dimension, dataset.action_names)} of {dataset.action_key!r} "
            f"reaches {reach[dimension]:.3g} after normalisation to about [-1, 1]. If these frames do not show a motion to be learned, "
            f"choose {WAYS_OUT['outliers']}."
        )


def _place(dataset: LeRobotDataset, position: int, step: int, dimension: int) -> str:
    """Dataset, episode, frame and dimension of a step of the chunk at a position."""
    episodes = dataset.episodes
    number = int(np.searchsorted(episodes["to"], position, side="right"))
    frame = min(position + step, episodes["to"][number] - 1) - episodes["from"][number]
    return (
        f"Dataset {dataset.dataset_key!r}, episode {episodes['index'][number]}, frame {frame}: "
        f"{dimension_name(dimension, dataset.action_names)} of {dataset.action_key!r}"
    )


__all__ = ["check_frames_fit", "check_values_fit"]
