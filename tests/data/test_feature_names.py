# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of dimensions in every form in which published datasets write them."""

import pytest

from nora15_hf.data.feature_names import feature_names

WRITTEN = {
    "list": (["x", "y", "gripper"], ["x", "y", "gripper"]),
    "nested list": ([["x", "y", "gripper"]], ["x", "y", "gripper"]),
    "positions": ({"gripper": 2, "x": 0, "y": 1}, ["x", "y", "gripper"]),
    "positions as doubles": ({"gripper": 2.0, "x": 0.0, "y": 1.0}, ["x", "y", "gripper"]),
    "by position": ({"2": "gripper", "0": "x", "1": "y"}, ["x", "y", "gripper"]),
    "groups of positions in the vector": ({"arm": {"x": 1, "y": 2}, "hand": {"gripper": 0}}, ["gripper", "x", "y"]),
    "one position twice": ({"x": 0, "y": 0, "gripper": 1}, None),
    "one group": ({"motors": ["x", "y", "gripper"]}, ["x", "y", "gripper"]),
    "groups": ({"arm": ["x", "y"], "hand": ["gripper"]}, ["x", "y", "gripper"]),
    "a group that is one name": ({"arm": ["x", "y"], "hand": "gripper"}, ["x", "y", "gripper"]),
    "groups of positions": ({"arm": {"y": 1, "x": 0}, "hand": {"gripper": 0}}, ["x", "y", "gripper"]),
    "the same names in two groups": ({"left": ["x", "y"], "right": ["x"]}, ["left.x", "y", "right.x"]),
    "numbers": ([0, 1, 2], ["0", "1", "2"]),
    "none": (None, None),
    "empty": ([], None),
    "too few": (["x", "y"], None),
    "one name twice": (["x", "y", "x"], None),
}


@pytest.mark.parametrize(("written", "expected"), WRITTEN.values(), ids=WRITTEN.keys())
def test_names_in_every_form(written, expected):
    assert feature_names({"dtype": "float32", "shape": [3], "names": written}) == expected


def test_description_without_names():
    assert feature_names({"dtype": "float32", "shape": (3,)}) is None
