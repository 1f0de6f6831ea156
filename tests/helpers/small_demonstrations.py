# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A small LeRobot dataset for tests of supervised training."""

from pathlib import Path

import numpy as np

from nora15_hf.data import LeRobotWriter

INSTRUCTIONS = ("open the faucet", "close the faucet, please")

__all__ = ["INSTRUCTIONS", "write_demonstrations"]


def write_demonstrations(root: Path, lengths: tuple[int, ...] = (9, 6, 8), size: int = 56) -> Path:
    """Episodes of smooth random actions, a 3-number state and noise pictures."""
    writer = LeRobotWriter(
        root,
        fps=10,
        features={
            "observation.image": {"dtype": "image", "shape": (size, size, 3)},
            "observation.state": {"dtype": "float32", "shape": (3,)},
            "action": {"dtype": "float32", "shape": (4,)},
        },
        robot_type="arm",
    )
    random = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        writer.add_episode(
            INSTRUCTIONS[number % 2],
            {
                "observation.image": random.integers(0, 256, (length, size, size, 3), dtype=np.uint8),
                "observation.state": random.normal(size=(length, 3)).astype(np.float32),
                "action": np.sin(random.normal(size=(length, 4)).cumsum(0) / 2).astype(np.float32),
            },
        )
    return writer.finalize()
