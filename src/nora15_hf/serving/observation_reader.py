# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From a robot's message to what the policy is shown, checked key by key before anything is computed."""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from ..embodiment.embodiment import Camera, Embodiment
from ..simulation.environment import Observation
from .robots import RobotKeys
from .serving_error import ServingError, shown

logger = logging.getLogger(__name__)

MAX_INSTRUCTION_LENGTH = 4_096
# Of a float picture beyond [0, 1], as interpolation leaves it; smaller than half a level of uint8.
FLOAT_TOLERANCE = 1e-3


class ObservationReader:
    """
    Reads a robot's messages as observations of a policy. It remembers what it has said, and nothing else.

    Besides a robot's own keys a message may always use the policy's: `images` with a map from camera to picture, `state` and
    `prompt`; of a single camera also `image`.

    Args:
        contract ([`~nora15_hf.embodiment.Embodiment`]): The policy's.
        needs_state (`bool`): Whether the policy reads the state or counts actions from it. Otherwise it is not looked at.
        robot ([`RobotKeys`], *optional*): How the robot calls what it sends.
        default_prompt (`str`, *optional*): Instruction of messages without one.

    Raises:
        ValueError: The robot's pictures are not those of the policy, or it takes other actions.
    """

    def __init__(
        self,
        contract: Embodiment,
        *,
        needs_state: bool,
        robot: RobotKeys | None = None,
        default_prompt: str | None = None,
    ):
        self.contract = contract
        self.needs_state = needs_state
        self.default_prompt = default_prompt
        cameras = contract.cameras or {}
        self.own = RobotKeys(cameras={f"images/{name}": name for name in cameras}, state=("state",))
        self.robot = robot or self.own
        # Of a policy whose repo names no cameras, the robot's are taken as they are.
        self.picture_keys = self.robot.match_cameras(cameras) if cameras else {key: key for key in self.robot.cameras}
        """Camera to the key of its picture, in the policy's order."""
        if needs_state and not self.robot.state:
            raise ValueError(
                "This policy needs the robot's state. Name its keys in the YAML file for --robot: state: [KEY, ...]."
            )
        if self.robot.action_dim not in (None, contract.action_dim):
            raise ValueError(
                f"The robot takes actions of {self.robot.action_dim} dimensions, but the policy's have {contract.action_dim}. "
                "Serve a policy of this robot, or name the dataset_key that belongs to it."
            )
        beyond = [name for name, (_, stop) in self.robot.actions.items() if stop > contract.action_dim]
        if beyond:
            raise ValueError(
                f"The robot's {', '.join(map(repr, beyond))} of its actions {dict(self.robot.actions)} lie beyond the "
                f"{contract.action_dim} dimensions of the policy's."
            )
        if self.robot.horizon is not None and self.robot.horizon > contract.chunk_size:
            raise ValueError(
                f"The robot takes chunks of {self.robot.horizon} actions, but the policy's have {contract.chunk_size}."
            )
        self._said: set[str] = set()

    def read(self, message: Mapping[str, Any]) -> Observation:
        """
        An observation as the policy takes it.

        Args:
            message (`Mapping`):
                Pictures are `(height, width, 3)` or `(3, height, width)`, uint8 or float in [0, 1]; what belongs to the state
                are numbers `(S,)`, in physical units. Other keys are left out, which is said once; a picture of a camera that
                is not known is refused.

        Returns:
            [`~nora15_hf.simulation.environment.Observation`] with the policy's cameras in its order.

        Raises:
            ServingError: Something is missing or not what it should be; the key is named.
        """
        keys, paths = self.robot, self.picture_keys
        images = message.get("images")
        if isinstance(images, Mapping) and not (self.contract.cameras or {}).keys() - images.keys():
            keys, paths = self.own, {name: f"images/{name}" for name in self.contract.cameras or images}
        elif "image" in message and len(self.contract.cameras or ("image",)) == 1:
            keys, paths = self.own, dict.fromkeys(self.contract.cameras or ("image",), "image")
        pictures = {name: _find(message, path) for name, path in paths.items()}
        missing = [paths[name] for name, picture in pictures.items() if picture is None]
        if missing or not paths:
            raise ServingError(
                f"The observation lacks {', '.join(map(repr, missing)) or 'its images'}. {self._expected(keys, paths)} "
                f"Found: {_listed(path for path, _ in _leaves(message))}."
            )
        self._look_at_the_rest(message, keys, paths)
        return Observation(
            {name: self._picture(picture, name, paths[name]) for name, picture in pictures.items()},
            self._state(message, keys) if self.needs_state else None,
            self._instruction(message, keys),
        )

    def _expected(self, keys: RobotKeys, paths: Mapping[str, str]) -> str:
        state = [*keys.state] if self.needs_state else []
        pictures = [f"{path!r} (camera {name!r})" for name, path in paths.items()] or ["'images'"]
        return f"Expected: {', '.join([*pictures, *map(repr, state), repr(keys.instruction)])}."

    def _look_at_the_rest(self, message: Mapping[str, Any], keys: RobotKeys, paths: Mapping[str, str]) -> None:
        """Refuses images of unknown cameras, and warns once about other ignored keys."""
        for path, value in _leaves(message):
            if path in paths.values() or path in keys.state or path == keys.instruction:
                continue
            if isinstance(value, np.ndarray) and value.ndim == 3 and path not in keys.cameras:
                raise ServingError(
                    f"{path!r} is an image of a camera that the policy was not trained on. {self._expected(keys, paths)}"
                )
            self._say_once(path, f"{path!r} of the observations is left out: the policy does not use it.")

    def _picture(self, picture: Any, name: str, path: str) -> np.ndarray:
        picture = as_picture(picture, path)
        camera = (self.contract.cameras or {}).get(name, Camera())
        recorded = (camera.height, camera.width)
        if None not in recorded and recorded != picture.shape[:2]:
            self._say_once(
                f"size of {path}",
                f"{path!r} has {picture.shape[1]} x {picture.shape[0]} pixels, {name!r} had {recorded[1]} x {recorded[0]} in "
                "training. It is resized as in training.",
            )
        return picture

    def _state(self, message: Mapping[str, Any], keys: RobotKeys) -> np.ndarray:
        state = np.concatenate([_numbers(_find(message, path), path) for path in keys.state])
        width = self.contract.state_dim
        if width and len(state) != width:
            raise ServingError(
                f"{' and '.join(map(repr, keys.state))} hold {len(state)} number(s), expected {width}"
                f"{': ' + ', '.join(self.contract.state_names) if self.contract.state_names else ''}."
            )
        return state

    def _instruction(self, message: Mapping[str, Any], keys: RobotKeys) -> str:
        instruction = _find(message, keys.instruction)
        if instruction is None:
            instruction = self.default_prompt
        if instruction is None:
            raise ServingError(
                f"{keys.instruction!r} is missing: the policy needs an instruction. Send it, or start the server with "
                "--default-prompt."
            )
        if not isinstance(instruction, str) or not instruction.strip():
            raise ServingError(f"{keys.instruction!r} is {shown(instruction)}, expected a text.")
        if len(instruction) > MAX_INSTRUCTION_LENGTH:
            raise ServingError(
                f"{keys.instruction!r} has {len(instruction)} characters, at most {MAX_INSTRUCTION_LENGTH} are accepted."
            )
        return instruction

    def _say_once(self, about: str, sentence: str) -> None:
        # Bounded, since clients choose the names.
        if about not in self._said and len(self._said) < 100:
            self._said.add(about)
            logger.warning(f"{sentence} This warning is shown once.")


def as_picture(value: Any, key: str) -> np.ndarray:
    """
    A picture as uint8 `(height, width, 3)`.

    Args:
        value (`np.ndarray`): uint8, or float in [0, 1]; `(height, width, 3)` or `(3, height, width)`.
        key (`str`): How errors call it.

    Raises:
        ServingError: Anything else.
    """
    if not isinstance(value, np.ndarray):
        raise ServingError(f"{key!r} is a {type(value).__name__}, expected an array with an image.")
    if value.ndim != 3 or 3 not in (value.shape[0], value.shape[2]) or value.size == 0:
        raise ServingError(f"{key!r} has shape {value.shape}, expected (height, width, 3) or (3, height, width).")
    if value.shape[2] != 3:
        value = value.transpose(1, 2, 0)
    if value.dtype == np.uint8:
        return value
    if value.dtype.kind != "f":
        raise ServingError(f"{key!r} has dtype {value.dtype}, expected uint8, or floats in [0, 1].")
    # NaN makes both comparisons false.
    low, high = value.min(), value.max()
    if not (low >= -FLOAT_TOLERANCE and high <= 1 + FLOAT_TOLERANCE):
        raise ServingError(f"{key!r} holds values from {low:g} to {high:g}, expected floats in [0, 1], or uint8.")
    return np.rint(value * 255.0).astype(np.uint8)


def _numbers(value: Any, key: str) -> np.ndarray:
    """Part of a state, float32 `(S,)`."""
    if value is None:
        raise ServingError(
            f"{key!r} is missing: this policy reads the robot's state, or its actions are differences from it."
        )
    try:
        array = np.atleast_1d(np.asarray(value))
    except ValueError:
        array = np.empty((0, 0))
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ServingError(
            f"{key!r} is a {type(value).__name__} of shape {array.shape} and dtype {array.dtype}, expected numbers (S,)."
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ServingError(f"{key!r} holds NaN or infinity, and so would every action.")
    return array


def _find(message: Mapping[str, Any], path: str) -> Any:
    """The value of a key or of a nested key; `None` if there is none."""
    if path in message:
        return message[path]
    first, _, rest = path.partition("/")
    inside = message.get(first)
    return _find(inside, rest) if rest and isinstance(inside, Mapping) else None


def _leaves(message: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in message.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _listed(names: Iterator[str]) -> str:
    return ", ".join(repr(name[:80]) for name in islice(names, 20)) or "nothing"


__all__ = ["ObservationReader", "as_picture"]
