# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From what LIBERO's cameras draw to what a policy is shown, as in the data that OpenVLA and NORA were trained on."""

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

RENDERED_SIZE = 256
JPEG_QUALITY = 95

PICTURE_RULES: dict[str, Any] = {
    "rendered_size": RENDERED_SIZE,
    "camera_turned_degrees": 180,
    "jpeg": f"quality {JPEG_QUALITY}, chroma at half size",
    "resize": "lanczos3, antialiased",
}


def shown_picture(rendered: np.ndarray, image_size: int) -> np.ndarray:
    """The picture for the policy.

    Turned by 180 degrees (the cameras' pictures are upside down), written as JPEG and read back, as all of the training
    data were, and resized.

    Args:
        rendered (`np.ndarray` of shape `(height, width, 3)`): uint8, OpenGL's first row is the lowest.
        image_size (`int`): side of the result, pixels.

    Returns:
        `np.ndarray`: uint8 `(image_size, image_size, 3)`.
    """
    stored = io.BytesIO()
    Image.fromarray(rendered[::-1, ::-1]).save(stored, "jpeg", quality=JPEG_QUALITY, subsampling="4:2:0")
    return resize_lanczos3(np.asarray(Image.open(stored)), image_size)


def resize_lanczos3(image: np.ndarray, size: int) -> np.ndarray:
    """`tf.image.resize(method="lanczos3", antialias=True)`, rounded and clipped, without torch or TensorFlow.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`): uint8.
        size (`int`): height and width of the result.
    """
    rows, columns = (_lanczos3_weights(length, size) for length in image.shape[:2])
    resized = np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float32), columns, optimize=True)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


@cache
def _lanczos3_weights(length: int, size: int) -> np.ndarray:
    """How much each of `length` pixels adds to each of `size`: float32 `(size, length)`, rows that sum to 1."""
    scale = max(length / size, 1.0)
    centres = (np.arange(size) + 0.5) * length / size
    distances = (np.arange(length) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(distances) < 3, np.sinc(distances) * np.sinc(distances / 3), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


__all__ = ["PICTURE_RULES", "RENDERED_SIZE", "resize_lanczos3", "shown_picture"]
