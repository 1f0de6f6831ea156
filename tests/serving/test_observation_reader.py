# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From a robot's keys to the policy's cameras, state and instruction; what does not fit is refused by name."""

import dataclasses
import logging

import numpy as np
import pytest

from helpers.recording_policy import CONTRACT, observation
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.serving.observation_reader import ObservationReader
from nora15_hf.serving.robots import ROBOTS, RobotKeys, load_robot
from nora15_hf.serving.serving_error import ServingError

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def reader(contract: Embodiment = CONTRACT, needs_state: bool = True, **options) -> ObservationReader:
    return ObservationReader(contract, needs_state=needs_state, **options)


def policy_of(robot: RobotKeys, **changed) -> Embodiment:
    """The contract of a policy trained on a robot, which calls its cameras otherwise."""
    cameras = {f"camera {n}": Camera(role=role) for n, role in enumerate(robot.cameras.values())}
    return Embodiment(**{"cameras": cameras, "action_dim": robot.action_dim, "chunk_size": 10, **changed})


@pytest.mark.parametrize(
    "picture",
    [
        PICTURE,
        PICTURE.transpose(2, 0, 1),
        (PICTURE / 255).astype(np.float32),
        (PICTURE / 255).transpose(2, 0, 1),
        (PICTURE / 255).astype(np.float16),
    ],
    ids=["uint8 HWC", "uint8 CHW", "float32 HWC", "float64 CHW", "float16 HWC"],
)
def test_pictures_are_the_same_however_they_are_sent(picture):
    message = observation()
    message["images"]["wrist"] = picture
    np.testing.assert_array_equal(reader().read(message).images["wrist"], PICTURE)


def test_the_policys_own_names_nested_or_flat():
    message = {"images/wrist": PICTURE, "images/top": PICTURE + 1, "state": [1, 2.5], "prompt": "go"}
    nested = {"images": {"wrist": PICTURE, "top": PICTURE + 1}, "state": np.array([1, 2.5]), "prompt": "go"}
    for each in (message, nested):
        seen = reader().read(each)
        assert list(seen.images) == ["top", "wrist"]
        np.testing.assert_array_equal(seen.images["top"], PICTURE + 1)
        np.testing.assert_array_equal(seen.state, np.array([1, 2.5], dtype=np.float32))
        assert (seen.state.dtype, seen.instruction) == (np.float32, "go")


def test_one_camera_and_cameras_without_names():
    one = dataclasses.replace(CONTRACT, cameras={"top": Camera()})
    seen = reader(one, needs_state=False).read({"image": PICTURE, "prompt": "go", "state": "not looked at"})
    assert (list(seen.images), seen.state) == (["top"], None)
    unnamed = reader(dataclasses.replace(CONTRACT, cameras=None), needs_state=False)
    assert list(unnamed.read({"image": PICTURE, "prompt": "go"}).images) == ["image"]
    assert list(unnamed.read({"images": {"b": PICTURE, "a": PICTURE}, "prompt": "go"}).images) == ["b", "a"]
    with pytest.raises(ServingError, match="lacks its images"):
        unnamed.read({"prompt": "go"})


@pytest.mark.parametrize("robot", ["libero", "droid", "bridge", "so101"])
def test_presets_find_cameras_by_role_and_join_the_state(robot):
    keys = load_robot(robot)
    contract = policy_of(keys, state_dim=len(keys.state))
    message = {path: PICTURE + number for number, path in enumerate(keys.cameras)}
    message |= {path: np.array([number]) for number, path in enumerate(keys.state)} | {"prompt": "go"}
    seen = reader(contract, robot=keys).read(message)
    assert [image[0, 0, 0] - PICTURE[0, 0, 0] for image in seen.images.values()] == list(range(len(keys.cameras)))
    assert seen.state.tolist() == list(range(len(keys.state)))
    # What a client of ours sends is understood as well.
    own = {"images": dict.fromkeys(contract.cameras, PICTURE), "state": seen.state, "prompt": "go"}
    np.testing.assert_array_equal(next(iter(reader(contract, robot=keys).read(own).images.values())), PICTURE)


def test_cameras_are_found_by_name_and_by_a_file(tmp_path):
    aloha = ROBOTS["openpi"]["aloha"]
    names = {"cam_high": Camera(), "cam_left_wrist": Camera(), "cam_right_wrist": Camera()}
    found = aloha.match_cameras(names)
    assert found == {name: f"images/{name}" for name in names}
    # A name counts more than the last part of a key, and one camera has one picture.
    keys = RobotKeys(cameras={"a/top": "top", "b/top": "wrist"})
    assert keys.match_cameras({"top": Camera(), "hand": Camera(role="wrist")}) == {"top": "a/top", "hand": "b/top"}
    with pytest.raises(
        ValueError, match=r"Several of the robot's pictures are the same camera of the policy: \{'a': 'top'"
    ):
        RobotKeys(cameras={"a": "top", "b": "top"}).match_cameras({"top": Camera()})
    with pytest.raises(ValueError, match=r"policy's camera\(s\) 'left' \(wrist\).*cameras: \{KEY OF AN IMAGE"):
        aloha.match_cameras({"left": Camera(role="wrist")})
    file = tmp_path / "robot.yaml"
    file.write_text(
        "cameras: {cam/a: top, cam/b: wrist}\nstate: [q, gripper]\ninstruction: task\nactions: {arm: [0, 2], gripper: [2, 3]}\n"
    )
    robot = load_robot(file)
    assert robot.actions == {"arm": (0, 2), "gripper": (2, 3)}
    message = {"cam": {"a": PICTURE, "b": PICTURE}, "q": 1.0, "gripper": [2.0], "task": "go"}
    seen = reader(robot=robot).read(message)
    assert (seen.state.tolist(), seen.instruction) == ([1, 2], "go")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cameras: [", "robot.yaml does not describe a robot"),
        ("- a", "robot.yaml does not describe a robot"),
        ("cameras: {}\nspeed: 3", "unexpected keyword argument 'speed'"),
        ("state: [a]", "missing 1 required keyword-only argument: 'cameras'"),
        ("cameras: [a]", "'cameras' is ('a',), expected a map from the key of a picture to the name or the role"),
        ("cameras: {a: 3}", "'cameras' is {'a': 3}, expected a map"),
        ("cameras: {}\nstate: joints", "'state' is 'joints', expected a list of keys"),
        ("cameras: {}\nstate: [1]", "'state' is (1,), expected a list of keys"),
        ("cameras: {}\ninstruction: 5", "'instruction' is 5, expected a key"),
        ("cameras: {}\nactions: {arm: 3}", "'actions' is {'arm': 3}, expected a map from names to [first dimension,"),
        ("cameras: {}\nactions: {arm: [2, 2]}", "'actions' is {'arm': (2, 2)}, expected"),
        ("cameras: {}\naction_dim: '7'", "'action_dim' is '7', expected a whole number of at least 1"),
        ("cameras: {}\nhorizon: -1", "'horizon' is -1, expected a whole number of at least 1"),
    ],
)
def test_bad_robots(content, said, tmp_path):
    (tmp_path / "robot.yaml").write_text(content)
    with pytest.raises(ValueError) as error:
        load_robot(tmp_path / "robot.yaml")
    assert said in str(error.value)
    with pytest.raises(
        ValueError, match="neither a YAML file nor one of the robots with the gr00t protocol: libero, droid"
    ):
        load_robot("aloha", "gr00t")


def test_robots_that_the_policy_does_not_fit():
    droid = load_robot("droid")
    with pytest.raises(ValueError, match=r"The robot takes chunks of 10 actions, but the policy's have 5"):
        reader(policy_of(droid, chunk_size=5), robot=droid)
    with pytest.raises(ValueError, match=r"The robot takes actions of 8 dimensions, but the policy's have 7"):
        reader(policy_of(droid, action_dim=7), robot=droid)
    parts = dataclasses.replace(droid, action_dim=None, horizon=None, actions={"arm": (0, 7), "gripper": (7, 8)})
    with pytest.raises(ValueError, match=r"'gripper' of its actions .* lie beyond the 7 dimensions of the policy's"):
        reader(policy_of(droid, action_dim=7), robot=parts)
    with pytest.raises(ValueError, match=r"needs the robot's state\. Name its keys"):
        reader(robot=RobotKeys(cameras={"a": "top", "b": "wrist"}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"images": None},
            "lacks 'images/top', 'images/wrist'. Expected: 'images/top' (camera 'top'), 'images/wrist'",
        ),
        ({"images": {"top": PICTURE}}, "The observation lacks 'images/wrist'"),
        (
            {"images": {"top": PICTURE, "wrist": PICTURE, "side": PICTURE}},
            "'images/side' is an image of a camera that",
        ),
        ({"depth": PICTURE}, "'depth' is an image of a camera that the policy was not trained on"),
        ({"images": {"top": PICTURE, "wrist": [1, 2]}}, "'images/wrist' is a list, expected an array with an image"),
        (
            {"images": {"top": PICTURE[..., :2], "wrist": PICTURE}},
            "'images/top' has shape (8, 6, 2), expected (height",
        ),
        ({"images": {"top": PICTURE[None], "wrist": PICTURE}}, "'images/top' has shape (1, 8, 6, 3)"),
        ({"images": {"top": PICTURE[:0], "wrist": PICTURE}}, "'images/top' has shape (0, 6, 3)"),
        ({"images": {"top": PICTURE.astype(int), "wrist": PICTURE}}, "'images/top' has dtype int64, expected uint8"),
        (
            {"images": {"top": PICTURE / 1.0, "wrist": PICTURE}},
            "'images/top' holds values from 0 to 249, expected floats",
        ),
        ({"images": {"top": PICTURE * np.nan, "wrist": PICTURE}}, "'images/top' holds values from nan to nan"),
        ({"state": None}, "'state' is missing: this policy reads the robot's state"),
        ({"state": "up"}, "'state' is a str of shape (1,)"),
        ({"state": [[1], [2, 3]]}, "'state' is a list of shape"),
        ({"state": np.zeros((1, 2))}, "'state' is a ndarray of shape (1, 2)"),
        ({"state": np.array([1, np.inf])}, "'state' holds NaN or infinity"),
        ({"state": np.array([1, 1e300])}, "'state' holds NaN or infinity"),
        ({"state": np.zeros(3)}, "'state' hold 3 number(s), expected 2: x, y"),
        ({"prompt": None}, "'prompt' is missing: the policy needs an instruction. Send it, or start the server with"),
        ({"prompt": " "}, "'prompt' is ' ', expected a text"),
        ({"prompt": 3}, "'prompt' is 3, expected a text"),
        ({"prompt": "a" * 5000}, "'prompt' has 5000 characters"),
    ],
)
def test_bad_observations_are_refused_by_name(changed, said):
    message = {key: value for key, value in (observation() | changed).items() if value is not None}
    with pytest.raises(ServingError) as error:
        reader().read(message)
    assert said in str(error.value)


def test_what_is_left_out_or_resized_is_said_once(caplog):
    caplog.set_level(logging.WARNING)
    libero = load_robot("libero")
    contract = Embodiment(cameras={"image": Camera(height=84, width=84)}, action_dim=7, chunk_size=5)
    each = reader(contract, needs_state=False, robot=libero, default_prompt="go")
    message = {"observation/image": PICTURE, "observation/wrist_image": PICTURE, "observation/state": np.zeros(8)}
    for _ in range(3):
        assert each.read(message | {"gripper": 1.0}).instruction == "go"
    said = [record.message for record in caplog.records]
    assert said == [
        "'observation/wrist_image' of the observations is left out: the policy does not use it. This warning is shown once.",
        "'gripper' of the observations is left out: the policy does not use it. This warning is shown once.",
        "'observation/image' has 6 x 8 pixels, 'image' had 84 x 84 in training. It is resized as in training. This warning is shown once.",
    ]
