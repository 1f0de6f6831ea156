# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Exact statistics, quantiles included, of more rows than fit in memory."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

_BINS = 1 << 16


def exact_statistics(
    blocks: Callable[[], Iterable[np.ndarray]], quantiles: Sequence[float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Statistics per column of rows that come in blocks; they depend neither on the order nor on the size of the blocks.

    Quantiles are those of `np.quantile` (linear interpolation between order statistics) on float32 values, not estimates:
    the order statistics are found digit by digit in base 65,536, one digit per pass. Besides a block, 0.5 MB per column
    and pass is held.

    Args:
        blocks (callable): Gives the same blocks `(rows, A)` each time it is called, which is twice.
        quantiles (`Sequence[float]`): Between 0 and 1.

    Returns:
        `min`, `max`, `mean`, `std` and `count` as float64 `(A,)` arrays and an `int`, and the quantiles `(Q, A)` as float64.

    Raises:
        ValueError: No rows, or NaN or infinity (the first row is named).
    """
    moments = None
    first_row = 0
    for block in blocks():
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if bad.size:
            raise ValueError(
                f"at least {bad.size} row(s) hold NaN or infinity, the first is row {first_row + bad[0]}: "
                f"{block[bad[0]].tolist()}. Fix or drop these rows before computing statistics."
            )
        first_row += len(block)
        if not len(block):
            continue
        if moments is None:
            moments = _Moments(block.shape[1])
            upper = np.zeros((block.shape[1], _BINS), dtype=np.int64)
        moments.add(block)
        for column, keys in enumerate(_sortable(block)):
            upper[column] += np.bincount(keys >> 16, minlength=_BINS)
    if moments is None:
        raise ValueError("there are no rows to compute statistics from.")

    positions = np.asarray(quantiles) * (moments.count - 1)
    ranks = np.unique(np.concatenate([np.floor(positions), np.ceil(positions)]).astype(np.int64))
    values = _order_statistics(blocks, upper, ranks)
    below, above = (
        values[np.searchsorted(ranks, rounded(positions).astype(np.int64))] for rounded in (np.floor, np.ceil)
    )
    found = below + (above - below) * (positions % 1)[:, None]
    return moments.result(), found


class _Moments:
    """Running minimum, maximum, mean and standard deviation."""

    def __init__(self, width: int):
        self.count = 0
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self.mean, self.squares = np.zeros(width), np.zeros(width)

    def add(self, block: np.ndarray) -> None:
        values = block.astype(np.float64)
        self.low, self.high = np.minimum(self.low, values.min(axis=0)), np.maximum(self.high, values.max(axis=0))
        mean = values.mean(axis=0)
        step = mean - self.mean
        total = self.count + len(values)
        # Chan, Golub, LeVeque: merging keeps the digits that sums of squares would lose.
        self.squares += ((values - mean) ** 2).sum(axis=0) + step**2 * self.count * len(values) / total
        self.mean += step * len(values) / total
        self.count = total

    def result(self) -> dict[str, np.ndarray | int]:
        # Summation leaves a mean off by an ulp, and with it a std above 0, in columns that are in truth constant.
        constant = self.low == self.high
        return {
            "min": self.low,
            "max": self.high,
            "mean": np.where(constant, self.low, self.mean),
            "std": np.where(constant, 0, np.sqrt(self.squares / self.count)),
            "count": self.count,
        }


def _sortable(block: np.ndarray) -> np.ndarray:
    """Columns as uint32 `(A, rows)` in the order of their float32 values."""
    # Adding zero turns -0.0 into 0.0, which compares equal.
    bits = (np.ascontiguousarray(block.T, dtype=np.float32) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _from_sortable(keys: np.ndarray) -> np.ndarray:
    keys = keys.astype(np.uint32)
    return np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys).view(np.float32)


def _order_statistics(blocks, upper: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The values `(R, A)` at some ranks (0 = smallest), given how often each upper half of a key occurs."""
    cumulated = np.cumsum(upper, axis=1)
    bins = np.stack([np.searchsorted(row, ranks, side="right") for row in cumulated])
    lower = [{number: np.zeros(_BINS, dtype=np.int64) for number in set(row.tolist())} for row in bins]
    for block in blocks():
        for keys, counts in zip(_sortable(block), lower, strict=True):
            for number, count in counts.items():
                count += np.bincount(keys[keys >> 16 == number] & (_BINS - 1), minlength=_BINS)
    found = np.empty((len(ranks), len(upper)), dtype=np.uint32)
    for column, numbers in enumerate(bins.tolist()):
        for row, (rank, number) in enumerate(zip(ranks.tolist(), numbers, strict=True)):
            rank_in_bin = rank - (cumulated[column, number] - upper[column, number])
            digit = np.searchsorted(np.cumsum(lower[column][number]), rank_in_bin, side="right")
            found[row, column] = number << 16 | int(digit)
    return _from_sortable(found).astype(np.float64)


__all__ = ["exact_statistics"]
