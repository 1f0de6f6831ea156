# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames of an episode as an animated WebP inside a data URI."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

__all__ = ["animated_data_uri", "still_data_uri"]


def animated_data_uri(frames: np.ndarray, frames_per_second: float = 10.0) -> str:
    """
    Encode frames as an endlessly looping animation that rests one second on its last frame.

    Args:
        frames (`np.ndarray`): uint8 (F, height, width, 3).
        frames_per_second (`float`): speed of the animation.

    Returns:
        `str`: `data:image/webp;base64,...`.
    """
    durations = [round(1000 / frames_per_second)] * (len(frames) - 1) + [1000]
    first, *rest = (Image.fromarray(frame) for frame in frames)
    return _data_uri(first, save_all=True, append_images=rest, duration=durations, loop=0, quality=75, method=4)


def still_data_uri(frame: np.ndarray) -> str:
    """
    Encode one frame, uint8 (height, width, 3), for readers who have asked their system for less motion.

    Returns:
        `str`: `data:image/webp;base64,...`.
    """
    return _data_uri(Image.fromarray(frame), quality=75, method=4)


def _data_uri(image: Image.Image, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
