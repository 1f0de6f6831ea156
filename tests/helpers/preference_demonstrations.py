# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A LeRobot dataset of two short random episodes, for tests that need demonstrations but not what they show."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nora15_hf.data import LeRobotWriter

__all__ = ["write_demonstrations"]


def write_demonstrations(
    root: Path, lengths: Sequence[int] = (7, 9), instructions: Sequence[str] = ("open the faucet",)
) -> Path:
    """One episode of each length, with the instructions in turn."""
    features = {
        "observation.image": {"dtype": "image", "shape": (56, 56, 3)},
        "observation.state": {"dtype": "float32", "shape": (4,)},
        "action": {"dtype": "float32", "shape": (4,)},
    }
    writer = LeRobotWriter(root, fps=80, features=features, robot_type="test")
    rng = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        writer.add_episode(
            instructions[number % len(instructions)],
            {
                "observation.image": rng.integers(0, 256, (length, 56, 56, 3), dtype=np.uint8),
                "observation.state": rng.normal(size=(length, 4)).astype(np.float32),
                "action": rng.uniform(-1, 1, size=(length, 4)).astype(np.float32),
            },
        )
    return writer.finalize()
