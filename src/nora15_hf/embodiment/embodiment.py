# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The contract of an artefact: the meaning of its images, states and actions."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

_PER_DIMENSION = ("action_names", "action_units", "delta_actions", "state_names", "state_units")
_COUNTS = ("height", "width", "action_dim", "state_dim", "chunk_size", "image_size")
_RATES = ("control_rate",)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """
    A view of the robot's workplace.

    Attributes:
        height (`int`, *optional*), width (`int`, *optional*): Of its pictures as they were recorded, in pixels.
        role (`str`, *optional*): Where it is mounted, for example `"external"` or `"wrist"`.
    """

    height: int | None = None
    width: int | None = None
    role: str | None = None

    def __post_init__(self):
        _check_kinds(self)


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """
    What two artefacts have to agree on wherever they meet; `None` is "not known". Units are physical.

    [`~nora15_hf.embodiment.compare`] tells how two of them differ, and
    [`~nora15_hf.embodiment.check_junction`] what follows from that.

    Attributes:
        cameras (`dict[str, Camera]`, *optional*):
            Name to camera, in the order in which a policy is shown them. The name of a dataset's feature
            `observation.images.top` is `"top"`, that of `observation.image` is `"image"`.
        action_dim (`int`, *optional*): Width A of an action.
        action_names (`tuple[str, ...]`, *optional*), action_units (`tuple[str, ...]`, *optional*): One per dimension, in order.
        delta_actions (`tuple[bool, ...]`, *optional*):
            Per dimension whether the recorded number is a change (of a pose, in one step) or an absolute target.
        gripper (`str`, *optional*): What the gripper's number means, for example `"1 = open, 0 = closed"`.
        state_dim (`int`, *optional*): Width S of the robot's state; 0 without one.
        state_names (`tuple[str, ...]`, *optional*), state_units (`tuple[str, ...]`, *optional*): One per dimension, in order.
        control_rate (`float`, *optional*): Actions per second.
        chunk_size (`int`, *optional*): Actions that a policy predicts at once, H.
        image_size (`int`, *optional*): Side of the square that pictures are resized to before a model sees them.
        normalization (`str`, *optional*):
            How actions are normalised: the mode, whether they are clipped, and which are taken relative to the state at the
            start of a chunk, as [`~nora15_hf.nora15.Nora15Processor.embodiment`] writes it.
        action_statistics (`str`, *optional*), state_statistics (`str`, *optional*):
            Fingerprints of the statistics that normalise actions and states.
        instruction_format (`str`, *optional*): `"lowercase"`, or `"as written"`.
    """

    cameras: Mapping[str, Camera] | None = None
    action_dim: int | None = None
    action_names: tuple[str, ...] | None = None
    action_units: tuple[str, ...] | None = None
    delta_actions: tuple[bool, ...] | None = None
    gripper: str | None = None
    state_dim: int | None = None
    state_names: tuple[str, ...] | None = None
    state_units: tuple[str, ...] | None = None
    control_rate: float | None = None
    chunk_size: int | None = None
    image_size: int | None = None
    normalization: str | None = None
    action_statistics: str | None = None
    state_statistics: str | None = None
    instruction_format: str | None = None

    def __post_init__(self):
        _check_kinds(self)
        for name in _PER_DIMENSION:
            value = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, tuple(value))
            of_names = name.endswith("_names")
            if of_names and len(set(value)) != len(value):
                raise ValueError(f"{name}={list(value)} names a dimension twice; each needs its own name.")
            kind = "state" if name.startswith("state") else "action"
            width = getattr(self, f"{kind}_dim")
            if width is None:
                object.__setattr__(self, f"{kind}_dim", len(value))
            elif len(value) != width:
                raise ValueError(
                    f"{name} has {len(value)} entries for {kind}s of {width} dimensions; expected one each."
                )

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain JSON values."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.cameras is not None:
            known["cameras"] = {
                name: {key: value for key, value in dataclasses.asdict(camera).items() if value is not None}
                for name, camera in self.cameras.items()
            }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in known.items()
            if value is not None
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str) -> "Embodiment":
        """
        The inverse of [`~Embodiment.to_dict`].

        Args:
            content (`Mapping[str, Any]`): Plain JSON values.
            source (`str`): How errors call it.

        Raises:
            ValueError: Something else than an object, or a key that only a newer version knows.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"{source} is a {type(content).__name__}, expected a JSON object.")
        unknown = sorted(content.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{source} holds the unknown items {unknown}. Update nora15_hf to read it.")
        try:
            values = dict(content)
            if "cameras" in values:
                values["cameras"] = {name: Camera(**camera) for name, camera in values["cameras"].items()}
            return cls(**values)
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{source} does not describe an embodiment: {error}") from error

    def completed(self, other: "Embodiment") -> "Embodiment":
        """A copy completed by the items that only `other` has. Dimensions must be in the same order; items of other widths are ignored."""
        for kind in ("action", "state"):
            widths = getattr(self, f"{kind}_dim"), getattr(other, f"{kind}_dim")
            if None not in widths and widths[0] != widths[1]:
                of_kind = [name for name in vars(other) if name.startswith(f"{kind}_") or name == f"delta_{kind}s"]
                other = dataclasses.replace(other, **dict.fromkeys(of_kind))
        cameras = self.cameras
        if cameras is not None:
            of_other = other.cameras or {}
            cameras = {name: _completed(camera, of_other.get(name, camera)) for name, camera in cameras.items()}
        return dataclasses.replace(_completed(self, other), cameras=other.cameras if cameras is None else cameras)


def _completed(first, second):
    """The first of two dataclasses of one kind with the values of the second where its own are None."""
    unknown = {name: vars(second)[name] for name, value in vars(first).items() if value is None}
    return dataclasses.replace(first, **unknown)


def _check_kinds(described: Camera | Embodiment) -> None:
    """Refuses values of another kind than their item's, which a comparison would take for something else, or stumble over."""
    for name, value in vars(described).items():
        if value is None:
            continue
        if name == "cameras":
            fits, expected = isinstance(value, Mapping), "a dictionary from name to Camera"
            fits = fits and all(isinstance(camera, Camera) for camera in value.values())
        elif name in _PER_DIMENSION:
            kind = bool if name == "delta_actions" else str
            expected = f"a list with a {kind.__name__} for each dimension"
            fits = isinstance(value, list | tuple) and all(isinstance(each, kind) for each in value)
        elif name in _COUNTS:
            fits, expected = type(value) is int and value >= 0, "a whole number"
        elif name in _RATES:
            fits, expected = isinstance(value, Real) and not isinstance(value, bool) and value > 0, "a number above 0"
        else:
            fits, expected = isinstance(value, str), "a text"
        if not fits:
            raise ValueError(f"{name} is {value!r}, expected {expected}.")


__all__ = ["Camera", "Embodiment"]
