# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics of actions (and states) of one dataset, and the two maps between physical and normalised units."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from ..repo_files.fingerprint import digest
from ..repo_files.written_whole import written_whole
from .exact_statistics import exact_statistics
from .float32_precision import check_held

NormalizationMode = Literal["q01_q99", "min_max", "mean_std"]
Feature = Literal["action", "proprio"]

_MODE_FIELDS = {"q01_q99": ("q01", "q99"), "min_max": ("min", "max"), "mean_std": ("mean", "std")}
_VECTOR_FIELDS = ("q01", "q99", "min", "max", "mean", "std")
_EPSILON = 1e-8
# A recorded constant passes through float32 and JSON, so it comes back within a few float32 ulps.
_CONSTANT_TOLERANCE = 1e-6
# Recorded angles may lie on the seam and pass through float32.
_PI_BOUND = math.pi + 1e-4


@dataclass(frozen=True, eq=False)
class ActionStatistics:
    """Per-dimension statistics of the actions (or states) of one dataset, in physical units.

    The arrays are copied to float32, checked and made read-only at construction.

    Args:
        q01 (`np.ndarray` of shape `(A,)`): 1 % quantile.
        q99 (`np.ndarray` of shape `(A,)`): 99 % quantile.
        min, max, mean, std (`np.ndarray` of shape `(A,)`, *optional*):
            `None` where the file they were read from does not hold them; only the modes that need them refuse to work.
        mask (`np.ndarray` of bool of shape `(A,)`, *optional*):
            True where a dimension is normalised, False where it is left in physical units (the gripper of the released
            NORA-1.5). Defaults to all True, which is how OpenVLA reads a file without a mask.
        count (`int`, *optional*, defaults to 0): number of rows the statistics were made of, 0 if not recorded.

    Raises:
        `ValueError`: wrong rank or length, NaN or infinity, a lower bound above its upper bound, a negative `std`.
        `TypeError`: a `mask` that is not boolean.
    """

    q01: np.ndarray
    q99: np.ndarray
    min: np.ndarray | None = None
    max: np.ndarray | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    mask: np.ndarray | None = None
    count: int = 0

    def __post_init__(self):
        width = np.shape(self.q01)
        if len(width) != 1 or width[0] == 0:
            raise ValueError(
                f"`q01` has shape {width}; expected one number per action dimension, shape (A,) with A > 0."
            )
        for name in _VECTOR_FIELDS:
            value = getattr(self, name)
            if value is None and name not in ("q01", "q99"):
                continue
            array = np.array(value, dtype=np.float32)
            if array.shape != width:
                raise ValueError(
                    f"`{name}` has shape {array.shape}, `q01` has {width}; all statistics need one length."
                )
            if not np.isfinite(array).all():
                raise ValueError(
                    f"`{name}` is not finite in dimension(s) {np.flatnonzero(~np.isfinite(array)).tolist()}; "
                    "recompute the statistics on data without NaN and infinity."
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        mask = np.ones(width, dtype=bool) if self.mask is None else np.array(self.mask)
        if mask.dtype != bool:
            raise TypeError(f"`mask` has dtype {mask.dtype}; expected booleans, True where a dimension is normalised.")
        if mask.shape != width:
            raise ValueError(f"`mask` has shape {mask.shape}, `q01` has {width}; all statistics need one length.")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)
        for low, high in (("q01", "q99"), ("min", "max")):
            if getattr(self, low) is not None and getattr(self, high) is not None:
                swapped = np.flatnonzero(getattr(self, low) > getattr(self, high))
                if swapped.size:
                    raise ValueError(
                        f"`{low}` is above `{high}` in dimension(s) {swapped.tolist()}; are they swapped?"
                    )
        if self.std is not None and (self.std < 0).any():
            raise ValueError(f"`std` is negative in dimension(s) {np.flatnonzero(self.std < 0).tolist()}.")
        if self.count < 0:
            raise ValueError(f"`count` is {self.count}; expected the number of rows, 0 if unknown.")

    def __len__(self) -> int:
        return len(self.q01)

    @classmethod
    def from_actions(cls, actions: np.ndarray | torch.Tensor, mask: np.ndarray | None = None) -> "ActionStatistics":
        """Exact statistics of `actions`.

        Unlike the 5000-bin running histogram behind the released files, the quantiles are exact (linear interpolation
        between order statistics) and do not depend on the order of the rows.

        Args:
            actions (`np.ndarray` or `torch.Tensor` of shape `(N, A)`):
                Physical units, padded steps already removed. States are given in the same way.
            mask (`np.ndarray` of bool of shape `(A,)`, *optional*): see [`ActionStatistics`].

        Raises:
            `ValueError`: not two-dimensional, no rows, NaN or infinity (the first row is named), or differences that float32
                cannot hold.
        """
        values = actions.detach().cpu().numpy() if isinstance(actions, torch.Tensor) else np.asarray(actions)
        if values.ndim != 2 or values.shape[0] == 0:
            raise ValueError(f"`actions` has shape {values.shape}; expected (N, A) with at least one row.")
        with np.errstate(over="ignore"):  # what float32 cannot hold at all is refused as infinite
            rounded = values.astype(np.float32)
        if np.isfinite(rounded).all():
            check_held(values, rounded, "`actions`")
        return cls.from_blocks(lambda: [values], mask)

    @classmethod
    def from_blocks(
        cls, blocks: Callable[[], Iterable[np.ndarray]], mask: np.ndarray | None = None
    ) -> "ActionStatistics":
        """[`~ActionStatistics.from_actions`] for rows that come in blocks, equally exact.

        Args:
            blocks (callable): Gives the same blocks `(rows, A)` each time it is called, which is twice.
            mask (`np.ndarray` of bool of shape `(A,)`, *optional*): see [`ActionStatistics`].

        Raises:
            `ValueError`: no rows, NaN or infinity (the first row is named).
        """
        try:
            moments, (q01, q99) = exact_statistics(blocks, (0.01, 0.99))
        except ValueError as error:
            raise ValueError(f"`actions`: {error}") from error
        return cls(q01=q01, q99=q99, mask=mask, **moments)

    def with_range_floor(self, floor: float) -> "ActionStatistics":
        """
        Statistics in which no normalised dimension is narrower than `floor`, in physical units.

        Where `q01 .. q99` or `min .. max` is, both ends move away from its middle; `std` becomes at least a quarter of the
        floor. What varies less than matters on the robot then stays near 0 and is not blown up to [-1, 1].

        Raises:
            ValueError: `floor` is not a positive number.
        """
        if not floor > 0 or not math.isfinite(floor):
            raise ValueError(f"`floor` is {floor}; expected the least range of a dimension, a positive number.")
        changed = {}
        for low_name, high_name in (("q01", "q99"), ("min", "max")):
            low, high = getattr(self, low_name), getattr(self, high_name)
            if low is not None and high is not None:
                margin = np.where(self.mask, np.maximum(0, (floor - (high - low)) / 2), 0)
                changed |= {low_name: low - margin, high_name: high + margin}
        if self.std is not None:
            changed["std"] = np.where(self.mask, np.maximum(self.std, floor / 4), self.std)
        return replace(self, **changed)

    def to_dict(self, feature: Feature = "action") -> dict[str, Any]:
        """The OpenVLA layout, `{"action": {"q01": [...], ..., "mask": [...]}, "num_transitions": count}`."""
        values = {name: getattr(self, name).tolist() for name in _VECTOR_FIELDS if getattr(self, name) is not None}
        return {feature: {**values, "mask": self.mask.tolist()}, "num_transitions": self.count}

    def fingerprint(self, mode: NormalizationMode) -> str:
        """Digest of what decides how [`normalize`] maps numbers in this mode; equal maps, equal digest."""
        values = [getattr(self, name) for name in _MODE_FIELDS[mode]]
        return digest(
            [np.ascontiguousarray(value) for value in (*values, self.mask) if value is not None], num_bytes=8
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], feature: Feature = "action") -> "ActionStatistics":
        """Reads one dataset's entry in the OpenVLA layout; statistics of other names are left aside.

        Args:
            values (`Mapping`): `{"action": {"q01": [...], "q99": [...], ...}, "num_transitions": ...}`.
            feature (`str`, *optional*, defaults to `"action"`): OpenVLA calls the state `"proprio"`.

        Raises:
            `ValueError`: the feature or one of its quantiles is missing, or see [`ActionStatistics`].
        """
        if feature not in values:
            raise ValueError(f"the statistics hold no {feature!r}, only {sorted(values)}.")
        if not isinstance(values[feature], Mapping):
            raise ValueError(f"{feature!r} of the statistics is {values[feature]!r}, expected an object.")
        missing = [name for name in ("q01", "q99") if name not in values[feature]]
        if missing:
            raise ValueError(
                f"the statistics of {feature!r} lack {missing}, they hold {sorted(values[feature])}; "
                "recompute them with `ActionStatistics.from_actions`."
            )
        known = {name: values[feature][name] for name in (*_VECTOR_FIELDS, "mask") if name in values[feature]}
        return cls(**known, count=values.get("num_transitions", 0))


def normalize(
    actions: np.ndarray | torch.Tensor,
    statistics: ActionStatistics,
    mode: NormalizationMode = "q01_q99",
    clip: bool = False,
    lossy: bool = False,
) -> np.ndarray | torch.Tensor:
    """Maps physical units to normalised ones, `q01 .. q99` (or `min .. max`) to about [-1, 1].

    `(x - q01) / (q99 - q01 + 1e-8) * 2 - 1` as in NORA-1.5's LeRobot training, or `(x - mean) / (std + 1e-8)`.
    Dimensions outside the mask stay as they are. A constant dimension becomes 0 (as in OpenVLA's RLDS pipeline; the
    LeRobot path gives -1), and [`unnormalize`] returns the constant for any value.

    Args:
        actions (`np.ndarray` or `torch.Tensor` of shape `(..., A)`): floating point, physical units.
        statistics ([`ActionStatistics`]): of the dataset the actions come from.
        mode (`str`, *optional*, defaults to `"q01_q99"`): or `"min_max"`, `"mean_std"`.
        clip (`bool`, *optional*, defaults to `False`):
            Clip the normalised dimensions to [-1, 1], as the RLDS pipeline does and the LeRobot one does not.
        lossy (`bool`, *optional*, defaults to `False`):
            Let a constant dimension become 0 also where the value differs from the constant; see [`lost_values`].

    Returns:
        The same kind of array, with the same shape, dtype and device.

    Raises:
        `TypeError`: `actions` is not floating point.
        `ValueError`: wrong width, NaN or infinity, statistics without the fields of `mode`, `clip` with `"mean_std"`,
            or a value that differs from the constant of a constant dimension: it would be lost.
    """
    if clip and mode == "mean_std":
        raise ValueError(
            "`clip=True` bounds the result to [-1, 1], which mode 'mean_std' does not map to; drop one of them."
        )
    values, offset, width, constant, mask = _prepare(actions, statistics, mode)
    broken = ~torch.isfinite(values)
    if broken.any():
        raise ValueError(
            f"`actions` holds {int(broken.sum())} NaN or infinite value(s), the first at index "
            f"{tuple(broken.nonzero()[0].tolist())}; fix or drop them."
        )
    lost = _differs_from_constant(values, offset, constant & mask)
    if lost.any() and not lossy:
        index = tuple(lost.nonzero()[0].tolist())
        low, high = _MODE_FIELDS[mode]
        raise ValueError(
            f"`actions` at index {index} is {values[index].item()}, but dimension {index[-1]} is constant "
            f"({offset[index[-1]].item()}) according to {low} and {high}, so the value would be lost. "
            "Use mode 'min_max', set the dimension's `mask` to False, or recompute the statistics on this data."
        )
    scaled = (values - offset) / (width + _EPSILON)
    normalized = scaled if mode == "mean_std" else scaled * 2 - 1
    normalized = torch.where(constant, 0, normalized)
    if clip:
        normalized = normalized.clamp(-1, 1)
    return _like(actions, torch.where(mask, normalized, values))


def normalization_bounds(statistics: ActionStatistics, mode: NormalizationMode) -> tuple[np.ndarray, np.ndarray]:
    """What normalisation maps to -1 and 1, float64 `(A,)` each: q01 and q99, min and max, or mean -+ std."""
    first, second = (vector.astype(np.float64) for vector in _mode_vectors(statistics, mode))
    return (first - second, first + second) if mode == "mean_std" else (first, second)


def lost_values(
    actions: np.ndarray | torch.Tensor, statistics: ActionStatistics, mode: NormalizationMode = "q01_q99"
) -> torch.BoolTensor:
    """
    Where [`normalize`] would lose a value: the dimension has no range in `mode`, and the value differs from its constant.

    Args:
        actions, statistics, mode: As for [`normalize`].

    Returns:
        `torch.BoolTensor` of the shape of `actions`.
    """
    values, offset, _, constant, mask = _prepare(actions, statistics, mode)
    return _differs_from_constant(values, offset, constant & mask)


def _differs_from_constant(values: torch.Tensor, offset: torch.Tensor, constant: torch.Tensor) -> torch.BoolTensor:
    return constant & ((values - offset).abs() > _CONSTANT_TOLERANCE * offset.abs().clamp(min=1))


def unnormalize(
    actions: np.ndarray | torch.Tensor,
    statistics: ActionStatistics,
    mode: NormalizationMode = "q01_q99",
) -> np.ndarray | torch.Tensor:
    """Maps normalised units back to physical ones.

    `0.5 * (x + 1) * (q99 - q01) + q01` where the mask is True (released NORA-1.5), or `x * std + mean`; nothing is
    clipped. NaN stays NaN, so that rows which a decoder marked as invalid cannot turn into a pose.

    Args:
        actions (`np.ndarray` or `torch.Tensor` of shape `(..., A)`): floating point, normalised.
        statistics ([`ActionStatistics`]): of the dataset (robot) the actions are meant for.
        mode (`str`, *optional*, defaults to `"q01_q99"`): the mode they were normalised with.

    Returns:
        The same kind of array, with the same shape, dtype and device.

    Raises:
        `TypeError`: `actions` is not floating point.
        `ValueError`: wrong width, or statistics without the fields of `mode`.
    """
    values, offset, width, _, mask = _prepare(actions, statistics, mode)
    physical = values * width + offset if mode == "mean_std" else 0.5 * (values + 1) * width + offset
    return _like(actions, torch.where(mask, physical, values))


def actions_to_deltas(
    actions: np.ndarray | torch.Tensor,
    state: np.ndarray | torch.Tensor,
    delta_mask: Sequence[bool],
    angle_mask: Sequence[bool] | None = None,
) -> np.ndarray | torch.Tensor:
    """Absolute targets as differences from the state at the start of the chunk, the same state for all its steps.

    This is what NORA-1.5's LeRobot training does to the arm's dimensions, before normalisation. Differences of angles are
    wrapped, so that turning from 3.1 to -3.1 rad is a step of 0.08 and not of -6.2.

    Args:
        actions (`np.ndarray` or `torch.Tensor` of shape `(batch, ..., A)` or `(..., A)`): physical units.
        state (`np.ndarray` or `torch.Tensor` of shape `(batch, S)` or `(S,)`): its first A dimensions mean the same as
            the actions'.
        delta_mask (`Sequence[bool]` of length A): True where the difference is taken; a gripper is usually left alone.
        angle_mask (`Sequence[bool]` of length A, *optional*):
            True where actions and state are angles in radians from -pi to pi; among the dimensions of `delta_mask`. Not for
            joints that turn further and are recorded without a jump.

    Returns:
        The same kind of array as `actions`, with the same shape and dtype; angles in [-pi, pi).

    Raises:
        ValueError: `state` does not cover the masked dimensions, has another batch size, or is not finite; an angle
            outside [-pi, pi]; masks that do not fit together.
    """
    _check_angles(actions, "actions", delta_mask, angle_mask)
    _check_angles(state, "state", delta_mask, angle_mask)
    deltas = torch.as_tensor(actions) - _state_offset(actions, state, delta_mask)
    return _like(actions, _wrapped(deltas, angle_mask))


def deltas_to_actions(
    deltas: np.ndarray | torch.Tensor,
    state: np.ndarray | torch.Tensor,
    delta_mask: Sequence[bool],
    angle_mask: Sequence[bool] | None = None,
) -> np.ndarray | torch.Tensor:
    """The inverse of [`actions_to_deltas`], same arguments; angles come back in [-pi, pi), as they were recorded."""
    _check_angles(state, "state", delta_mask, angle_mask)
    actions = torch.as_tensor(deltas) + _state_offset(deltas, state, delta_mask)
    return _like(deltas, _wrapped(actions, angle_mask))


def _check_angles(values, name: str, delta_mask: Sequence[bool], angle_mask: Sequence[bool] | None) -> None:
    if angle_mask is None:
        return
    if len(angle_mask) != len(delta_mask) or any(
        angle and not delta for angle, delta in zip(angle_mask, delta_mask, strict=True)
    ):
        raise ValueError(
            f"`angle_mask` {list(angle_mask)} must have one entry per action dimension and be True only where "
            f"`delta_mask` {list(delta_mask)} is: only differences are wrapped."
        )
    for dimension in np.flatnonzero(angle_mask).tolist():
        column = torch.as_tensor(values)[..., dimension : dimension + 1]
        # A state may be narrower or hold NaN, which is reported with the state.
        if column.numel() and (column.abs() > _PI_BOUND).any():
            worst = column.flatten()[column.abs().flatten().nan_to_num().argmax()].item()
            raise ValueError(
                f"`{name}` is {worst:.6g} in dimension {dimension}, which `angle_mask` calls an angle in radians from -pi "
                "to pi. Convert degrees to radians, or leave the dimension out of the mask if the joint turns further."
            )


def _wrapped(values: torch.Tensor, angle_mask: Sequence[bool] | None) -> torch.Tensor:
    """Angles brought to [-pi, pi) by whole turns; those that lie there already keep every digit."""
    if angle_mask is None:
        return values
    turns = torch.floor((values + math.pi) / (2 * math.pi))
    # Whole turns are rounded to the dtype, which next to the seam could lead an ulp out of the range.
    turned = (values - 2 * math.pi * turns).clamp(-math.pi, math.pi)
    outside = torch.tensor(angle_mask, device=values.device) & ((values < -math.pi) | (values >= math.pi))
    return torch.where(outside, turned, values)


def _state_offset(actions, state, delta_mask: Sequence[bool]) -> torch.Tensor:
    """The state on the masked dimensions and 0 elsewhere, shaped to broadcast over the axes between batch and A."""
    actions = torch.as_tensor(actions)
    state = torch.as_tensor(state).to(actions)
    width = actions.shape[-1]
    needed = max((index + 1 for index, is_delta in enumerate(delta_mask) if is_delta), default=0)
    if state.ndim not in (1, 2) or state.shape[-1] < needed or len(delta_mask) != width:
        raise ValueError(
            f"`state` has shape {tuple(state.shape)} and `delta_mask` {len(delta_mask)} entries for actions of {width} "
            f"dimensions; expected (S,) or (batch, S) with S of at least {needed} and a mask of {width}."
        )
    if state.ndim == 2 and state.shape[0] != actions.shape[0]:
        raise ValueError(f"`state` has {state.shape[0]} rows for a batch of {actions.shape[0]} actions.")
    if not state.isfinite().all():
        raise ValueError("`state` holds NaN or infinity, and so would every action of the chunk.")
    offset = state.new_zeros(*state.shape[:-1], width)
    mask = torch.tensor(delta_mask, device=state.device)
    offset[..., mask] = state[..., : len(mask)][..., mask[: state.shape[-1]]]
    if state.ndim == 2:
        offset = offset.view(len(offset), *[1] * (actions.ndim - 2), width)
    return offset


def _prepare(actions: np.ndarray | torch.Tensor, statistics: ActionStatistics, mode: NormalizationMode):
    """Checks, and brings actions and statistics to one device and to float32 (float64 where the actions are)."""
    vectors = _mode_vectors(statistics, mode)
    values = actions if isinstance(actions, torch.Tensor) else torch.from_numpy(np.array(actions))
    if not values.is_floating_point():
        raise TypeError(f"`actions` has dtype {values.dtype}; expected floating point.")
    if values.ndim == 0 or values.shape[-1] != len(statistics):
        raise ValueError(
            f"`actions` has shape {tuple(values.shape)}, the statistics describe {len(statistics)} dimension(s): the "
            "last axis must have that length. Were the statistics made for another robot or dataset?"
        )
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    first, second = (torch.from_numpy(vector.copy()).to(values) for vector in vectors)
    width = second if mode == "mean_std" else second - first
    mask = torch.from_numpy(statistics.mask.copy()).to(values.device)
    return values, first, width, width == 0, mask


def _mode_vectors(statistics: ActionStatistics, mode: NormalizationMode) -> list[np.ndarray]:
    """The two statistics that a mode needs, each float32 `(A,)`."""
    if mode not in _MODE_FIELDS:
        raise ValueError(f"`mode` is {mode!r}; expected one of {sorted(_MODE_FIELDS)}.")
    vectors = [getattr(statistics, name) for name in _MODE_FIELDS[mode]]
    if any(vector is None for vector in vectors):
        raise ValueError(
            f"mode {mode!r} needs the statistics {list(_MODE_FIELDS[mode])}, which were not recorded; use another "
            "mode or recompute them with `ActionStatistics.from_actions`."
        )
    return vectors


def _like(actions: np.ndarray | torch.Tensor, result: torch.Tensor) -> np.ndarray | torch.Tensor:
    if isinstance(actions, torch.Tensor):
        return result.to(actions.dtype)
    return result.numpy().astype(np.asarray(actions).dtype, copy=False)


def load_norm_stats(path: str | os.PathLike, feature: Feature = "action") -> dict[str, ActionStatistics]:
    """Reads `norm_stats.json` in the OpenVLA layout: `{dataset_key: {"action": {...}, "proprio": {...}}}`.

    Args:
        path (`str` or `os.PathLike`): the file.
        feature (`str`, *optional*, defaults to `"action"`):
            `"proprio"` reads the statistics of the state; datasets that have none are left out then.

    Returns:
        `dict[str, ActionStatistics]`: by dataset key, in the file's order.

    Raises:
        `ValueError`: not JSON, not the layout, or statistics that [`ActionStatistics`] refuses; file and key named.
    """
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not content or not all(isinstance(entry, dict) for entry in content.values()):
        raise ValueError(
            f"{os.fspath(path)} does not hold statistics by dataset key; expected "
            '{"my_dataset": {"action": {"q01": [...], "q99": [...], "mask": [...]}}}.'
        )
    stats_by_key = {}
    for key, entry in content.items():
        if feature == "proprio" and feature not in entry:
            continue
        try:
            stats_by_key[key] = ActionStatistics.from_dict(entry, feature)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)}, dataset key {key!r}: {str(error).rstrip('.')}. Correct the file, or fetch it again."
            ) from error
    return stats_by_key


def save_norm_stats(
    path: str | os.PathLike,
    stats_by_key: Mapping[str, ActionStatistics],
    state_stats_by_key: Mapping[str, ActionStatistics] | None = None,
) -> None:
    """Writes `norm_stats.json` in the OpenVLA layout, float32 values exactly.

    Args:
        path (`str` or `os.PathLike`): the file.
        stats_by_key (`Mapping[str, ActionStatistics]`): statistics of the actions by dataset key.
        state_stats_by_key (`Mapping[str, ActionStatistics]`, *optional*):
            Statistics of the state, written as `"proprio"`; each key must also have statistics of its actions.

    Raises:
        `ValueError`: no key at all, or a key with statistics of the state only.
    """
    state_stats_by_key = state_stats_by_key or {}
    if not stats_by_key:
        raise ValueError("`stats_by_key` is empty; expected the statistics of at least one dataset.")
    orphans = sorted(set(state_stats_by_key) - set(stats_by_key))
    if orphans:
        raise ValueError(f"`state_stats_by_key` has {orphans}, which `stats_by_key` (the actions) does not contain.")
    content = {key: statistics.to_dict() for key, statistics in stats_by_key.items()}
    for key, statistics in state_stats_by_key.items():
        content[key]["proprio"] = statistics.to_dict("proprio")["proprio"]
    with written_whole(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def select_dataset_key(stats_by_key: Mapping[str, ActionStatistics], dataset_key: str | None = None) -> str:
    """The dataset key to use: the given one if it is known, the only one if none is given.

    Raises:
        `ValueError`: unknown key, or several keys and no choice; the message lists the known keys.
    """
    known = ", ".join(repr(key) for key in stats_by_key)
    if dataset_key is None:
        if len(stats_by_key) != 1:
            raise ValueError(f"`dataset_key` is not given and there are {len(stats_by_key)} to choose from: {known}.")
        return next(iter(stats_by_key))
    if dataset_key not in stats_by_key:
        raise ValueError(f"`dataset_key` {dataset_key!r} is unknown; this checkpoint has statistics for: {known}.")
    return dataset_key


__all__ = [
    "ActionStatistics",
    "NormalizationMode",
    "actions_to_deltas",
    "deltas_to_actions",
    "load_norm_stats",
    "lost_values",
    "normalize",
    "save_norm_stats",
    "select_dataset_key",
    "unnormalize",
]
