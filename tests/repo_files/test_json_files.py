# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Values that come from a JSON file are of the kind that the dataclass says."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from nora15_hf.repo_files.json_files import checked_fields


@dataclass(frozen=True)
class Described:
    name: str = "arm"
    count: int = 3
    rate: float = 10.0
    kind: Literal["a", "b"] | None = None
    rows: tuple[int, ...] = (1, 2)
    by_name: dict[str, dict[str, float]] | None = None
    flag: bool = False
    anything: Any = None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rate": 10},
        {"kind": "b", "by_name": {"x": {"y": 1}}, "flag": True},
        {"rows": (), "by_name": {}, "anything": [object()]},
    ],
)
def test_values_of_their_kind_are_accepted(changes):
    described = replace(Described(), **changes)
    assert checked_fields(described, "file") is described


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("name", None, "str"),
        ("name", ["arm"], "str"),
        ("count", 3.5, "int"),
        ("count", True, "int"),
        ("rate", "10", "float"),
        ("rate", True, "float"),
        ("kind", "c", "Literal"),
        ("kind", [], "Literal"),
        ("rows", [1, 2], "tuple"),
        ("rows", (1, "2"), "tuple"),
        ("by_name", {"x": 1.0}, "dict"),
        ("by_name", {"x": {"y": None}}, "dict"),
        ("flag", 1, "bool"),
    ],
)
def test_values_of_another_kind_are_named(name, value, expected):
    with pytest.raises(ValueError, match=rf"^file: {name} is .*, expected .*{expected}"):
        checked_fields(replace(Described(), **{name: value}), "file")
