# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How two embodiments agree, item by item."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from ..actions.normalization import ActionStatistics, NormalizationMode, normalization_bounds
from .embodiment import Camera, Embodiment

# What is said per dimension, and the item that names the dimensions.
_NAMES_OF = {"action_units": "action_names", "delta_actions": "action_names", "state_units": "state_names"}
# Rates that are written down as 14.3 and 14.286 mean the same.
RATE_TOLERANCE = 0.01
# Two samples of one dataset, or its training and validation part, differ by a few per cent of the range.
RANGE_TOLERANCE = 0.1


class Agreement(StrEnum):
    """How an item of two embodiments agrees."""

    EQUAL = "equal"
    REORDERED = "reordered"
    """The same names in another order."""
    MORE = "more"
    """Cameras only: the second side has more of them."""
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """One side does not say."""


@dataclass(frozen=True)
class Item:
    """
    An item of two embodiments.

    Attributes:
        name (`str`): Of the attribute of [`Embodiment`], or `"camera_roles"`, `"picture_shapes"`.
        agreement ([`Agreement`]): How the two agree.
        first, second: What the two say; `None` is "not known".
    """

    name: str
    agreement: Agreement
    first: Any
    second: Any


def compare(first: Embodiment, second: Embodiment) -> list[Item]:
    """
    Every item that at least one of two embodiments knows.

    Args:
        first ([`Embodiment`]): What is asked for: that of a policy, of the first member of a mixture.
        second ([`Embodiment`]): What is offered: that of a dataset, of a simulator.

    Returns:
        `list[Item]` in the order of the attributes of [`Embodiment`].
    """
    items = []
    for name, agree in _AGREEMENTS.items():
        ours, theirs = _value(first, second, name), _value(second, first, name)
        if ours is None and theirs is None:
            continue
        agreement = Agreement.UNKNOWN if ours is None or theirs is None else agree(ours, theirs)
        items.append(Item(name, agreement, ours, theirs))
    return items


def differing_ranges(
    first: ActionStatistics, second: ActionStatistics, mode: NormalizationMode
) -> tuple[np.ndarray, np.ndarray]:
    """
    How far two statistics are apart that should describe the same numbers.

    Args:
        first, second ([`ActionStatistics`]): A dimensions each.
        mode (`str`): Which bounds are compared, see [`~nora15_hf.actions.normalization.normalize`].

    Returns:
        share float64 `(A,)`, the larger distance of the two bounds as a share of the wider range, and int64, the dimensions
        in which it is larger than the tolerance of 10 %.
    """
    (low, high), (other_low, other_high) = normalization_bounds(first, mode), normalization_bounds(second, mode)
    widest = np.maximum(high - low, other_high - other_low)
    distance = np.maximum(abs(low - other_low), abs(high - other_high))
    # Constant on both sides: equal or, if not, as far apart as can be.
    share = np.divide(distance, widest, out=np.where(distance > 1e-6 * abs(low), 1.0, 0.0), where=widest > 0)
    return share, np.flatnonzero(share > RANGE_TOLERANCE)


def _value(embodiment: Embodiment, other: Embodiment, name: str) -> Any:
    cameras = embodiment.cameras
    if name == "cameras":
        return None if cameras is None else tuple(cameras)
    if name in ("camera_roles", "picture_shapes"):
        # Only of cameras that both sides have and, unless one side tells nothing, describe: others are no contradiction.
        part = _role if name == "camera_roles" else _shape
        mine, theirs = _described(embodiment, part), _described(other, part)
        return {camera: mine[camera] for camera in mine if camera in (theirs or other.cameras or ())} or None
    value = getattr(embodiment, name)
    if name in _NAMES_OF and value is not None:
        names, others = getattr(embodiment, _NAMES_OF[name]), getattr(other, _NAMES_OF[name])
        if names and others and sorted(names) == sorted(others):
            # By name, so that another order of the dimensions is told once, as that.
            return dict(zip(names, value, strict=True))
    return value


def _described(embodiment: Embodiment, part: Callable[[Camera], Any]) -> dict[str, Any]:
    """What the cameras of an embodiment tell, of those that do."""
    told = {name: part(camera) for name, camera in (embodiment.cameras or {}).items()}
    return {name: value for name, value in told.items() if value is not None}


def _role(camera: Camera) -> str | None:
    return camera.role


def _shape(camera: Camera) -> float | None:
    """Width by height: pictures of one shape look alike after they were resized to a square."""
    return None if camera.height is None or camera.width is None else camera.width / camera.height


def _same(first: Any, second: Any) -> Agreement:
    return Agreement.EQUAL if first == second else Agreement.DIFFERENT


def _same_names(first: Sequence[str], second: Sequence[str]) -> Agreement:
    if tuple(first) == tuple(second):
        return Agreement.EQUAL
    return Agreement.REORDERED if sorted(first) == sorted(second) else Agreement.DIFFERENT


def _same_cameras(first: Sequence[str], second: Sequence[str]) -> Agreement:
    if tuple(first) == tuple(second):
        return Agreement.EQUAL
    if set(first) < set(second):
        return Agreement.MORE
    return Agreement.REORDERED if set(first) == set(second) else Agreement.DIFFERENT


def _same_rate(first: float, second: float) -> Agreement:
    return Agreement.EQUAL if abs(first - second) <= RATE_TOLERANCE * max(first, second) else Agreement.DIFFERENT


def _same_shapes(first: dict[str, float], second: dict[str, float]) -> Agreement:
    close = all(abs(first[camera] / second[camera] - 1) <= RATE_TOLERANCE for camera in first)
    return Agreement.EQUAL if close else Agreement.DIFFERENT


_AGREEMENTS = {
    "cameras": _same_cameras,
    "camera_roles": _same,
    "picture_shapes": _same_shapes,
    "action_dim": _same,
    "action_names": _same_names,
    "action_units": _same,
    "delta_actions": _same,
    "gripper": _same,
    "state_dim": _same,
    "state_names": _same_names,
    "state_units": _same,
    "control_rate": _same_rate,
    "chunk_size": _same,
    "image_size": _same,
    "normalization": _same,
    "action_statistics": _same,
    "state_statistics": _same,
    "instruction_format": _same,
}
ITEMS = tuple(_AGREEMENTS)
"""Names of all items that [`compare`] compares."""

__all__ = ["ITEMS", "RANGE_TOLERANCE", "Agreement", "Item", "compare", "differing_ranges"]
