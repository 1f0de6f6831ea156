# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pose arithmetic of the metric (DROID) action convention: how an action moves the end effector."""

import torch


def _rotation_from_euler(angles: torch.Tensor) -> torch.Tensor:
    """Extrinsic xyz Euler angles (..., 3) in radians -> rotation matrices (..., 3, 3), R = Rz Ry Rx."""
    cos_x, cos_y, cos_z = angles.cos().unbind(-1)
    sin_x, sin_y, sin_z = angles.sin().unbind(-1)
    rows = [
        [cos_y * cos_z, sin_x * sin_y * cos_z - cos_x * sin_z, cos_x * sin_y * cos_z + sin_x * sin_z],
        [cos_y * sin_z, sin_x * sin_y * sin_z + cos_x * cos_z, cos_x * sin_y * sin_z - sin_x * cos_z],
        [-sin_y, sin_x * cos_y, cos_x * cos_y],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _euler_from_rotation(rotation: torch.Tensor) -> torch.Tensor:
    """Inverse of `_rotation_from_euler`; the middle angle lies in [-pi/2, pi/2]."""
    angle_x = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    angle_y = torch.atan2(-rotation[..., 2, 0], torch.hypot(rotation[..., 0, 0], rotation[..., 1, 0]))
    angle_z = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.stack([angle_x, angle_y, angle_z], dim=-1)


def integrate_pose(poses: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """
    The pose after an action in the metric convention (`facebookresearch/vjepa2`, `notebooks/utils/mpc_utils.py`):
    positions add, rotations compose from the left, the gripper adds and stays within [0, 1].

    Args:
        poses (`torch.Tensor` of shape `(..., 7)`):
            Position in metres, extrinsic xyz Euler angles in radians, gripper closedness in [0, 1].
        actions (`torch.Tensor` of shape `(..., 7)`):
            Differences of the same quantities over one step.

    Returns:
        `torch.Tensor` of shape `(..., 7)`, dtype of `poses`. Computed in float64: a rollout integrates many steps.
    """
    pose, action = poses.double(), actions.double()
    rotation = _rotation_from_euler(action[..., 3:6]) @ _rotation_from_euler(pose[..., 3:6])
    position = pose[..., :3] + action[..., :3]
    gripper = (pose[..., 6:] + action[..., 6:]).clamp(0, 1)
    return torch.cat([position, _euler_from_rotation(rotation), gripper], dim=-1).to(poses.dtype)


def pose_difference(poses: torch.Tensor, next_poses: torch.Tensor) -> torch.Tensor:
    """
    The action of the metric convention that leads from one pose to the next; the inverse of [`integrate_pose`].

    Args:
        poses, next_poses (`torch.Tensor` of shape `(..., 7)`): As in [`integrate_pose`].

    Returns:
        `torch.Tensor` of shape `(..., 7)`, dtype of `poses`, computed in float64.
    """
    pose, following = poses.double(), next_poses.double()
    rotation = _rotation_from_euler(following[..., 3:6]) @ _rotation_from_euler(pose[..., 3:6]).transpose(-1, -2)
    difference = following - pose
    return torch.cat([difference[..., :3], _euler_from_rotation(rotation), difference[..., 6:]], dim=-1).to(
        poses.dtype
    )


__all__ = ["integrate_pose", "pose_difference"]
