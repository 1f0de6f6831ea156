# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Reward-weighted supervised training on the candidates of a preference set: better candidates get larger weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import ProcessorMixin

from ...nora15 import Nora15Config
from ...preferences.preference_dataset import check_preferences
from ..preference_prompts import prompt_inputs

CHUNK_WEIGHTS = "chunk_weights"
_COLUMNS = ("candidates", "reward", "action_mask")


@dataclass(frozen=True)
class RewardWeighting:
    """
    Weights of candidates by advantage-weighted regression (arXiv 1910.00177): `exp(advantage / temperature)`.

    The advantage of a candidate is its reward minus the mean over the candidates of its state, in units of the root mean
    square of all advantages of the set, so that one temperature suits rewards of any scale. The weights of the whole set
    have the mean 1, so that one learning rate suits training with and without them.

    Args:
        temperature (`float`, *optional*, defaults to 1.0): A lower one gives more of the weight to the best candidates.
        max_weight (`float`, *optional*, defaults to 20.0): Larger weights are clipped to it, before the mean is brought to 1.

    Raises:
        ValueError: A temperature that is not positive, or a largest weight that is not greater than 1.
    """

    temperature: float = 1.0
    max_weight: float = 20.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} of reward_weighting must be greater than 0.")
        if not self.max_weight > 1:
            raise ValueError(
                f"max_weight={self.max_weight} of reward_weighting must be greater than 1, the weight of an average candidate."
            )

    def weights(self, rewards: np.ndarray) -> np.ndarray:
        """
        float32 `(B, N)`: the weight of each candidate; exactly 1 where all rewards of each state are the same.

        Args:
            rewards (`np.ndarray`): `(B, N)`, higher is better, of the whole set.
        """
        # In float64 the mean of equal float32 numbers is that number, so that their advantages are 0.
        rewards = rewards.astype(np.float64)
        advantages = rewards - rewards.mean(1, keepdims=True)
        scale = np.sqrt(np.square(advantages).mean())
        if scale > 0:
            advantages /= scale
        exponents = np.minimum(advantages / self.temperature, np.log(self.max_weight))
        # Brought to a mean of 1 below, so that a common factor does not matter, but without it they may overflow.
        weights = np.exp(exponents - exponents.max())
        return (weights / weights.mean()).astype(np.float32)


def weighted_states(
    rows: Dataset, weighting: RewardWeighting, config: Nora15Config, processor: ProcessorMixin, *, name: str
) -> Dataset:
    """
    The states of a preference set, with the weights of their candidates in a column `chunk_weights`.

    Args:
        rows ([`~datasets.Dataset`]): Preference rows. Several pairs of a state, which hold the same candidates, become one.
        weighting ([`RewardWeighting`]): How.
        config ([`Nora15Config`]), processor ([`Nora15Processor`]): Of the policy.
        name (`str`): How errors call the rows.

    Raises:
        TypeError: Not a [`~datasets.Dataset`].
        ValueError: See [`check_preferences`]; rows without candidates or rewards, or with one that is not finite.
    """
    check_preferences(rows, config, processor, name=name)
    missing = [column for column in _COLUMNS if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {missing}, which reward_weighting needs. Build it with build_preferences."
        )
    numbers = rows.select_columns(["candidates", "reward"]).with_format("numpy")[:]
    candidates, rewards = (np.stack(list(numbers[column])) for column in ("candidates", "reward"))
    for column, values in (("candidates", candidates), ("reward", rewards)):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))[0])
            raise ValueError(f"Row {row} of {name}: {column} holds a number that is not finite. Drop the row.")
    _, first = np.unique(candidates.reshape(len(candidates), -1), axis=0, return_index=True)
    first = np.sort(first)
    return rows.select(first).add_column(CHUNK_WEIGHTS, list(weighting.weights(rewards[first])))


class CandidateCollator:
    """
    Makes a batch of what [`weighted_states`] returns.

    Args:
        processor ([`Nora15Processor`]): Makes the prompts.

    Returns:
        (of a call) what the processor returns for the prompts, with `actions` (float32 `(B, N, H, A)`, the candidates,
        normalised), `action_mask` (bool `(B, H)`) and `chunk_weights` (float32 `(B, N)`).
    """

    def __init__(self, processor: ProcessorMixin):
        self.processor = processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        columns = {"actions": "candidates", CHUNK_WEIGHTS: CHUNK_WEIGHTS}
        return (
            prompt_inputs(rows, self.processor)
            | {
                name: torch.from_numpy(np.array([row[column] for row in rows], dtype=np.float32))
                for name, column in columns.items()
            }
            | {"action_mask": torch.tensor([row["action_mask"] for row in rows])}
        )


__all__ = ["CHUNK_WEIGHTS", "CandidateCollator", "RewardWeighting", "weighted_states"]
