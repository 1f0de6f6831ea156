# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What both renderers show: the camera, the crop of its image, and the appearance of a goal.

The camera `corner4` is the place to which LeRobot moves `corner2`. Its picture is turned by 180 degrees, because
Meta-World's corner cameras hang upside down, and of the turned square picture only the part is kept where the robot
works. Every site is hidden: Meta-World's goal dots differ in colour between tasks that share a scene and would tell the
policy its task without the instruction. A visible goal is drawn on request as a red ball.
"""

from dataclasses import dataclass

import numpy as np

from ..hand_projection import HandProjection

CAMERA = "corner4"
GOAL_COLOR = (0.9, 0.1, 0.1)
GOAL_RADIUS = 0.025  # metres; about 4 px across at 84 px

# The pose of `corner4` in Meta-World 3.1.1: place in metres, axes (columns: right, up, backwards) and the tangent of half
# its field of view. A test compares them with the simulator.
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


@dataclass(frozen=True)
class Crop:
    """The part of the turned square picture that is kept.

    Attributes:
        field (`int`): side of the whole square picture, pixels.
        left, top (`int`): upper left corner of the kept square, pixels.
        size (`int`): side of the kept square, pixels.
    """

    field: int
    left: int
    top: int
    size: int

    @classmethod
    def for_image_size(cls, image_size: int) -> "Crop":
        """84 px out of a field of 114 px, from (20, 7); scaled and rounded for other sizes.

        Raises:
            ValueError: `image_size` is smaller than 16 pixels.
        """
        if image_size < 16:
            raise ValueError(f"`image_size` is {image_size}; at least 16 pixels are needed to show a scene. Try 84.")
        scale = image_size / 84
        return cls(field=round(114 * scale), left=round(20 * scale), top=round(7 * scale), size=image_size)


def hand_projection(image_size: int) -> HandProjection:
    """How the hand is seen on a picture of this size, whose side in pixels decides the crop."""
    crop = Crop.for_image_size(image_size)
    # The camera looks along -z, and the picture is turned by 180 degrees.
    scale = crop.field / (2 * SLOPE)
    centre = (crop.field / 2 - crop.left, crop.field / 2 - crop.top)
    intrinsics = np.array([[scale, 0, centre[0]], [0, -scale, centre[1]], [0, 0, crop.size]]) / crop.size
    return HandProjection(intrinsics @ CAMERA_AXES.T, CAMERA_POSITION, METRES_PER_ACTION)


__all__ = ["CAMERA", "GOAL_COLOR", "GOAL_RADIUS", "Crop", "hand_projection"]
