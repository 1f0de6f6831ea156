# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LeRobot datasets in and out, their statistics, and the way from samples to model inputs."""

from .collator import PolicyCollator
from .image_augmentation import ImageAugmentation
from .lerobot_dataset import LeRobotDataset, Sample
from .lerobot_writer import LeRobotWriter
from .statistics import compute_statistics, delta_actions

__all__ = [
    "ImageAugmentation",
    "LeRobotDataset",
    "LeRobotWriter",
    "PolicyCollator",
    "Sample",
    "compute_statistics",
    "delta_actions",
]
