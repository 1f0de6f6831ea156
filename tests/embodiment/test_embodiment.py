# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The contract by itself: written down, read back, and compared item by item at every junction."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nora15_hf.actions import ActionStatistics
from nora15_hf.embodiment import Camera, Embodiment, EmbodimentError, check_junction, compare
from nora15_hf.embodiment.comparison import ITEMS, Agreement, differing_ranges
from nora15_hf.embodiment.junctions import FINE_TUNING, JUNCTIONS, Consequence, Junction

ARM = Embodiment(
    cameras={
        "top": Camera(height=96, width=128, role="external"),
        "wrist": Camera(height=96, width=128, role="wrist"),
    },
    action_names=("x", "y", "gripper"),
    action_units=("m", "m", "1"),
    delta_actions=(True, True, False),
    gripper="1 = open, 0 = closed",
    state_names=("x", "y"),
    state_units=("m", "m"),
    control_rate=10.0,
    chunk_size=5,
    image_size=224,
    normalization="q01_q99",
    action_statistics="a",
    state_statistics="s",
    instruction_format="as written",
)
# Another value of each item, with everything that has to change with it.
DIFFERENT = {
    "cameras": {"cameras": {"top": ARM.cameras["top"], "side": Camera(height=96, width=128)}},
    "camera_roles": {"cameras": {**ARM.cameras, "wrist": Camera(height=96, width=128, role="external")}},
    "picture_shapes": {"cameras": {**ARM.cameras, "top": Camera(height=96, width=96, role="external")}},
    "action_dim": {"action_dim": 4, "action_names": None, "action_units": None, "delta_actions": None},
    "action_names": {"action_names": ("x", "z", "gripper")},
    "action_units": {"action_units": ("cm", "cm", "1")},
    "delta_actions": {"delta_actions": (False, False, False)},
    "gripper": {"gripper": "1 = closed, 0 = open"},
    "state_dim": {"state_dim": 3, "state_names": None, "state_units": None},
    "state_names": {"state_names": ("x", "z")},
    "state_units": {"state_units": ("cm", "cm")},
    "control_rate": {"control_rate": 20.0},
    "chunk_size": {"chunk_size": 8},
    "image_size": {"image_size": 84},
    "normalization": {"normalization": "min_max"},
    "action_statistics": {"action_statistics": "b"},
    "state_statistics": {"state_statistics": "t"},
    "instruction_format": {"instruction_format": "lowercase"},
}
REORDERED = {
    "cameras": {"cameras": dict(reversed(ARM.cameras.items()))},
    "action_names": {
        "action_names": ("gripper", "x", "y"),
        "action_units": ("1", "m", "m"),
        "delta_actions": (False, True, True),
    },
    "state_names": {"state_names": ("y", "x")},
}
UNKNOWN = {name: {name: None} for name in ITEMS if name not in ("camera_roles", "picture_shapes")} | {
    "camera_roles": {"cameras": {name: replace(camera, role=None) for name, camera in ARM.cameras.items()}},
    "picture_shapes": {"cameras": {name: replace(camera, width=None) for name, camera in ARM.cameras.items()}},
    "action_dim": {"action_dim": None, "action_names": None, "action_units": None, "delta_actions": None},
    "state_dim": {"state_dim": None, "state_names": None, "state_units": None},
}
CHANGES = {Agreement.DIFFERENT: DIFFERENT, Agreement.REORDERED: REORDERED, Agreement.UNKNOWN: UNKNOWN}


def agreements(first: Embodiment, second: Embodiment) -> dict[str, Agreement]:
    return {item.name: item.agreement for item in compare(first, second)}


@pytest.mark.parametrize(
    ("agreement", "item"), [(agreement, item) for agreement, changes in CHANGES.items() for item in changes]
)
def test_a_change_is_seen_in_its_item(agreement, item):
    found = agreements(ARM, replace(ARM, **CHANGES[agreement][item]))
    assert found.get(item, Agreement.UNKNOWN) is agreement
    also = {
        "action_dim": {"action_names", "action_units", "delta_actions"},
        "state_dim": {"state_names", "state_units"},
    }
    also["cameras"] = {"camera_roles", "picture_shapes"}
    others = {name: value for name, value in found.items() if name != item and name not in also.get(item, ())}
    assert set(others.values()) == {Agreement.EQUAL}


@pytest.mark.parametrize("junction", JUNCTIONS, ids=lambda junction: junction.name)
def test_what_follows_at_every_junction(junction: Junction, caplog):
    """The matrix: every junction with every item, the same, reordered, different, and not known."""
    caplog.set_level(logging.INFO, "nora15_hf")
    assert check_junction(junction, ARM, ARM, names=("policy", "other")) == []
    assert caplog.records == []
    for place, agreement in enumerate((Agreement.REORDERED, Agreement.DIFFERENT, Agreement.UNKNOWN)):
        for item, change in CHANGES[agreement].items():
            caplog.clear()
            other = replace(ARM, **change)
            consequence = junction.items[item][place] if item in junction.items else None
            label = item.replace("_", " ").replace(" dim", " dimension")
            if consequence is Consequence.REFUSE:
                with pytest.raises(EmbodimentError, match=f"^Policy and other do not agree: .*{label}") as error:
                    check_junction(junction, ARM, other, names=("policy", "other"), arranged=True)
                assert junction.remedy in str(error.value)
                continue
            warnings = check_junction(junction, ARM, other, names=("policy", "other"), arranged=True)
            said = [record.levelno for record in caplog.records if label in record.message]
            expected = {Consequence.WARN: [logging.WARNING], None: []}.get(consequence, [logging.INFO])
            assert (item, said) == (item, expected)
            assert any(label in warning for warning in warnings) == (consequence is Consequence.WARN)
            if consequence is Consequence.ARRANGE:
                with pytest.raises(EmbodimentError, match=f"{label} in another order"):
                    check_junction(junction, ARM, other, names=("policy", "other"))


def test_everything_that_differs_stands_in_one_error():
    other = replace(ARM, gripper="-1 = open", control_rate=30.0)
    with pytest.raises(EmbodimentError) as error:
        check_junction(JUNCTIONS[1], ARM, other, names=("policy", "dataset"), found=["crop: policy 3, dataset 4"])
    message = str(error.value)
    for part in ("crop: policy 3, dataset 4", "gripper: policy '1 = open, 0 = closed', dataset '-1 = open'", "10.0"):
        assert part in message


def test_more_cameras_than_needed_are_left_out():
    more = replace(ARM, cameras={"side": Camera(), **ARM.cameras})
    assert agreements(ARM, more)["cameras"] is Agreement.MORE
    assert agreements(more, ARM)["cameras"] is Agreement.DIFFERENT
    (warning,) = check_junction(FINE_TUNING, ARM, more, names=("policy", "dataset"), arranged=True)
    assert (
        warning
        == "cameras: policy ['top', 'wrist'], dataset ['side', 'top', 'wrist'], of which the others are ignored"
    )
    with pytest.raises(EmbodimentError, match="cameras: "):
        check_junction(FINE_TUNING, ARM, more, names=("policy", "dataset"))


@pytest.mark.parametrize(("rate", "agreement"), [(10.05, Agreement.EQUAL), (10.2, Agreement.DIFFERENT)])
def test_rates_are_compared_as_people_write_them(rate, agreement):
    assert agreements(ARM, replace(ARM, control_rate=rate))["control_rate"] is agreement


names = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=5, unique=True)


@settings(deadline=None)
@given(cameras=names, actions=names, order=st.randoms(use_true_random=False), rate=st.floats(1, 1e3))
def test_written_down_and_read_back(cameras, actions, order, rate):
    made = Embodiment(
        cameras={name: Camera(height=3, role="wrist") for name in cameras},
        action_names=actions,
        delta_actions=[name > "m" for name in actions],
        control_rate=rate,
    )
    assert Embodiment.from_dict(made.to_dict(), "it") == made
    shuffled = order.sample(actions, len(actions))
    other = replace(made, action_names=shuffled, delta_actions=[name > "m" for name in shuffled])
    found = agreements(made, other)
    assert found["delta_actions"] is Agreement.EQUAL
    assert found["action_names"] is (Agreement.EQUAL if shuffled == actions else Agreement.REORDERED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it is a list, expected a JSON object"),
        ({"colour": "red"}, r"it holds the unknown items \['colour'\]. Update nora15_hf"),
        ({"cameras": {"top": {"lens": 3}}}, "it does not describe an embodiment: .*lens"),
        ({"cameras": ["top"]}, "it does not describe an embodiment"),
        ({"action_names": ["x", "x"]}, "names a dimension twice"),
        ({"action_dim": 3, "action_names": ["x"]}, "action_names has 1 entries for actions of 3 dimensions"),
        ({"action_units": "rad"}, "action_units is 'rad', expected a list with a str for each dimension"),
        ({"action_names": ["x", 1]}, r"action_names is \['x', 1\], expected a list with a str"),
        ({"delta_actions": True}, "delta_actions is True, expected a list with a bool for each dimension"),
        ({"delta_actions": ["yes", "no"]}, "expected a list with a bool"),
        ({"control_rate": "10"}, "control_rate is '10', expected a number above 0"),
        ({"control_rate": 0}, "control_rate is 0, expected a number above 0"),
        ({"action_dim": 2.5}, "action_dim is 2.5, expected a whole number"),
        ({"gripper": 1}, "gripper is 1, expected a text"),
        ({"cameras": {"top": {"width": "84"}}}, "width is '84', expected a whole number"),
        ({"cameras": {"top": {"role": 3}}}, "role is 3, expected a text"),
    ],
)
def test_what_is_no_embodiment(content, message):
    with pytest.raises(ValueError, match=message):
        Embodiment.from_dict(content, "it")


def test_ranges_that_disagree():
    first = ActionStatistics.from_actions(np.float32([[0, 0, 5, 1], [1, 1, 5, 1]]))
    second = ActionStatistics.from_actions(np.float32([[0, 0.05, 5, 2], [1, 1.3, 5, 2]]))
    share, dimensions = differing_ranges(first, second, "min_max")
    np.testing.assert_allclose(share, [0, 0.24, 0, 1], atol=1e-6)
    assert dimensions.tolist() == [1, 3]
