# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 view` shows of a preference set, without the page: pairs to choose from, and one pair with its rewards."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from ..nora15 import Nora15Processor
from ..preferences.pairs import PAIRINGS, candidate_numbers
from ..preferences.preference_record import PreferenceRecord, preference_info
from ..preferences.rewards import weighted_scores
from ..simulation.environment_table import find_environment
from ..simulation.hand_projection import HandProjection

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardShare:
    """
    What one reward said about a pair.

    Attributes:
        name (`str`), weight (`float`): The reward.
        scores (`np.ndarray`): float32 `(N,)`, of every candidate, before weighting; higher is better.
        share (`float`): What it adds to the margin; negative where it would rather have had the rejected chunk.
    """

    name: str
    weight: float
    scores: np.ndarray
    share: float


@dataclass(frozen=True)
class Pair:
    """
    A preference pair.

    Attributes:
        row (`int`): Of the dataset.
        images (`list[np.ndarray]`): uint8 `(height, width, 3)`, one per camera.
        instruction (`str`), episode_index (`int`), frame_index (`int`): The state.
        chosen, rejected, demonstrated (`np.ndarray`): float32 `(H, A)`, in the browser's units.
        chosen_number, rejected_number (`int`): Which of the N candidates they are.
        reward (`np.ndarray`): float32 `(N,)`, what the candidates were ranked by.
        margin (`float`): Reward of the chosen minus that of the rejected.
        shares (`list[RewardShare]`): Of every reward; they add up to the margin.
        hand (`np.ndarray`, *optional*): The hand's place `(3,)` in metres, where it is known.
    """

    row: int
    images: list[np.ndarray]
    instruction: str
    episode_index: int
    frame_index: int
    chosen: np.ndarray
    rejected: np.ndarray
    demonstrated: np.ndarray
    chosen_number: int
    rejected_number: int
    reward: np.ndarray
    margin: float
    shares: list[RewardShare]
    hand: np.ndarray | None

    @property
    def decided_by(self) -> RewardShare:
        """The reward that adds most to the margin."""
        return max(self.shares, key=lambda share: share.share)


class PreferenceBrowser:
    """
    A preference set to look at.

    Args:
        rows ([`~datasets.Dataset`]): From [`~nora15_hf.preferences.load_preferences`].
        processor ([`Nora15Processor`], *optional*): Of the policy that sampled the candidates. With it chunks are in physical
            units, and drawn on the picture where the policy's simulator knows how its camera sees the hand; without it they
            are in the policy's normalised units.

    Attributes:
        record ([`PreferenceRecord`]): How the set came about.
        margins (`np.ndarray`): float32, one per row.
        projection ([`HandProjection`], *optional*): How the first camera sees the hand, where that is known.
        action_names (`list[str]`): Of the A dimensions, with their units.

    Raises:
        ValueError: No rows, rows whose origin is not known, or a policy without statistics for their dataset.
    """

    def __init__(self, rows: Dataset, processor: Nora15Processor | None = None):
        info = preference_info(rows)
        if info is None:
            raise ValueError("`rows` come without their record: read them with load_preferences.")
        if len(rows) == 0:
            raise ValueError(
                "The preference set has no pairs. Build it with a smaller min_margin, or from more states."
            )
        self.record: PreferenceRecord = info.record
        self.margins = np.array(rows["margin"], dtype=np.float32)
        self._rows, self._instructions, self._processor = rows, np.array(rows["instruction"]), processor
        key = self.record.settings.dataset_key
        contract = self.record.settings.embodiment or {}
        self.projection = None
        if processor is not None:
            if key not in processor.norm_stats:
                raise ValueError(
                    f"The candidates were normalised for dataset_key {key!r}, but the policy knows "
                    f"{sorted(processor.norm_stats)}. Give the policy that sampled them: {self.record.settings.policy!r}."
                )
            contract = processor.embodiment(key).to_dict()
            self.projection = recorded_projection(processor.conventions.get(key, {}))
        units = contract.get("action_units") if processor is not None else None
        self.action_names = named_dimensions(self.record.settings.action_dim, contract.get("action_names"), units)

    def instructions(self) -> list[str]:
        """All instructions, sorted."""
        return sorted(set(self._instructions.tolist()))

    def find(self, instruction: str | None, smallest: float, largest: float) -> list[int]:
        """Rows with an instruction (all with `None`) and a margin within limits, both included; the largest margin first."""
        matches = (self.margins >= np.float32(smallest)) & (self.margins <= np.float32(largest))
        if instruction is not None:
            matches &= self._instructions == instruction
        rows = np.flatnonzero(matches)
        return rows[np.argsort(-self.margins[rows], kind="stable")].tolist()

    def pair(self, row: int) -> Pair:
        """The pair of a row."""
        found = self._rows[row]
        candidates = np.array([found["candidates"]] * 2, dtype=np.float32)
        sides = np.array([found["chosen"], found["rejected"]], dtype=np.float32)
        chosen, rejected = candidate_numbers(candidates, sides).tolist()
        state = np.array(found["state"], dtype=np.float32)
        chunks = [*sides, np.array(found["actions"], dtype=np.float32)]
        if self._processor is not None:
            key = self.record.settings.dataset_key
            chunks = [self._processor.unnormalize_actions(chunk, key, state) for chunk in chunks]
        weights = self.record.settings.reward_weights
        scores = {name: torch.tensor([values]) for name, values in found["rewards"].items()}
        parts = weighted_scores(scores, weights, self.record.settings.reward.get("standardize", False))
        return Pair(
            row=row,
            images=[np.asarray(image.convert("RGB")) for image in found["images"]],
            instruction=found["instruction"],
            episode_index=found["episode_index"],
            frame_index=found["frame_index"],
            chosen=chunks[0],
            rejected=chunks[1],
            demonstrated=chunks[2],
            chosen_number=chosen,
            rejected_number=rejected,
            reward=np.array(found["reward"], dtype=np.float32),
            margin=found["margin"],
            shares=[
                RewardShare(
                    name, weight, scores[name][0].numpy(), float(parts[name][0, chosen] - parts[name][0, rejected])
                )
                for name, weight in weights.items()
            ],
            hand=state[:3] if self.projection is not None and len(state) >= 3 else None,
        )

    def describe(self) -> str:
        """Where the set comes from, in a sentence or two, and a warning where one reward decides its pairs."""
        settings, decisions = self.record.settings, self.record.decisions
        warning = None if decisions is None else decisions.warning()
        judge = f" (world model: {settings.world_model})" if settings.world_model else ""
        pairing = PAIRINGS.get(settings.pairing, settings.pairing)
        return (
            f"{len(self.margins)} pairs ({pairing}) of {settings.chunks_per_state} candidates per state, sampled from "
            f"{settings.policy}; ranked by {', '.join(f'{weight:g} x {name}' for name, weight in settings.reward_weights.items())}"
            f"{judge}. {warning or ''}".rstrip()
        )


def named_dimensions(count: int, names: Sequence[str] | None, units: Sequence[str] | None) -> list[str]:
    """Titles of `count` action dimensions, with the units that are known."""
    titles = list(names or (f"dimension {dimension}" for dimension in range(count)))
    return titles if units is None else [f"{name} ({unit})" for name, unit in zip(titles, units, strict=True)]


def recorded_projection(conventions: dict) -> HandProjection | None:
    """
    How the first camera of the simulator sees the hand that a policy's data was recorded in; `None` for other data, for
    simulators that do not know it, and, with a warning, where the simulator is not installed.
    """
    if "simulator" not in conventions:
        return None
    entry = find_environment(conventions["simulator"])
    try:
        return entry.describe(entry.settings_in(conventions)).hand_projection
    except (ImportError, OSError) as error:
        logger.warning(
            f"Chunks are drawn beside the pictures, since the simulator cannot be asked for its camera: {error}"
        )
        return None


__all__ = ["Pair", "PreferenceBrowser", "RewardShare", "named_dimensions", "recorded_projection"]
