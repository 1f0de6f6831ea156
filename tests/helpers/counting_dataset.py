# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A dataset whose actions count on from frame to frame, over all of its episodes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nora15_hf.data import LeRobotWriter


def write_counting_dataset(root: Path, lengths: Sequence[int]) -> Path:
    """Episodes of so many frames; one black camera, `image`, of 8 x 8 pixels, and actions `(1,)`."""
    features = {
        "observation.image": {"dtype": "image", "shape": (8, 8, 3)},
        "action": {"dtype": "float32", "shape": (1,)},
    }
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="arm")
    first = 0
    for length in lengths:
        actions = np.arange(first, first + length, dtype=np.float32)[:, None]
        writer.add_episode(
            "push", {"observation.image": np.zeros((length, 8, 8, 3), dtype=np.uint8), "action": actions}
        )
        first += length
    return writer.finalize()


__all__ = ["write_counting_dataset"]
