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
        poses ([`LeRobotDataset`]): The dataset of the states, opened with the column of the poses as `state_key`.

    Raises:
        ValueError: Poses or actions of another width, or actions that do not move the poses.
    """

    def __init__(self, processor: ProcessorMixin, poses: LeRobotDataset):
        check_poses(poses)
        if not poses.action_dim == processor.action_dim == poses.state_dim:
            raise ValueError(
                f"A metric world model judges pose differences of {poses.state_dim} dimensions (position, Euler angles, "
                f"gripper), but the policy's actions have {processor.action_dim} and those of the dataset "
                f"{poses.action_dim} (action_key={poses.action_key!r}). Use a policy of pose differences, or a world model "
                "of normalised actions."
            )
        self.processor = processor
        self.pose_key = poses.state_key
        self._poses = torch.from_numpy(poses.all_states())
        self._actions = poses.all_actions()
        episodes = poses.episodes
        self._episodes = {
            index: range(start, stop)
            for index, start, stop in zip(*(episodes[name].tolist() for name in ("index", "from", "to")), strict=True)
        }
        self._check_actions_move_poses(processor.chunk_size)

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

    def poses_of(self, samples: Sequence[Sample]) -> torch.Tensor:
        """
        The pose at each sample, float32 `(B, 7)`.

        Raises:
            ValueError: A sample that `poses` does not hold, or holds with another action.
        """
        rows = []
        for sample in samples:
            episode, frame = sample["episode_index"], sample["frame_index"]
            frames = self._episodes.get(episode, range(0))
            if frame >= len(frames) or not np.array_equal(self._actions[frames[frame]], sample["actions"][0]):
                raise ValueError(
                    f"`poses` does not hold frame {frame} of episode {episode} with the action that the states have there. "
                    "Open the dataset of the states once more, with the same action_key and episodes, and with the column "
                    "of the poses as state_key."
                )
            rows.append(frames[frame])
        return self._poses[rows]

    def _check_actions_move_poses(self, chunk_size: int) -> None:
        steps = min(chunk_size, max(map(len, self._episodes.values())) - 1)
        starts = torch.cat([torch.arange(frames.start, frames.stop - steps) for frames in self._episodes.values()])
        before, after = self._poses[starts].double(), self._poses[starts + steps].double()
        reached = before
        for step in range(steps):
            reached = integrate_pose(reached, torch.from_numpy(self._actions)[starts + step])
        error, still, moved = (
            pose_difference(*pair).abs() for pair in ((reached, after), (before, after), (before, reached))
        )
        for part, dims in POSE_PARTS.items():
            missed, way, intended = (each[:, dims].mean().item() for each in (error, still, moved))
            if intended > NEGLIGIBLE_MOTION and missed >= min(way, intended):
                raise ValueError(
                    f"The actions of the dataset do not move its poses (state_key={self.pose_key!r}): {steps} of them move "
                    f"the {part} by {intended:.3g} on average where the poses move by {way:.3g}, and end {missed:.3g} away. A "
                    "metric world model judges policies whose actions are pose differences per frame: metres, extrinsic "
                    "xyz Euler angles in radians, difference of gripper closedness. For other actions train a world model "
                    "with ClipConventions.of_policy."
                )


__all__ = ["MetricActions"]
