# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The confidence interval of a success rate."""

from math import sqrt
from statistics import NormalDist


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate (Wilson 1927), sound also near 0 and 1 and for small `n`.

    Args:
        successes (`int`): between 0 and `n`.
        n (`int`): episodes, at least 1.
        confidence (`float`, defaults to 0.95): between 0 and 1, exclusive.

    Returns:
        `tuple[float, float]`: lower and upper bound in [0, 1].

    Raises:
        ValueError: counts or confidence outside their range.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"`successes` ({successes}) must lie between 0 and `n` ({n}), and `n` must be 1 or more.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is {confidence}; it must lie between 0 and 1, for example 0.95.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At the ends the bound is exactly 0 or 1; rounding would leave it 1e-17 beside.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


__all__ = ["wilson_interval"]
