# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What rewards score, from positions of a dataset and candidates."""

from collections.abc import Sequence

import numpy as np
import torch

from nora15_hf.data import LeRobotDataset
from nora15_hf.preferences import RewardBatch


def batch_of(dataset: LeRobotDataset, indices: Sequence[int], candidates: torch.Tensor) -> RewardBatch:
    """The states at those positions with candidates `(states, N, H, A)`; actions in the dataset's own units."""
    samples = [dataset[index] for index in indices]
    return RewardBatch(
        dataset=dataset,
        indices=indices,
        samples=samples,
        candidates=candidates,
        actions=torch.from_numpy(np.stack([sample["actions"] for sample in samples])),
        action_mask=torch.from_numpy(np.stack([sample["action_mask"] for sample in samples])),
    )
