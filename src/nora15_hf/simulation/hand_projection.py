# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Where a robot's hand is on a camera's picture, and how its actions move it there."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HandProjection:
    """A pinhole camera that shows a hand, whose position is the state's first three numbers in metres.

    Attributes:
        matrix (`np.ndarray` of shape `(3, 3)`): from metres relative to the camera to homogeneous picture coordinates
            (right, down, depth), in fractions of the picture's sides.
        camera_position (`np.ndarray` of shape `(3,)`): metres.
        metres_per_action (`float`): how far one unit of the first three actions moves the hand along x, y and z.
    """

    matrix: np.ndarray
    camera_position: np.ndarray
    metres_per_action: float

    def on_picture(self, positions: np.ndarray) -> np.ndarray:
        """Places in the world, `(..., 3)` in metres, as (right, down) in fractions of the picture's sides, `(..., 2)`."""
        projected = (positions - self.camera_position) @ self.matrix.T
        return projected[..., :2] / projected[..., 2:]

    def action_axes(self, position: np.ndarray) -> np.ndarray:
        """How far one unit of the actions' x, y and z moves the hand at `position` `(3,)` on the picture: `(2, 3)`."""
        moved = self.on_picture(position + self.metres_per_action * np.eye(3))
        return (moved - self.on_picture(position)).T


__all__ = ["HandProjection"]
