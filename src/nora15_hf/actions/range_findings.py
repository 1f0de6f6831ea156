# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Dimensions in which a normalisation loses values, blows them up, or spreads noise over its range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .normalization import ActionStatistics, NormalizationMode, normalization_bounds

RangeProblem = Literal["constant", "nearly constant", "sparse", "outliers"]

# Normalised values beyond this are said: they weigh a hundred times as much as others in a squared error.
REACH_SAID = 10
# A dimension is nearly constant when its values differ by less than some ten thousand steps of float32, or by less than any
# unit resolves.
_RELATIVE_RANGE, _ABSOLUTE_RANGE = 1e-5, 1e-6

_MASK = "action_mask (0 leaves the dimension in physical units)"
_FLOOR = "a floor on its range (range_floor of compute_statistics, --range-floor of `nora15 stats` and `nora15 sft`)"
WAYS_OUT = {
    "sparse": f"normalization_mode='min_max', {_MASK} or {_FLOOR}",
    "outliers": f"normalization_mode='min_max', clip_actions=True, {_MASK} or {_FLOOR}",
    "nearly constant": f"{_MASK} or {_FLOOR}",
}


@dataclass(frozen=True)
class RangeFinding:
    """
    What is wrong with the range of a dimension.

    Args:
        dimension (`int`): Its number.
        problem (`str`):
            `"constant"`: one value, which is normalised to 0 and comes back. `"sparse"`: the mode sees no range, but there
            are other values, which [`~nora15_hf.actions.normalization.normalize`] refuses. `"outliers"`: some values are far
            outside [-1, 1] after normalisation. `"nearly constant"`: what is spread over [-1, 1] is noise.
        reach (`float`): Largest normalised value, by size; infinite for `"sparse"`.
        text (`str`): The numbers behind it.
    """

    dimension: int
    problem: RangeProblem
    reach: float
    text: str

    def describe(self, names: Sequence[str] | None) -> str:
        """A sentence about the dimension, by its name where it has one, with what to choose."""
        choice = f" Choose {WAYS_OUT[self.problem]}." if self.problem in WAYS_OUT else ""
        problem = "has outliers" if self.problem == "outliers" else f"is {self.problem}"
        return f"{dimension_name(self.dimension, names)} {problem}: {self.text}.{choice}"


def dimension_name(dimension: int, names: Sequence[str] | None) -> str:
    """`"dimension 3 ('gripper')"`, or without the name where there is none."""
    return f"dimension {dimension}" if names is None else f"dimension {dimension} ({names[dimension]!r})"


def find_range_problems(statistics: ActionStatistics, mode: NormalizationMode = "q01_q99") -> list[RangeFinding]:
    """
    The normalised dimensions whose range in `mode` is a problem for the data that the statistics were made of.

    Args:
        statistics ([`ActionStatistics`]): Without `min` and `max` only `"constant"` can be told.
        mode (`str`, *optional*, defaults to `"q01_q99"`): See [`~nora15_hf.actions.normalization.normalize`].
    """
    lower, upper = normalization_bounds(statistics, mode)
    center, half = (lower + upper) / 2, (upper - lower) / 2
    low, high = statistics.min, statistics.max
    if low is None or high is None:
        low, high = center - half, center + half
    low, high = low.astype(np.float64), high.astype(np.float64)
    findings = []
    for dimension in np.flatnonzero(statistics.mask).tolist():
        first, last = low[dimension], high[dimension]
        width = 2 * half[dimension]
        farthest = max(abs(first - center[dimension]), abs(last - center[dimension]))
        reach = farthest / half[dimension] if width > 0 else np.inf
        if first == last:
            found = ("constant", f"always {first:.6g}")
        elif width == 0:
            found = (
                "sparse",
                f"{mode} covers only {center[dimension]:.6g}, but values range from {first:.6g} to {last:.6g}",
            )
        elif last - first < max(_ABSOLUTE_RANGE, _RELATIVE_RANGE * max(abs(first), abs(last))):
            found = ("nearly constant", f"values range from {first:.9g} to {last:.9g}, which is stretched to [-1, 1]")
        elif reach > REACH_SAID:
            found = (
                "outliers",
                f"values range from {first:.6g} to {last:.6g} and the range of {mode} is {width:.3g}, so they reach "
                f"{reach:.3g} times the normalised range",
            )
        else:
            continue
        findings.append(RangeFinding(dimension, found[0], reach, found[1]))
    return findings


__all__ = ["REACH_SAID", "WAYS_OUT", "RangeFinding", "RangeProblem", "dimension_name", "find_range_problems"]
