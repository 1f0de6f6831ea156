# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a control loop hands to the policy, checked key by key before anything is computed."""

from collections.abc import Mapping
from typing import Any

from ..nora15.image_processing_nora15 import as_uint8_tensor
from ..nora15.processing_nora15 import ImageLike

_EXPECTED = (
    'expected {"image": uint8 (height, width, 3), "instruction": str}, or "images" with a list of such arrays, one per '
    "camera in the order of training"
)


def check_observation(observation: Mapping[str, Any]) -> tuple[list[ImageLike], str]:
    """
    The cameras and the instruction of an observation that holds exactly these.

    Args:
        observation (`Mapping`):
            `"instruction"` (`str`) and either `"image"` (one camera) or `"images"` (a list of them). An image is
            uint8 RGB `(height, width, 3)`, as NumPy array or torch tensor, or a PIL image.

    Returns:
        `tuple[list, str]`: the images, at least one, and the instruction.

    Raises:
        ValueError: A key is missing, unknown or doubled, an image has the wrong shape, the instruction is empty.
        TypeError: A value has the wrong type or dtype; the key is named.
    """
    if not isinstance(observation, Mapping):
        raise TypeError(f"observation is a {type(observation).__name__}; {_EXPECTED}.")
    unknown = sorted(map(repr, set(observation) - {"image", "images", "instruction"}))
    if unknown:
        raise ValueError(
            f"observation has the unknown key(s) {', '.join(unknown)}, which the policy would ignore; {_EXPECTED}. Drop or "
            "rename them."
        )
    cameras = [key for key in ("image", "images") if key in observation]
    if len(cameras) == 2:
        raise ValueError(f"observation has both 'image' and 'images', keep one of them; {_EXPECTED}.")
    missing = ([] if cameras else ["'image' (or 'images')"]) + (
        [] if "instruction" in observation else ["'instruction'"]
    )
    if missing:
        raise ValueError(f"observation lacks {' and '.join(missing)}; {_EXPECTED}.")

    instruction = observation["instruction"]
    if not isinstance(instruction, str):
        raise TypeError(f"observation['instruction'] is a {type(instruction).__name__}, expected a str.")
    if not instruction.strip():
        raise ValueError("observation['instruction'] is empty; the policy needs one, for example 'open the faucet'.")
    if cameras == ["image"]:
        as_uint8_tensor(observation["image"], "observation['image']")
        return [observation["image"]], instruction
    images = observation["images"]
    if not isinstance(images, (list, tuple)):
        raise TypeError(
            f"observation['images'] is a {type(images).__name__}, expected a list with one image per camera. For a single "
            "camera use the key 'image'."
        )
    if not images:
        raise ValueError("observation['images'] is an empty list, expected at least one camera.")
    for number, image in enumerate(images):
        as_uint8_tensor(image, f"observation['images'][{number}]")
    return list(images), instruction


__all__ = ["check_observation"]
