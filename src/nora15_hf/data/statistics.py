# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Action and state statistics of a dataset, without decoding its images."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..actions.normalization import ActionStatistics, actions_to_deltas
from .lerobot_dataset import LeRobotDataset

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
) -> dict[str, ActionStatistics]:
    """Exact statistics of the actions and states of the selected episodes, each frame counted once.

    Quantiles stored with LeRobot datasets are bounds over episodes, not quantiles of the dataset; these are computed
    from the rows. For statistics of a sample, open the dataset with some `episodes` only.

    Args:
        dataset (`LeRobotDataset`): Its images are not touched.
        action_mask (`Sequence[bool]`, *optional*):
            `(A,)`, False for dimensions that stay in physical units (a gripper). All True by default.
        delta_mask (`Sequence[bool]`, *optional*):
            For a policy trained on differences from the state: statistics of [`delta_actions`]. Steps past the end of an
            episode do not count.
        angle_mask (`Sequence[bool]`, *optional*): With `delta_mask`: differences to be wrapped.

    Returns:
        `dict[str, ActionStatistics]`: `"action"`, and `"state"` when the dataset has a state feature.

    Raises:
        ValueError: A mask of another length than the actions, an angle mask without deltas, or values it refuses.
    """
    for name, mask in (("action_mask", action_mask), ("delta_mask", delta_mask), ("angle_mask", angle_mask)):
        if mask is not None and len(mask) != dataset.action_dim:
            raise ValueError(
                f"`{name}` has {len(mask)} entries for actions of {dataset.action_dim} dimensions; expected one each."
            )
    if delta_mask is None:
        if angle_mask is not None:
            raise ValueError("`angle_mask` is given without `delta_mask`: only differences of angles are wrapped.")
        actions = dataset.all_actions()
        statistics = {"action": ActionStatistics.from_blocks(lambda: _slices(actions), action_mask)}
    else:
        statistics = {
            "action": ActionStatistics.from_blocks(lambda: _delta_blocks(dataset, delta_mask, angle_mask), action_mask)
        }
    if dataset.state_dim > 0:
        states = dataset.all_states()
        statistics["state"] = ActionStatistics.from_blocks(lambda: _slices(states))
    return statistics


def _slices(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), BLOCK_ROWS):
        yield values[start : start + BLOCK_ROWS]


def _delta_blocks(
    dataset: LeRobotDataset, delta_mask: Sequence[bool], angle_mask: Sequence[bool] | None
) -> Iterator[np.ndarray]:
    actions, states = dataset.all_actions(), dataset.all_states()
    stop = np.repeat(dataset.episodes["to"], dataset.episodes["length"])
    frames = max(1, BLOCK_ROWS // dataset.chunk_size)
    for start in range(0, len(dataset), frames):
        steps = np.arange(start, min(start + frames, len(dataset)))[:, None] + np.arange(dataset.chunk_size)
        chunks = actions[np.minimum(steps, len(dataset) - 1)]
        deltas = actions_to_deltas(chunks, states[steps[:, 0]], delta_mask, angle_mask)
        yield deltas[steps < stop[steps[:, 0], None]]


__all__ = ["compute_statistics", "delta_actions"]
