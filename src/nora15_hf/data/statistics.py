# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Action and state statistics of a dataset, without decoding its images."""

import numpy as np

from ..nora15.normalization import ActionStatistics
from .lerobot_dataset import LeRobotDataset


def compute_statistics(
    dataset: LeRobotDataset, *, action_mask: np.ndarray | None = None
) -> dict[str, ActionStatistics]:
    """Exact statistics of the actions and states of the selected episodes, each frame counted once.

    Quantiles stored with LeRobot datasets are bounds over episodes, not quantiles of the dataset; these are computed
    from the rows.

    Args:
        dataset (`LeRobotDataset`): Its images are not touched.
        action_mask (`np.ndarray`, *optional*):
            bool `(A,)`, False for dimensions that stay in physical units (a gripper). All True by default.

    Returns:
        `dict[str, ActionStatistics]`: `"action"`, and `"state"` when the dataset has a state feature.
    """
    statistics = {"action": ActionStatistics.from_actions(dataset.all_actions(), action_mask)}
    if dataset.state_dim > 0:
        statistics["state"] = ActionStatistics.from_actions(dataset.all_states())
    return statistics


__all__ = ["compute_statistics"]
