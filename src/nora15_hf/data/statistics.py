# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Action and state statistics of a dataset, without decoding its images."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..actions.normalization import ActionStatistics, actions_to_deltas
from .lerobot_dataset import LeRobotDataset
from .lerobot_source import LeRobotReader

# Rows whose statistics are computed together: a few MB, also of long chunks.
BLOCK_ROWS = 65_536


def delta_actions(
    dataset: LeRobotDataset, delta_mask: Sequence[bool], angle_mask: Sequence[bool] | None = None
) -> np.ndarray:
    """Differences of actions from the state at the start of their chunk, as the processor's masks of these names mean.

    Args:
        dataset (`LeRobotDataset`): With a state; every frame begins a chunk of `dataset.chunk_size` steps.
        delta_mask (`Sequence[bool]` of length A): Where the difference is taken; other dimensions stay as they are.
        angle_mask (`Sequence[bool]` of length A, *optional*): Where differences are wrapped to [-pi, pi).

    Returns:
        `np.ndarray`: float32 `(M, A)`, every step of every chunk that lies within its episode.
    """
    return np.concatenate(list(_delta_blocks(dataset, delta_mask, angle_mask)))


def compute_statistics(
    dataset: LeRobotDataset,
    *,
    action_mask: Sequence[bool] | None = None,
    delta_mask: Sequence[bool] | None = None,
    angle_mask: Sequence[bool] | None = None,
    range_floor: float | None = None,
) -> dict[str, ActionStatistics]:
    """Exact statistics of the actions and states of the selected episodes, each frame counted once.

    The quantiles that LeRobot stores are means of the episodes' quantiles and lie inside those of the dataset; these are
    computed from the rows. For statistics of a sample, open the dataset with some `episodes` only.

    Args:
        dataset (`LeRobotDataset`): Its images are not touched.
        action_mask (`Sequence[bool]`, *optional*):
            `(A,)`, False for dimensions that stay in physical units (a gripper). All True by default.
        delta_mask (`Sequence[bool]`, *optional*):
            For a policy trained on differences from the state: statistics of [`delta_actions`]. Steps past the end of an
            episode do not count.
        angle_mask (`Sequence[bool]`, *optional*): With `delta_mask`: differences to be wrapped.
        range_floor (`float`, *optional*):
            Least range of a normalised dimension of actions and states, in physical units; see
            [`~nora15_hf.actions.normalization.ActionStatistics.with_range_floor`].

    Returns:
        `dict[str, ActionStatistics]`: `"action"`, and `"state"` when the dataset has a state feature.

    Raises:
        ValueError: A mask of another length than the actions, an angle mask without deltas, deltas of dimensions that the
            state lacks or has in another order, or values it refuses.
    """
    for name, mask in (("action_mask", action_mask), ("delta_mask", delta_mask), ("angle_mask", angle_mask)):
        if mask is not None and len(mask) != dataset.action_dim:
            raise ValueError(
                f"`{name}` has {len(mask)} entries for actions of {dataset.action_dim} dimensions; expected one each."
            )
    if delta_mask is not None and any(delta_mask[dataset.state_dim :]):
        raise ValueError(
            f"`delta_mask` {list(delta_mask)} takes differences from a state that has {dataset.state_dim} dimensions "
            f"(state_key={dataset.state_key!r}). Choose a feature that covers them through `state_key`."
        )
    if delta_mask is None:
        if angle_mask is not None:
            raise ValueError("`angle_mask` is given without `delta_mask`: only differences of angles are wrapped.")
        actions = dataset.all_actions()
        statistics = {"action": ActionStatistics.from_blocks(lambda: _slices(actions), action_mask)}
    else:
        check_delta_dimensions(dataset, delta_mask)
        statistics = {
            "action": ActionStatistics.from_blocks(lambda: _delta_blocks(dataset, delta_mask, angle_mask), action_mask)
        }
    if dataset.state_dim > 0:
        states = dataset.all_states()
        statistics["state"] = ActionStatistics.from_blocks(lambda: _slices(states))
    if range_floor is not None:
        statistics = {name: found.with_range_floor(range_floor) for name, found in statistics.items()}
    return statistics


def check_delta_dimensions(dataset: LeRobotReader, delta_mask: Sequence[bool]) -> None:
    """
    Refuses differences between dimensions of actions and states that are not the same ones: of other names or, where names do
    not tell, of other places in the recording. The state has all of these dimensions.

    Args:
        dataset ([`LeRobotReader`]): Its actions and states as they are given out.
        delta_mask (`Sequence[bool]` of length A): As for [`compute_statistics`].

    Raises:
        ValueError: Names the first such dimension.
    """
    actions, states = dataset.action_names, dataset.state_names
    for dimension in np.flatnonzero(delta_mask).tolist():
        named = actions is not None and states is not None and actions[dimension] in states
        pair = (actions, states) if named else dataset.recorded_order
        first, second = (dimension if places is None else places[dimension] for places in pair)
        if first != second:
            kind = "" if named else "recorded dimension "
            raise ValueError(
                f"Dataset {dataset.dataset_key!r}: in dimension {dimension} the action is {kind}{first!r}, but the state is "
                f"{kind}{second!r}, so their difference is meaningless. Record both in the same order or, if the names are "
                "wrong or missing, give action_names and state_names in the recorded order."
            )


def _slices(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), BLOCK_ROWS):
        yield values[start : start + BLOCK_ROWS]


def action_chunks(
    dataset: LeRobotDataset, delta_mask: Sequence[bool] | None, angle_mask: Sequence[bool] | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """
    The chunks that begin at each frame, in blocks of a few MB, as differences from the state with `delta_mask`.

    Yields:
        `tuple[int, np.ndarray, np.ndarray]`: position of the first frame, float32 `(n, H, A)` and bool `(n, H)`, False past
        the end of an episode, where its last action is repeated.
    """
    actions, states = dataset.all_actions(), dataset.all_states()
    stop = np.repeat(dataset.episodes["to"], dataset.episodes["length"])
    frames = max(1, BLOCK_ROWS // dataset.chunk_size)
    for start in range(0, len(dataset), frames):
        steps = np.arange(start, min(start + frames, len(dataset)))[:, None] + np.arange(dataset.chunk_size)
        after = stop[steps[:, :1]]
        chunks = actions[np.minimum(steps, after - 1)]
        if delta_mask is not None:
            chunks = actions_to_deltas(chunks, states[steps[:, 0]], delta_mask, angle_mask)
        yield start, chunks, steps < after


def _delta_blocks(
    dataset: LeRobotDataset, delta_mask: Sequence[bool], angle_mask: Sequence[bool] | None
) -> Iterator[np.ndarray]:
    for _, deltas, inside in action_chunks(dataset, delta_mask, angle_mask):
        yield deltas[inside]


__all__ = ["action_chunks", "check_delta_dimensions", "compute_statistics", "delta_actions"]
