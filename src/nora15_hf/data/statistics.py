# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Action and state statistics of a dataset, without decoding its images."""

from collections.abc import Sequence

import numpy as np

from ..nora15.normalization import ActionStatistics, actions_to_deltas
from .lerobot_dataset import LeRobotDataset


def delta_actions(dataset: LeRobotDataset, delta_mask: Sequence[bool]) -> np.ndarray:
    """Differences of actions from the state at the start of their chunk, as `delta_action_mask` of the processor means.

    Args:
        dataset (`LeRobotDataset`): With a state; every frame begins a chunk of `dataset.chunk_size` steps.
        delta_mask (`Sequence[bool]` of length A): Where the difference is taken; other dimensions stay as they are.

    Returns:
        `np.ndarray`: float32 `(M, A)`, every step of every chunk that lies within its episode.
    """
    steps = np.arange(len(dataset))[:, None] + np.arange(dataset.chunk_size)
    stop = np.repeat(dataset.episodes["to"], dataset.episodes["length"])
    chunks = dataset.all_actions()[np.minimum(steps, len(dataset) - 1)]
    return actions_to_deltas(chunks, dataset.all_states(), delta_mask)[steps < stop[:, None]]


def compute_statistics(
    dataset: LeRobotDataset, *, action_mask: np.ndarray | None = None, delta_mask: Sequence[bool] | None = None
) -> dict[str, ActionStatistics]:
    """Exact statistics of the actions and states of the selected episodes, each frame counted once.

    Quantiles stored with LeRobot datasets are bounds over episodes, not quantiles of the dataset; these are computed
    from the rows.

    Args:
        dataset (`LeRobotDataset`): Its images are not touched.
        action_mask (`np.ndarray`, *optional*):
            bool `(A,)`, False for dimensions that stay in physical units (a gripper). All True by default.
        delta_mask (`Sequence[bool]`, *optional*):
            For a policy trained on differences from the state: statistics of [`delta_actions`].

    Returns:
        `dict[str, ActionStatistics]`: `"action"`, and `"state"` when the dataset has a state feature.
    """
    actions = dataset.all_actions() if delta_mask is None else delta_actions(dataset, delta_mask)
    statistics = {"action": ActionStatistics.from_actions(actions, action_mask)}
    if dataset.state_dim > 0:
        statistics["state"] = ActionStatistics.from_actions(dataset.all_states())
    return statistics


__all__ = ["compute_statistics", "delta_actions"]
