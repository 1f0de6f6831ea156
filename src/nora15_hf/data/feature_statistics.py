# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics that LeRobot v3.0 stores per feature: min, max, mean, std, count and the quantiles q01 ... q99."""

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def vector_statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of a numeric feature over all axes but the last one, as LeRobot makes them.

    Args:
        values (`np.ndarray`): `(F, ..., W)`.

    Returns:
        `dict[str, np.ndarray]`: float64 `(W,)`; `count` int64 `(1,)`, the frames F.
    """
    count = len(values)
    values = values.astype(np.float64).reshape(-1, values.shape[-1])
    statistics = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([count]),
    }
    return statistics | dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))


def channel_histogram(frames: np.ndarray) -> np.ndarray:
    """How often each colour value occurs: int64 `(3, 256)` for uint8 frames `(F, height, width, 3)`. Sums over frames."""
    return np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_statistics(histogram: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Exact statistics of all pixels from their histogram, so that frames need not be kept.

    Args:
        histogram (`np.ndarray`): int64 `(3, 256)` of [`channel_histogram`].
        count (`int`): Frames it was made of.

    Returns:
        `dict[str, np.ndarray]`: float64 `(3, 1, 1)`, colours scaled to [0, 1]; `count` int64 `(1,)`.
    """
    levels = np.arange(256) / 255
    pixels = histogram[0].sum()
    cumulated = np.cumsum(histogram, axis=1)
    mean = histogram @ levels / pixels
    deviations = (levels - mean[:, None]) ** 2
    statistics = {
        "min": levels[np.argmax(cumulated > 0, axis=1)],
        "max": levels[np.argmax(cumulated == pixels, axis=1)],
        "mean": mean,
        "std": np.sqrt((histogram * deviations).sum(axis=1) / pixels),
    }
    for name, quantile in QUANTILES.items():
        # Linear interpolation between the two order statistics around the quantile, as `np.quantile` does.
        position = quantile * (pixels - 1)
        below, above = (
            levels[np.argmax(cumulated > order, axis=1)] for order in (np.floor(position), np.ceil(position))
        )
        statistics[name] = below + (above - below) * (position % 1)
    shaped = {name: value.reshape(3, 1, 1) for name, value in statistics.items()}
    return shaped | {"count": np.array([count])}


__all__ = ["channel_histogram", "image_statistics", "vector_statistics"]
