# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rotations as LIBERO's states and actions write them."""

import numpy as np


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """A unit quaternion (x, y, z, w) as axis times angle in rad, float64 `(3,)`, as OpenVLA's and NORA's data hold it.

    The angle is in [0, 2 pi]: a quaternion and its negative, which mean the same rotation, give different vectors.
    """
    *vector, scalar = np.asarray(quaternion, dtype=np.float64)
    scalar = np.clip(scalar, -1.0, 1.0)
    length = np.sqrt(1.0 - scalar * scalar)
    if np.isclose(length, 0.0):
        return np.zeros(3)
    return np.array(vector) * (2.0 * np.arccos(scalar) / length)


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """A matrix `(3, 3)` of less than half a turn as axis times angle in rad, `(3,)`."""
    doubled = rotation - rotation.T
    vector = np.array([doubled[2, 1], doubled[0, 2], doubled[1, 0]]) / 2
    length = np.linalg.norm(vector)
    return vector * (np.arctan2(length, (np.trace(rotation) - 1) / 2) / max(length, 1e-9))


def about_vertical(angle: float) -> np.ndarray:
    """The rotation about z by so many rad, `(3, 3)`."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


__all__ = ["about_vertical", "axis_angle", "rotation_vector"]
