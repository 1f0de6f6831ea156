# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether float32, in which policies compute, can tell the values of a dataset apart."""

import numpy as np

# Rounding errors below this do not matter in any unit that robots are recorded in. Resting joints of a simulator move less.
_HARMLESS = 1e-4
# Share of the usual range that a rounding error may take.
_SHARE_OF_RANGE = 0.01


def check_held(values: np.ndarray, rounded: np.ndarray, what: str) -> None:
    """
    Refuse values whose differences are lost when they are rounded to float32.

    Args:
        values (`np.ndarray`): `(N, W)`, as stored.
        rounded (`np.ndarray`): float32 `(N, W)`, the same.
        what (`str`): Where they come from, for the message.

    Raises:
        ValueError: In some dimension the rounding error is more than 1 % of the range from the 1 % to the 99 % quantile.
    """
    if np.can_cast(values.dtype, np.float32):
        return
    # In the stored dtype and relative to the smallest value: float64 cannot tell large integers apart either.
    back = rounded.astype(values.dtype)
    # The larger first, since unsigned integers know no negative difference.
    errors = (np.maximum(values, back) - np.minimum(values, back)).max(axis=0)
    for dimension in np.flatnonzero(errors > _HARMLESS).tolist():
        smallest = values[:, dimension].min()
        above = values[:, dimension] - smallest
        width = np.subtract(*np.quantile(above, (0.99, 0.01)))
        if errors[dimension] > _SHARE_OF_RANGE * width and above.any():
            raise ValueError(
                f"{what}, dimension {dimension}, holds values from {smallest:.15g} to {values[:, dimension].max():.15g} in a "
                f"usual range (1 % to 99 % quantile) of {width:.3g}. Rounded to float32, in which policies compute, they are "
                f"off by up to {errors[dimension]:.3g}, so their differences are lost. Record the feature relative to "
                "an offset, such as its zero position, or leave it out."
            )


__all__ = ["check_held"]
