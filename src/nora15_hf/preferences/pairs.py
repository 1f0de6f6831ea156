# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which candidates of a state become pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..actions.keyed_noise import RANDOM_PAIRS, keyed_rng

PAIRINGS = {
    "best_worst": "best against worst of the candidates",
    "best_random": "best against a random other one of the candidates",
    "all": "every two candidates",
}
"""Names of the ways to make pairs, and what they mean."""


@dataclass(frozen=True)
class PairSelection:
    """
    The pairs that were looked at, P of them.

    Attributes:
        state (`np.ndarray`): int64 `(P,)`, row of the batch; ascending.
        chosen, rejected (`np.ndarray`): int64 `(P,)`, candidate numbers.
        margin (`np.ndarray`): float32 `(P,)`, reward of chosen minus that of rejected.
        is_tie (`np.ndarray`): bool `(P,)`, equal rewards or equal chunks.
        is_close (`np.ndarray`): bool `(P,)`, no tie, but a margin below the minimum.
    """

    state: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    margin: np.ndarray
    is_tie: np.ndarray
    is_close: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """bool `(P,)`: neither a tie nor too close."""
        return ~(self.is_tie | self.is_close)


def select_pairs(
    reward: np.ndarray,
    candidates: np.ndarray,
    *,
    pairing: str = "best_worst",
    min_margin: float = 0.0,
    num_negatives: int = 0,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> PairSelection:
    """
    Pairs the candidates of each state.

    Args:
        reward (`np.ndarray`): `(B, N)`, higher is better.
        candidates (`np.ndarray`): `(B, N, H, A)`.
        pairing (`str`, *optional*, defaults to `"best_worst"`):
            `"best_worst"`; `"best_random"`, the best and a random other one; `"all"`, every two candidates.
        min_margin (`float`, *optional*, defaults to 0.0): smallest difference of rewards that makes a pair.
        num_negatives (`int`, *optional*, defaults to 0): the last candidates of each state that can only be rejected.
        seed (`int`, *optional*, defaults to 0): of the random choice.
        indices (`Sequence[int]`, *optional*): `Sample["index"]` of each state, which the random choice depends on;
            needed for `"best_random"`.

    Returns:
        [`PairSelection`]: one pair per state, or all of them, those that do not count included.
    """
    check_pairing(pairing, min_margin)
    num_states, num_candidates = reward.shape
    num_eligible = num_candidates - num_negatives
    if pairing == "all":
        first, second = np.triu_indices(num_candidates, 1)
        # Negatives come last: a pair whose first is a negative has two of them.
        pair = first < num_eligible
        first, second = (np.tile(side[pair], num_states) for side in (first, second))
        state = np.repeat(np.arange(num_states), len(first) // num_states)
        is_first_better = (reward[state, first] >= reward[state, second]) | (second >= num_eligible)
        chosen, rejected = np.where(is_first_better, [first, second], [second, first])
    else:
        state = np.arange(num_states)
        chosen = reward[:, :num_eligible].argmax(1)
        if pairing == "best_worst":
            rejected = reward.argmin(1)
        else:
            offset = [keyed_rng((seed, index, RANDOM_PAIRS)).integers(1, num_candidates) for index in indices]
            rejected = (chosen + np.array(offset, dtype=np.int64)) % num_candidates
    margin = reward[state, chosen] - reward[state, rejected]
    is_tie = (margin == 0) | (candidates[state, chosen] == candidates[state, rejected]).all((1, 2))
    # A negative may turn out better than what it was to lose against: that pair is none.
    return PairSelection(state, chosen, rejected, margin, is_tie, ~is_tie & ((margin < min_margin) | (margin < 0)))


def check_pairing(pairing: str, min_margin: float) -> None:
    """
    Raises:
        ValueError: An unknown way to pair, or a margin that is negative or not a number.
    """
    if pairing not in PAIRINGS:
        raise ValueError(f'pairing="{pairing}" must be one of {", ".join(PAIRINGS)}.')
    if not min_margin >= 0:
        raise ValueError(f"min_margin={min_margin} must not be negative.")


def candidate_numbers(candidates: np.ndarray, chunks: np.ndarray) -> np.ndarray:
    """Which of the candidates `(B, N, H, A)` each of the chunks `(B, H, A)` is: int64 `(B,)`."""
    return (candidates == chunks[:, None]).all((2, 3)).argmax(1)


__all__ = ["PAIRINGS", "PairSelection", "candidate_numbers", "select_pairs"]
