# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a control loop hands to the policy, checked key by key before anything is computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..nora15.image_processing_nora15 import as_uint8_tensor
from ..nora15.processing_nora15 import ImageLike

_EXPECTED = (
    'expected {"image": uint8 (height, width, 3), "instruction": str}, or "images" with a dictionary of such arrays by '
    "camera name, or a list of them, one per camera in the order of training"
)


def check_observation(
    observation: Mapping[str, Any], needs_state: bool = False
) -> tuple[list[ImageLike] | dict[str, ImageLike], str, np.ndarray | None]:
    """
    The cameras, the instruction and, where it is needed, the state of an observation that holds exactly these.

    Args:
        observation (`Mapping`):
            `"instruction"` (`str`) and either `"image"` (one camera) or `"images"` (a dictionary of them by name, or a
            list). An image is
            uint8 RGB `(height, width, 3)`, as NumPy array or torch tensor, or a PIL image. With `needs_state` also
            `"state"`, numbers of shape `(S,)` in physical units.
        needs_state (`bool`): The policy reads the state, or its actions are differences from it.

    Returns:
        `tuple[list or dict, str, np.ndarray or None]`: the images, at least one, the instruction and the state.

    Raises:
        ValueError: A key is missing, unknown or doubled, an image has the wrong shape, the instruction is empty.
        TypeError: A value has the wrong type or dtype; the key is named.
    """
    if not isinstance(observation, Mapping):
        raise TypeError(f"observation is a {type(observation).__name__}; {_EXPECTED}.")
    known = {"image", "images", "instruction"} | ({"state"} if needs_state else set())
    unknown = sorted(map(repr, set(observation) - known))
    if unknown:
        raise ValueError(
            f"observation has the unknown key(s) {', '.join(unknown)}, which the policy would ignore; {_EXPECTED}. Drop or "
            "rename them."
        )
    cameras = [key for key in ("image", "images") if key in observation]
    if len(cameras) == 2:
        raise ValueError(f"observation has both 'image' and 'images'; keep one of them; {_EXPECTED}.")
    missing = ([] if cameras else ["'image' (or 'images')"]) + (
        [] if "instruction" in observation else ["'instruction'"]
    )
    if needs_state and "state" not in observation:
        missing.append("'state', which this policy reads or from which its actions are differences")
    if missing:
        raise ValueError(f"observation lacks {' and '.join(missing)}; {_EXPECTED}.")

    instruction = observation["instruction"]
    if not isinstance(instruction, str):
        raise TypeError(f"observation['instruction'] is a {type(instruction).__name__}, expected a str.")
    if not instruction.strip():
        raise ValueError("observation['instruction'] is empty; the policy needs one, for example 'open the faucet'.")
    state = None
    if needs_state:
        try:
            state = np.asarray(observation["state"], dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"observation['state'] is a {type(observation['state']).__name__}, expected numbers of shape (S,) in the order of the "
                f"policy's state ({error})."
            ) from error
    if cameras == ["image"]:
        as_uint8_tensor(observation["image"], "observation['image']")
        return [observation["image"]], instruction, state
    images = observation["images"]
    if not isinstance(images, (list, tuple, Mapping)):
        raise TypeError(
            f"observation['images'] is a {type(images).__name__}, expected a list with one image per camera, or "
            "a dictionary by camera name. For a single camera use the key 'image'."
        )
    if not images:
        raise ValueError(f"observation['images'] is an empty {type(images).__name__}, expected at least one camera.")
    for name, image in images.items() if isinstance(images, Mapping) else enumerate(images):
        as_uint8_tensor(image, f"observation['images'][{name!r}]")
    return dict(images) if isinstance(images, Mapping) else list(images), instruction, state


__all__ = ["check_observation"]
