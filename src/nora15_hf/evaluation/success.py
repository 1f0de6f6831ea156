# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Success rates with their uncertainty, and whether two policies differ on the same episodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Protocol

from ..cards.wilson_interval import wilson_interval


class TaskOutcome(Protocol):
    """What is counted here: an [`EpisodeResult`], or anything else with a task, a seed and a success."""

    task: str
    seed: int
    success: bool


@dataclass(frozen=True)
class SuccessCount:
    """Successes out of `n` episodes.

    Attributes:
        successes, n (`int`): counts, `n` at least 1.
    """

    successes: int
    n: int

    @property
    def rate(self) -> float:
        """Fraction in [0, 1]."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the rate."""
        return wilson_interval(self.successes, self.n)

    def to_dict(self) -> dict:
        """Plain JSON values: successes, n, rate, interval."""
        return {"successes": self.successes, "n": self.n, "rate": self.rate, "interval": list(self.interval)}


@dataclass(frozen=True)
class SuccessTable:
    """Successes per task and in total.

    Attributes:
        tasks (`dict[str, SuccessCount]`): per task, in the order of first appearance.
    """

    tasks: dict[str, SuccessCount]

    @classmethod
    def from_results(cls, results: Sequence[TaskOutcome]) -> "SuccessTable":
        """Count results of [`rollout`].

        Raises:
            ValueError: no results.
        """
        if not results:
            raise ValueError("`results` is empty: there is nothing to count.")
        outcomes: dict[str, list[bool]] = {}
        for result in results:
            outcomes.setdefault(result.task, []).append(result.success)
        return cls({task: SuccessCount(sum(success), len(success)) for task, success in outcomes.items()})

    @property
    def total(self) -> SuccessCount:
        """All tasks together."""
        counts = self.tasks.values()
        return SuccessCount(sum(count.successes for count in counts), sum(count.n for count in counts))

    def to_dict(self) -> dict:
        """Plain JSON values: `{"tasks": {task: count}, "total": count}`."""
        return {
            "tasks": {task: count.to_dict() for task, count in self.tasks.items()},
            "total": self.total.to_dict(),
        }

    def to_markdown(self) -> str:
        """A table with one row per task and one for the total, which can be read in a terminal, too."""
        rows = [("task", "success", "rate", "95 % interval")]
        for task, count in [*self.tasks.items(), ("**total**", self.total)]:
            low, high = count.interval
            rows.append((task, f"{count.successes}/{count.n}", f"{count.rate:.1%}", f"{low:.1%} to {high:.1%}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, tuple("-" * width for width in widths))
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in padded)


@dataclass(frozen=True)
class PairedComparison:
    """Two policies on the same episodes.

    Attributes:
        both, only_first, only_second, neither (`int`): episodes by who succeeded.
        p_value (`float`): McNemar's exact two-sided test of "they succeed equally often".
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float

    @property
    def difference(self) -> float:
        """Success rate of the second minus that of the first."""
        return (self.only_second - self.only_first) / (self.both + self.only_first + self.only_second + self.neither)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `difference` for paired rates (Newcombe 1998, method 10: the Wilson intervals of both rates, correlated)."""
        n = self.both + self.only_first + self.only_second + self.neither
        first, second = self.both + self.only_first, self.both + self.only_second
        (low_1, high_1), (low_2, high_2) = wilson_interval(first, n), wilson_interval(second, n)
        covariance = self.both * self.neither - self.only_first * self.only_second
        if covariance > 0:
            covariance = max(0.0, covariance - n / 2)
        margins = first * (n - first) * second * (n - second)
        correlation = covariance / sqrt(margins) if margins else 0.0

        def distance(one: float, other: float) -> float:
            return sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

        below = distance(second / n - low_2, high_1 - first / n)
        above = distance(high_2 - second / n, first / n - low_1)
        return max(-1.0, self.difference - below), min(1.0, self.difference + above)

    def to_dict(self) -> dict:
        """Plain JSON values: the four counts, difference, interval, p_value."""
        return {
            "both": self.both,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "neither": self.neither,
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
        }


def compare_paired(first: Sequence[TaskOutcome], second: Sequence[TaskOutcome]) -> PairedComparison:
    """Compare two policies episode by episode.

    Args:
        first, second (`Sequence`): results of the same episodes (task and seed), in any order.

    Raises:
        ValueError: an episode is in one list only, or twice in a list; or the lists are empty.
    """
    by_episode = []
    for name, results in (("first", first), ("second", second)):
        outcomes = {(result.task, result.seed): result.success for result in results}
        if len(outcomes) != len(results):
            raise ValueError(f"`{name}` holds an episode (task, seed) more than once; pairs need each of them once.")
        by_episode.append(outcomes)
    one, two = by_episode
    unpaired = sorted(one.keys() ^ two.keys())
    if unpaired or not one:
        raise ValueError(
            "A paired comparison needs the same episodes in both lists, and at least one; "
            f"{len(unpaired)} are only in one of them, for example {unpaired[:3]}."
        )
    counts = [sum((one[key], two[key]) == outcome for key in one) for outcome in _OUTCOMES]
    return PairedComparison(*counts, p_value=_mcnemar_exact(counts[1], counts[2]))


# both, only the first, only the second, neither
_OUTCOMES = ((True, True), (True, False), (False, True), (False, False))


def _mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided binomial test of the discordant pairs against 1/2 (McNemar 1947, exact form)."""
    discordant = only_first + only_second
    tail = sum(comb(discordant, k) for k in range(min(only_first, only_second) + 1)) / 2**discordant
    return min(1.0, 2 * tail)


__all__ = ["PairedComparison", "SuccessCount", "SuccessTable", "compare_paired"]
