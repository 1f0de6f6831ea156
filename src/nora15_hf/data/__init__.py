# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LeRobot datasets in and out, their statistics, and the way from samples to model inputs."""

from .collator import PolicyCollator
from .image_augmentation import ImageAugmentation
from .lerobot_dataset import LeRobotDataset, Sample
from .lerobot_mixture import LeRobotMixture
from .lerobot_stream import LeRobotStream, LeRobotStreamMixture
from .lerobot_writer import LeRobotWriter
from .policy_fit import check_dataset_fits, fit_dataset
from .statistics import compute_statistics, delta_actions

__all__ = [
    "ImageAugmentation",
    "LeRobotDataset",
    "LeRobotMixture",
    "LeRobotStream",
    "LeRobotStreamMixture",
    "LeRobotWriter",
    "PolicyCollator",
    "Sample",
    "check_dataset_fits",
    "compute_statistics",
    "delta_actions",
    "fit_dataset",
]
