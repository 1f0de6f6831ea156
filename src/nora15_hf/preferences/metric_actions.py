# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy's candidates in the units of a metric world model, and the poses from which they start."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import ProcessorMixin

from ..clips.clip_conventions import check_poses
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..vjepa2_ac import integrate_pose, pose_difference

POSE_PARTS = {"position": slice(0, 3), "rotation": slice(3, 6), "gripper": slice(6, 7)}

NEGLIGIBLE_MOTION = 0.01
"""Metres, radians or share of the gripper's way per chunk below which actions say nothing about their units."""


class MetricActions:
    """
    Turns normalised candidates into pose differences, and looks up poses.

    What the policy learned must be differences of the pose per frame (metres, radians, gripper closedness), which is
    checked on the dataset: integrated over a chunk, its actions have to lead to where its poses go. They need not agree
    exactly, since a command is not yet a motion.

    Args:
        processor ([`Nora15Processor`]): The policy's, with statistics for the dataset.
        dataset ([`LeRobotDataset`]): The demonstrations, whatever columns they were opened with.
        pose_key (`str`): Their column of poses: metres, extrinsic xyz Euler angles in radians, gripper closedness.

    Raises:
        ValueError: Poses or actions of another width, or actions that do not move the poses.
    """

    def __init__(self, processor: ProcessorMixin, dataset: LeRobotDataset, pose_key: str):
        poses = dataset.column(pose_key)
        check_poses(poses.shape[1], pose_key)
        if not dataset.action_dim == processor.action_dim == poses.shape[1]:
            raise ValueError(
                f"A metric world model evaluates pose differences of {poses.shape[1]} dimensions (position, Euler angles, "
                f"gripper), but the policy's actions have {processor.action_dim} and those of the dataset "
                f"{dataset.action_dim} (action_key={dataset.action_key!r}). Use a policy of pose differences, or a world "
                "model of normalised actions."
            )
        self.processor = processor
        self.pose_key = pose_key
        self._root = dataset.root
        _check_actions_move_poses(dataset, torch.from_numpy(poses), pose_key, processor.chunk_size)

    def unnormalize(self, candidates: torch.Tensor, samples: Sequence[Sample]) -> torch.Tensor:
        """Normalised candidates `(B, N, H, 7)` as pose differences, float32 of the same shape."""
        return torch.stack(
            [
                self.processor.unnormalize_actions(
                    chunks, sample["dataset_key"], state=np.stack([sample["state"]] * len(chunks))
                )
                for chunks, sample in zip(candidates, samples, strict=True)
            ]
        ).float()

    def poses_of(self, dataset: LeRobotDataset, indices: Sequence[int]) -> torch.Tensor:
        """
        The poses at some positions of the demonstrations, or of a part of their episodes, float32 `(B, 7)`.

        Raises:
            ValueError: Another dataset, whose actions and poses have not been compared.
        """
        if dataset.root != self._root:
            raise ValueError(
                f"The states come from {dataset.root}, but MetricActions was created for {self._root}. Create it, and the "
                "reward, for the dataset of the states."
            )
        return torch.from_numpy(dataset.column(self.pose_key)[list(indices)])


def _check_actions_move_poses(dataset: LeRobotDataset, poses: torch.Tensor, pose_key: str, chunk_size: int) -> None:
    first, stop = (dataset.episodes[name].tolist() for name in ("from", "to"))
    steps = min(chunk_size, max(dataset.episodes["length"].tolist()) - 1)
    starts = torch.cat([torch.arange(begin, end - steps) for begin, end in zip(first, stop, strict=True)])
    before, after = poses[starts].double(), poses[starts + steps].double()
    actions = torch.from_numpy(dataset.all_actions())
    reached = before
    for step in range(steps):
        reached = integrate_pose(reached, actions[starts + step])
    error, still, moved = (
        pose_difference(*pair).abs() for pair in ((reached, after), (before, after), (before, reached))
    )
    for part, dims in POSE_PARTS.items():
        missed, way, intended = (each[:, dims].mean().item() for each in (error, still, moved))
        if intended > NEGLIGIBLE_MOTION and missed >= min(way, intended):
            raise ValueError(
                f"The actions of the dataset do not move its poses (pose_key={pose_key!r}): {steps} of them move "
                f"the {part} by {intended:.3g} on average where the poses move by {way:.3g}, and end {missed:.3g} away. A "
                "metric world model evaluates policies whose actions are pose differences per frame: metres, extrinsic "
                "xyz Euler angles in radians, difference of gripper closedness. For other actions train a world model "
                "with ClipConventions.of_policy."
            )


__all__ = ["MetricActions"]
