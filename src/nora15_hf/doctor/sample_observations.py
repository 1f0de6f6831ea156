# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Observations to try a policy on: frames of a dataset, or made-up pictures when there is none."""

from typing import Any

import numpy as np

from ..data import LeRobotDataset

SYNTHETIC_INSTRUCTIONS = ("pick up the object", "move the arm to the left")


def dataset_observations(dataset: LeRobotDataset, count: int) -> list[dict[str, Any]]:
    """At most `count` frames, evenly spread over the dataset."""
    frames = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    samples = [dataset[int(frame)] for frame in frames]
    return [{"images": sample["images"], "instruction": sample["instruction"]} for sample in samples]


def synthetic_observations(count: int, seed: int, cameras: int = 1) -> list[dict[str, Any]]:
    """`count` times a picture of coloured squares per camera, 224 pixels wide, each time with one of two instructions."""
    squares = np.random.default_rng(seed).integers(0, 256, (count, cameras, 7, 7, 3), dtype=np.uint8)
    pictures = squares.repeat(32, axis=2).repeat(32, axis=3)
    return [
        {"images": list(row), "instruction": SYNTHETIC_INSTRUCTIONS[number % 2]} for number, row in enumerate(pictures)
    ]


def other_instructions(observations: list[dict[str, Any]]) -> list[str]:
    """For each observation the instruction of another one, or a made-up one where all are the same."""
    known = [*dict.fromkeys(observation["instruction"] for observation in observations), *SYNTHETIC_INSTRUCTIONS]
    return [next(text for text in known if text != observation["instruction"]) for observation in observations]


__all__ = ["SYNTHETIC_INSTRUCTIONS", "dataset_observations", "other_instructions", "synthetic_observations"]
