# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of every command that opens a LeRobot dataset: which of its features are read."""

from dataclasses import dataclass, field, fields
from typing import Any

from .option_types import cameras

NO_STATE = "none"


@dataclass(kw_only=True)
class VectorFeatureArguments:
    """Which features hold the action and the state."""

    action_key: str | None = field(default=None, metadata={"help": "feature that holds the action (default: action)"})
    state_key: str | None = field(
        default=None,
        metadata={
            "help": f"feature that holds the state, or {NO_STATE} to read no state (default: observation.state if there "
            "is one)"
        },
    )

    def features(self) -> dict[str, Any]:
        """The features that were chosen, as arguments of [`~nora15_hf.data.LeRobotDataset`], which has defaults for others."""
        names = [each.name for each in fields(FeatureArguments)]
        chosen = {name: value for name, value in vars(self).items() if name in names and value is not None}
        return chosen | ({"state_key": None} if self.state_key == NO_STATE else {})


@dataclass(kw_only=True)
class FeatureArguments(VectorFeatureArguments):
    """The cameras, too."""

    # transformers' parser takes a union for an option's type only if its second member is `str`, the command line's text.
    image_keys: list[str] | str | dict[str, str] | None = field(
        default=None,
        metadata={
            "parse": cameras,
            "help": "comma-separated features of the cameras, in the order in which the model sees them, or pairs "
            "CAMERA=FEATURE if the dataset uses other names for the model's cameras (default: all)",
        },
    )


__all__ = ["FeatureArguments", "VectorFeatureArguments"]
