# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the hand of Meta-World's robot is on the picture, and how its actions move it there."""

from __future__ import annotations

import numpy as np

from ..simulation.renderers import Crop

__all__ = ["action_axes_on_picture", "hand_on_picture"]

# camera `corner4` of Meta-World 3.1.1: place in metres, axes (columns: right, up, backwards) and half its field of view
CAMERA_POSITION = np.array([0.75, 0.075, 0.7])
CAMERA_AXES = np.array(
    [
        [-0.54990133, 0.37620774, 0.74570521],
        [-0.83318276, -0.30954914, -0.4582421],
        [0.05843818, -0.87329666, 0.48367129],
    ]
)
SLOPE = np.tan(np.deg2rad(30.0))
METRES_PER_ACTION = 0.01


def hand_on_picture(positions: np.ndarray, image_size: int) -> np.ndarray:
    """
    Project places in the world onto the policy's picture.

    Args:
        positions (`np.ndarray`): float (..., 3), metres; the first three numbers of a Meta-World state are the hand's.
        image_size (`int`): side of the picture in pixels, which decides its crop.

    Returns:
        `np.ndarray`: float (..., 2), (right, down) in fractions of the sides.
    """
    crop = Crop.for_image_size(image_size)
    x, y, z = np.moveaxis((positions - CAMERA_POSITION) @ CAMERA_AXES, -1, 0)
    # the camera looks along -z, and the picture is turned by 180 degrees
    field = (np.stack([x / z, -y / z], axis=-1) / SLOPE + 1) / 2 * crop.field
    return (field - (crop.left, crop.top)) / crop.size


def action_axes_on_picture(position: np.ndarray, image_size: int) -> np.ndarray:
    """
    How far one unit of the actions' x, y and z moves the hand on the picture.

    Args:
        position (`np.ndarray`): float (3,), the hand in metres.
        image_size (`int`): side of the picture in pixels.

    Returns:
        `np.ndarray`: float (2, 3), (right, down) in fractions of the sides, for [`PreferenceExample`].
    """
    moved = hand_on_picture(position + METRES_PER_ACTION * np.eye(3), image_size)
    return (moved - hand_on_picture(position, image_size)).T
