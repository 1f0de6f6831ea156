# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Types of options beyond Python's own, as argparse knows types: a function of the text that returns the value, or says why
there is none. A wrong value then ends the command before anything is loaded, also when it stands in a YAML file.
"""

import json
import os
from argparse import Action, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cards.card_info import check_repo_id
from ..simulation.environment_table import find_environment


def _number(kind: type, expected: str, is_valid: Callable) -> Callable:
    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_valid(value):
            raise ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return read


at_least_two = _number(int, "a whole number of at least 2", lambda value: value >= 2)
positive = _number(int, "a whole number of at least 1", lambda value: value >= 1)
non_negative = _number(int, "a whole number of at least 0", lambda value: value >= 0)
seed = _number(int, "a seed: a whole number from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32)
positive_number = _number(float, "a number above 0", lambda value: 0 < value < float("inf"))
non_negative_number = _number(float, "a number of at least 0", lambda value: 0 <= value < float("inf"))
share = _number(float, "a share between 0 and 1, both excluded", lambda value: 0 < value < 1)
port = _number(int, "a port: a whole number from 0 to 65535", lambda value: 0 <= value <= 65535)


def comma_separated(text: str) -> list[str]:
    """`"a, b"` to `["a", "b"]`."""
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise ArgumentTypeError(f"{text!r} is not a comma-separated list of names")
    return parts


def cameras(text: str) -> list[str] | dict[str, str]:
    """`"image, wrist"` to `["image", "wrist"]`, `"top=image, wrist=wrist_image"` to `{"top": "image", ...}`."""
    parts = [[side.strip() for side in part.split("=")] for part in text.split(",")]
    lengths = {len(part) for part in parts}
    if lengths not in ({1}, {2}) or not all(side for part in parts for side in part):
        raise ArgumentTypeError(
            f"{text!r} is not a list of comma-separated features, for example observation.images.top, nor one of pairs "
            "CAMERA=FEATURE"
        )
    for side in zip(*parts, strict=True):
        if len(set(side)) < len(side):
            raise ArgumentTypeError(f"{text!r} names {max(side, key=side.count)!r} twice")
    return [feature for (feature,) in parts] if lengths == {1} else dict(parts)


def indices(text: str) -> list[int]:
    """`"0, 5"` to `[0, 5]`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ArgumentTypeError(f"{text!r} is not a list of comma-separated numbers, for example 1,2,3")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise ArgumentTypeError(f"{text!r} names {max(numbers, key=numbers.count)} twice")
    return numbers


def weights(text: str) -> dict[str, float]:
    """`"a=1, b=0.5"` to `{"a": 1.0, "b": 0.5}`."""
    parts = [[side.strip() for side in part.partition("=")[::2]] for part in text.split(",")]
    try:
        return {name: non_negative_number(number) for name, number in parts}
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{text!r} is not a list of NAME=WEIGHT, for example a=1,b=0.5: {error}") from error


def flags(text: str) -> list[bool]:
    """`"1,1,0"` to `[True, True, False]`."""
    parts = [part.strip() for part in text.split(",")]
    if set(parts) - {"0", "1"}:
        raise ArgumentTypeError(f"{text!r} is not a list of comma-separated 0 and 1, for example 1,1,1,0")
    return [part == "1" for part in parts]


def hub_id(text: str) -> str:
    """Name of a repo on the Hub."""
    try:
        return check_repo_id("repo_id", text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a Hub id such as 'policy-sft' or 'owner/policy-sft'") from error


def namespace(text: str) -> str:
    """User or organisation on the Hub."""
    if "/" in text:
        raise ArgumentTypeError(f"{text!r} is not a user or an organisation on the Hub")
    hub_id(f"{text}/repo")
    return text


def folder_or_hub_id(text: str) -> str:
    """Where a model or dataset is read from; whether the Hub has it shows when it is read."""
    # An empty text is no name, while an empty path is the working folder.
    if text and Path(text).is_dir():
        return text
    if text and Path(text).exists():
        raise ArgumentTypeError(f"{text!r} is a file, expected a folder or a Hub id")
    try:
        return check_repo_id("repo_id", text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is neither an existing folder nor a Hub id") from error


def policy(text: str) -> str:
    """Where a policy is: as [`folder_or_hub_id`], or the address of a policy server."""
    return text if is_server(text) else folder_or_hub_id(text)


def is_server(text: str) -> bool:
    """Whether it is the address of a policy server, not a repo."""
    return text.startswith(("ws://", "wss://"))


def environment_setting(text: str) -> dict[str, Any]:
    """`"image_size=84"` to `{"image_size": 84}`: the value as JSON, or a text where it is none."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE, for example image_size=84")
    try:
        return {name: json.loads(value)}
    except ValueError:
        return {name: value}


class MergedSettings(Action):
    """An option that may be given several times, each time with a dictionary."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = vars(namespace)[self.dest]
        # In place of the default or the YAML file on the first time.
        given = before if isinstance(before, dict) else {}
        setattr(namespace, self.dest, given | values)


def path_or_hub_id(text: str) -> str:
    """As [`folder_or_hub_id`], or a file."""
    return text if Path(text).is_file() else folder_or_hub_id(text)


def existing_folder(text: str) -> Path:
    """A folder that is read."""
    if not text or not Path(text).is_dir():
        raise ArgumentTypeError(f"{text!r} is not an existing folder")
    return Path(text)


def existing_file(text: str) -> Path:
    """A file that is read."""
    if not Path(text).is_file():
        raise ArgumentTypeError(f"{text!r} is not an existing file")
    return Path(text)


def existing_path(text: str) -> Path:
    """A file or folder that is read."""
    if not text or not Path(text).exists():
        raise ArgumentTypeError(f"{text!r} is neither an existing file nor an existing folder")
    return Path(text)


def environment(text: str) -> str:
    """Name of an environment of the table."""
    try:
        find_environment(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error).removesuffix(".")) from error
    return text


def environment_or_none(text: str) -> str:
    """As [`environment`], or `"none"`."""
    return text if text == "none" else environment(text)


def output_folder(text: str) -> Path:
    """A folder to write to, which is made if it is missing."""
    path = _output(text)
    if path.exists() and not path.is_dir():
        raise ArgumentTypeError(f"{text!r} is a file, expected a folder to write to")
    return path


def new_folder(text: str) -> Path:
    """A folder to write to that is absent or empty."""
    path = output_folder(text)
    if path.is_dir() and any(path.iterdir()):
        raise ArgumentTypeError(f"{text!r} is not empty: choose another folder, or remove it first")
    return path


def output_file(text: str) -> Path:
    """A file to write, which may exist; its folder is made if it is missing."""
    path = _output(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{text!r} is a folder, expected a file to write")
    return path


def _output(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("'' is not a path to write to")
    path = Path(text)
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if there != path.absolute() and not there.is_dir():
        raise ArgumentTypeError(f"{text!r} cannot be created: {str(there)!r} is a file")
    if not os.access(there, os.W_OK):
        raise ArgumentTypeError(f"{text!r} cannot be written: no permission for {str(there)!r}")
    return path


__all__ = [
    "MergedSettings",
    "cameras",
    "comma_separated",
    "environment",
    "environment_or_none",
    "environment_setting",
    "existing_file",
    "existing_folder",
    "existing_path",
    "flags",
    "folder_or_hub_id",
    "hub_id",
    "indices",
    "is_server",
    "namespace",
    "new_folder",
    "non_negative",
    "non_negative_number",
    "output_file",
    "output_folder",
    "path_or_hub_id",
    "policy",
    "port",
    "positive",
    "positive_number",
    "seed",
    "share",
    "weights",
]
