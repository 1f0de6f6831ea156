# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How robots and simulators call what they send: which key is which of the policy's cameras, its state and its instruction."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..embodiment.embodiment import Camera


@dataclass(frozen=True, kw_only=True)
class RobotKeys:
    """
    Keys of a robot's messages. A key with slashes, as `"observation/image"`, is looked up as it is, then as a key inside
    another.

    Attributes:
        cameras (`Mapping[str, str]`):
            Key of a picture to the name of the policy's camera or to its role (`"external"`, `"wrist"`). By role a camera is
            found if there is one of it on both sides; the last part of a key that is the name of a camera is that camera.
        state (`tuple[str, ...]`): Keys of numbers that together are the state.
        instruction (`str`): Key of the instruction.
        actions (`Mapping[str, tuple[int, int]]`):
            Name to the first dimension and the one behind the last, for protocols that answer parts of an action by name.
        action_dim (`int`, *optional*): Width that the robot takes.
        horizon (`int`, *optional*): So many actions of a chunk are sent; default: all.

    Raises:
        ValueError: An attribute is of another kind; it is named.
    """

    cameras: Mapping[str, str]
    state: tuple[str, ...] = ()
    instruction: str = "prompt"
    actions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    action_dim: int | None = None
    horizon: int | None = None

    def __post_init__(self):
        expected = {
            "cameras": (
                _is_map_of_texts(self.cameras),
                "a map from the key of a picture to the name or the role of a camera",
            ),
            "state": (_is_tuple_of(str, self.state), "a list of keys"),
            "instruction": (isinstance(self.instruction, str), "a key"),
            "actions": (
                isinstance(self.actions, Mapping)
                and all(
                    _is_tuple_of(int, each) and len(each) == 2 and 0 <= each[0] < each[1]
                    for each in self.actions.values()
                ),
                "a map from names to [first dimension, the one behind the last]",
            ),
        } | {
            name: (value is None or (type(value) is int and value > 0), "a whole number of at least 1")
            for name, value in (("action_dim", self.action_dim), ("horizon", self.horizon))
        }
        for name, (is_right, what) in expected.items():
            if not is_right:
                raise ValueError(f"{name!r} is {getattr(self, name)!r}, expected {what}")

    def match_cameras(self, cameras: Mapping[str, Camera]) -> dict[str, str]:
        """
        For each camera of a policy, in its order, the key of its picture.

        Args:
            cameras (`Mapping[str, Camera]`): The policy's, by name.

        Raises:
            ValueError: A camera for which there is no key, or several.
        """
        named = {key: meaning for key, meaning in self.cameras.items() if meaning in cameras}
        last_parts = {key: key.split("/")[-1] for key in self.cameras if key not in named}
        named |= {key: name for key, name in last_parts.items() if name in cameras and name not in named.values()}
        found = {name: key for key, name in named.items()}
        if len(found) < len(named):
            raise ValueError(
                f"Several of the robot's pictures are the same camera of the policy: {named}. Keep one of them."
            )
        for name, camera in cameras.items():
            same_role = [other for other in cameras if other not in found and cameras[other].role == camera.role]
            keys = [key for key, role in self.cameras.items() if role == camera.role and key not in found.values()]
            if name not in found and len(keys) == len(same_role) == 1:
                found[name] = keys[0]
        missing = [
            f"{name!r} ({camera.role or 'role not known'})" for name, camera in cameras.items() if name not in found
        ]
        if missing:
            raise ValueError(
                f"It is not clear which images of the robot, {dict(self.cameras)}, are the policy's camera(s) "
                f"{', '.join(missing)}. Say so in a YAML file for --robot: cameras: {{KEY OF AN IMAGE: NAME OF A CAMERA}}."
            )
        return {name: found[name] for name in cameras}


def _is_map_of_texts(value: object) -> bool:
    return isinstance(value, Mapping) and _is_tuple_of(str, (*value, *value.values()))


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and all(type(each) is kind for each in value)


def _with_tuples(value: Any) -> Any:
    """What a YAML file holds, with tuples in place of lists."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _named(group: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{group}/{name}" for name in names)


_POSE = ("x", "y", "z", "roll", "pitch", "yaw")
_POSE_ACTIONS = {name: (number, number + 1) for number, name in enumerate((*_POSE, "gripper"))}

# As openpi's examples and the clients of its protocol send them.
_OPENPI = {
    "libero": RobotKeys(
        cameras={"observation/image": "external", "observation/wrist_image": "wrist"},
        state=("observation/state",),
        action_dim=7,
    ),
    # openpi's client takes chunks of exactly ten actions.
    "droid": RobotKeys(
        cameras={"observation/exterior_image_1_left": "external", "observation/wrist_image_left": "wrist"},
        state=("observation/joint_position", "observation/gripper_position"),
        action_dim=8,
        horizon=10,
    ),
    "aloha": RobotKeys(
        cameras={
            "images/cam_high": "external",
            "images/cam_low": "external",
            "images/cam_left_wrist": "wrist",
            "images/cam_right_wrist": "wrist",
        },
        state=("state",),
        action_dim=14,
    ),
    "bridge": RobotKeys(cameras={"observation/image": "external"}, state=("observation/state",), action_dim=7),
    "so101": RobotKeys(
        cameras={"observation/image": "external", "observation/wrist_image": "wrist"},
        state=("observation/state",),
        action_dim=6,
    ),
}
# By GR00T's embodiments; its messages are read as `video/NAME`, `state/NAME` and `language`.
_GR00T = {
    "libero": RobotKeys(
        cameras={"video/image": "external", "video/wrist_image": "wrist"},
        state=_named("state", (*_POSE, "gripper")),
        instruction="language",
        actions=_POSE_ACTIONS,
        action_dim=7,
    ),
    "droid": RobotKeys(
        cameras={"video/exterior_image_1_left": "external", "video/wrist_image_left": "wrist"},
        state=_named("state", ("joint_position", "gripper_position")),
        instruction="language",
        actions={"joint_position": (0, 7), "gripper_position": (7, 8)},
        action_dim=8,
    ),
    "bridge": RobotKeys(
        cameras={"video/image_0": "external"},
        state=_named("state", (*_POSE, "pad", "gripper")),
        instruction="language",
        actions=_POSE_ACTIONS,
        action_dim=7,
    ),
    "so101": RobotKeys(
        cameras={"video/front": "external", "video/wrist": "wrist"},
        state=_named("state", ("single_arm", "gripper")),
        instruction="language",
        actions={"single_arm": (0, 5), "gripper": (5, 6)},
        action_dim=6,
    ),
}
ROBOTS: dict[str, dict[str, RobotKeys]] = {"openpi": _OPENPI, "gr00t": _GR00T}
"""Presets by protocol and robot."""


def load_robot(name_or_file: str | Path, protocol: str = "openpi") -> RobotKeys:
    """
    A preset by its name, otherwise what a YAML file says.

    Args:
        name_or_file (`str` or `Path`): One of the robots of [`ROBOTS`], or a file with the attributes of [`RobotKeys`].
        protocol (`str`, *optional*, defaults to `"openpi"`): Whose presets.

    Raises:
        ValueError: No preset and no file, or a file with something else.
    """
    presets = ROBOTS[protocol]
    if name_or_file in presets:
        return presets[name_or_file]
    file = Path(name_or_file)
    if not file.is_file():
        raise ValueError(
            f"robot {str(name_or_file)!r} is neither a YAML file nor one of the robots with the {protocol} protocol: "
            f"{', '.join(presets)}."
        )
    names = [each.name for each in dataclasses.fields(RobotKeys)]
    try:
        return RobotKeys(**_with_tuples(yaml.safe_load(file.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} does not describe a robot ({' '.join(str(error).split())}). It is a YAML file with the keys "
            f"{', '.join(names)}, of which cameras maps the key of an image to the name of a camera."
        ) from error


__all__ = ["ROBOTS", "RobotKeys", "load_robot"]
