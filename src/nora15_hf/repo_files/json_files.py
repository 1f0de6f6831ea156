# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""JSON files that hold an object: read and checked with errors that name the file, written whole or not at all."""

import dataclasses
import json
import os
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .written_whole import written_whole

Described = TypeVar("Described")


def read_json(file: str | os.PathLike) -> dict[str, Any]:
    """
    The object in a JSON file.

    Raises:
        ValueError: The file is not valid JSON, or holds something else than an object.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is a {type(content).__name__}, expected a JSON object.")
    return content


def write_json(file: str | os.PathLike, content: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with written_whole(file) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def checked_fields(described: Described, source: str) -> Described:
    """
    A dataclass whose values come from a JSON file, if each of them is of the kind that its annotation says.

    Args:
        described: An instance of a dataclass, of plain values in lists, tuples and dictionaries.
        source (`str`): How errors call it.

    Raises:
        ValueError: One is of another kind.
    """
    hints = get_type_hints(type(described))
    for field in dataclasses.fields(described):
        value, hint = getattr(described, field.name), hints[field.name]
        if not _fits(value, hint):
            expected = hint.__name__ if type(hint) is type else hint
            raise ValueError(f"{source}: {field.name} is {value!r}, expected {expected}.")
    return described


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    kind = origin or hint
    # A float without a fraction may have been written as an integer; true and false are no numbers.
    if not isinstance(value, (float, int) if kind is float else kind) or (type(value) is bool and kind is not bool):
        return False
    if isinstance(value, dict) and arguments:
        return all(_fits(each, arguments[1]) for each in value.values())
    return not (isinstance(value, list | tuple) and arguments) or all(_fits(each, arguments[0]) for each in value)


__all__ = ["checked_fields", "read_json", "write_json"]
