# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which reward decides what is chosen: how far each spreads over a state's candidates, and what the others would have chosen."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from .pairs import PairSelection
from .rewards import combined_scores

DECISIVE_SHARE = 0.9
"""A reward that chooses more than this share of the pairs by itself, and alone does, decides."""


@dataclass(frozen=True)
class DecisionSums:
    """
    Sums over states, from which [`RewardDecisions`] follow. Sums of parts of a set add up to those of the whole.

    Attributes:
        pairs (`int`), states (`int`), comparisons (`int`): Pairs that were kept, states, and two candidates of one state each.
        rewards (`dict[str, dict[str, float]]`):
            Of each reward `spread`, the standard deviations within states; `ties`, comparisons with equal scores; `alone` and
            `without`, pairs that would be the same with it alone and without it.
        agreement (`dict[str, dict[str, float]]`): Of each two rewards Kendall's `tau`, and the `states` that have one.
    """

    pairs: int
    states: int
    comparisons: int
    rewards: dict[str, dict[str, float]]
    agreement: dict[str, dict[str, float]]

    @classmethod
    def none(cls, names: list[str]) -> "DecisionSums":
        """Those of no state."""
        rewards = {name: dict.fromkeys(("spread", "ties", "alone", "without"), 0) for name in names}
        agreement = {", ".join(two): {"tau": 0, "states": 0} for two in combinations(names, 2)}
        return cls(0, 0, 0, rewards, agreement)

    @classmethod
    def of_batch(
        cls,
        scores: Mapping[str, torch.Tensor],
        weights: Mapping[str, float],
        standardize: bool,
        selection: PairSelection,
        pairs: Callable[[torch.Tensor], PairSelection],
    ) -> "DecisionSums":
        """
        Those of some states.

        Args:
            scores (`Mapping[str, torch.Tensor]`): Of each reward before weighting, `(B, N)`.
            weights (`Mapping[str, float]`), standardize (`bool`): What candidates were ranked by, see [`combined_scores`].
            selection ([`PairSelection`]): What was chosen.
            pairs (`Callable`): The pairs of another reward `(B, N)`, in the same order.
        """

        def same_pairs(names: list[str]) -> int:
            other = pairs(combined_scores(scores, {name: weights[name] for name in names}, standardize))
            same = (other.chosen == selection.chosen) & (other.rejected == selection.rejected) & ~other.is_tie
            return int((same & selection.kept).sum())

        names = list(weights)
        orders = {name: _orders(scores[name]) for name in names}
        rewards = {}
        for name in names:
            others = [each for each in names if each != name]
            rewards[name] = {
                "spread": float(scores[name].double().std(1, correction=0).sum()),
                "ties": int((orders[name] == 0).sum()),
                "alone": same_pairs([name]),
                "without": same_pairs(others) if others else 0,
            }
        agreement = {}
        for one, other in combinations(names, 2):
            tau = kendall_tau(orders[one], orders[other])
            agreement[f"{one}, {other}"] = {"tau": float(np.nansum(tau)), "states": int((~np.isnan(tau)).sum())}
        return cls(int(selection.kept.sum()), len(orders[names[0]]), orders[names[0]].size, rewards, agreement)

    def __add__(self, other: "DecisionSums") -> "DecisionSums":
        def added(one: dict, two: dict) -> dict:
            return {name: {key: value + two[name][key] for key, value in each.items()} for name, each in one.items()}

        return DecisionSums(
            self.pairs + other.pairs,
            self.states + other.states,
            self.comparisons + other.comparisons,
            added(self.rewards, other.rewards),
            added(self.agreement, other.agreement),
        )


@dataclass(frozen=True)
class RewardDecisions:
    """
    What each reward had to do with the pairs of a set.

    Attributes:
        pairs (`int`): That many.
        rewards (`dict[str, dict[str, float]]`):
            Of each reward its `weight`; `spread`, the standard deviation within a state, before weighting, averaged over states;
            `ties`, the share of two candidates with equal scores; `alone` and `without`, the shares of pairs that would be the same with
            this reward alone, and without it.
        kendall_tau (`dict[str, float]`): Agreement of each two rewards on the order of a state's candidates, tau-b averaged over states
            at which both tell candidates apart: 1 in the same order, -1 in the opposite one.
        decided_by (`str`, *optional*): The one reward that chooses more than 90 % of the pairs by itself.
        equal_say (`dict[str, float]`, *optional*): Weights with which all rewards spread alike, that of the first unchanged; where
            one decides.
    """

    pairs: int
    rewards: dict[str, dict[str, float]]
    kendall_tau: dict[str, float]
    decided_by: str | None = None
    equal_say: dict[str, float] | None = None

    @classmethod
    def of(cls, sums: DecisionSums, weights: Mapping[str, float], standardize: bool) -> "RewardDecisions":
        """
        What follows from sums over all states.

        Args:
            sums ([`DecisionSums`]): Of the whole set.
            weights (`Mapping[str, float]`), standardize (`bool`): Of the [`WeightedReward`].
        """
        rewards = {
            name: {
                "weight": weights[name],
                "spread": each["spread"] / max(sums.states, 1),
                "ties": each["ties"] / max(sums.comparisons, 1),
                "alone": each["alone"] / max(sums.pairs, 1),
                "without": each["without"] / max(sums.pairs, 1),
            }
            for name, each in sums.rewards.items()
        }
        tau = {two: each["tau"] / each["states"] for two, each in sums.agreement.items() if each["states"]}
        # Whoever gives a reward the weight 0 does not want it to have a say.
        weighed = {name: each for name, each in rewards.items() if weights[name]}
        decisive = [name for name, each in weighed.items() if each["alone"] > DECISIVE_SHARE and each["spread"]]
        if len(weighed) == 1 or len(decisive) != 1:
            return cls(sums.pairs, rewards, tau)
        # Standardised, all that spread at all spread alike.
        spreads = {name: 1.0 if standardize else each["spread"] for name, each in weighed.items() if each["spread"]}
        first = next(iter(spreads))
        equal = {name: weights[first] * spreads[first] / spread for name, spread in spreads.items()}
        return cls(sums.pairs, rewards, tau, decisive[0], equal)

    def warning(self) -> str | None:
        """What to think about where one reward decides."""
        if self.decided_by is None:
            return None
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in self.equal_say.items())
        silent = ", ".join(repr(name) for name, each in self.rewards.items() if not each["spread"])
        return (
            f"The reward {self.decided_by!r} decides: alone it would choose {self.rewards[self.decided_by]['alone']:.0%} of the "
            f"{self.pairs} pairs as they are. "
        ) + (
            f"{silent} scores the candidates of a state alike, so that no weight gives it a say."
            if silent
            else f"All rewards would have an equal say with the weights {weights}."
        )

    def text(self) -> str:
        """The figures as a table, for a terminal."""
        rows = [("reward", "weight", "spread within states", "ties", "same pairs alone", "same pairs without it")]
        rows += [self.row(name) for name in self.rewards]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        lines += [f"Kendall's tau of {two}: {tau:.2f}" for two, tau in self.kendall_tau.items()]
        return "\n".join(lines)

    def row(self, name: str) -> tuple[str, str, str, str, str, str]:
        """The figures of one reward as text: name, weight, spread, ties, alone, without."""
        each = self.rewards[name]
        without = f"{each['without']:.0%}" if len(self.rewards) > 1 else "-"
        return (
            name, f"{each['weight']:g}", f"{each['spread']:.3g}", f"{each['ties']:.0%}", f"{each['alone']:.0%}", without
        )  # fmt: skip


def _orders(score: torch.Tensor) -> np.ndarray:
    """1, 0 or -1 for each two candidates of a state, `(B, N (N - 1) / 2)`: which of them scores higher."""
    first, second = np.triu_indices(score.shape[1], 1)
    values = score.numpy()
    return np.sign(values[:, first] - values[:, second])


def kendall_tau(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """
    Kendall's tau-b of two rankings, from the order of each two candidates.

    Args:
        one, other (`np.ndarray` of shape `(B, N (N - 1) / 2)`): 1, 0 (equal) or -1.

    Returns:
        `np.ndarray` of shape `(B,)`: NaN where one of them has no order at all.
    """
    ordered = np.sqrt((one != 0).sum(1) * (other != 0).sum(1))
    return np.divide((one * other).sum(1), ordered, out=np.full(len(one), math.nan), where=ordered > 0)


__all__ = ["DECISIVE_SHARE", "DecisionSums", "RewardDecisions", "kendall_tau"]
