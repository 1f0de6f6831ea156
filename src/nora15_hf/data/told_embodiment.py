# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The part of a dataset's embodiment that its features cannot express."""

from collections.abc import Mapping
from typing import Any

from ..embodiment.comparison import RATE_TOLERANCE
from ..embodiment.embodiment import Embodiment
from .feature_names import feature_names
from .lerobot_layout import DEFAULT_ACTION_KEY, DEFAULT_STATE_KEY, INFO_PATH

# Item of the conventions that describes what features cannot express of the data's [`Embodiment`].
EMBODIMENT = "embodiment"


def told_embodiment(conventions: Mapping[str, Any], info: Mapping[str, Any], source: str) -> Embodiment:
    """
    The item `"embodiment"` of a dataset's conventions; its dimensions are those of the columns `action` and
    `observation.state`, in the recorded order.

    Args:
        conventions (`Mapping[str, Any]`): Of the dataset.
        info (`Mapping[str, Any]`): `features` and `fps`, as `meta/info.json` holds them.
        source (`str`): How errors call the dataset.

    Raises:
        ValueError: It describes no embodiment, or contradicts the features or the frame rate.
    """
    told = Embodiment.from_dict(conventions.get(EMBODIMENT, {}), f"{EMBODIMENT!r} in the conventions of {source}")
    found = []
    for kind, key in (("action", DEFAULT_ACTION_KEY), ("state", DEFAULT_STATE_KEY)):
        if key not in info["features"] or len(info["features"][key]["shape"]) != 1:
            continue
        width, names = info["features"][key]["shape"][0], feature_names(info["features"][key])
        told_width, told_names = getattr(told, f"{kind}_dim"), getattr(told, f"{kind}_names")
        if told_width not in (None, width):
            found.append(f"{kind}s of {told_width} dimensions, where {key!r} has {width}")
        elif None not in (told_names, names) and list(told_names) != list(names):
            found.append(f"{kind}_names {list(told_names)}, where {key!r} has {list(names)}")
    rate = told.control_rate
    if rate is not None and abs(rate - info["fps"]) > RATE_TOLERANCE * info["fps"]:
        found.append(f"control_rate {rate:g}, where fps is {info['fps']:g}")
    if found:
        raise ValueError(
            f"{EMBODIMENT!r} in the conventions of {source} contradicts its features: {'; '.join(found)}. Correct one of the two "
            f"in the recording script or in {INFO_PATH}."
        )
    return told


__all__ = ["EMBODIMENT", "told_embodiment"]
