# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Two real artefacts that meet: what is arranged, what is refused, what is said."""

import copy
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from nora15_hf.clips import ClipConventions, EpisodeClips
from nora15_hf.control import Nora15ControlPolicy
from nora15_hf.data import (
    LeRobotDataset,
    LeRobotMixture,
    LeRobotStream,
    LeRobotWriter,
    PolicyCollator,
    check_dataset_fits,
    compute_statistics,
    fit_dataset,
)
from nora15_hf.data.lerobot_stream import LeRobotStreamMixture
from nora15_hf.doctor import examine_policy
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.nora15 import Nora15Processor
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.nora15.released_processor import released_embodiments
from nora15_hf.preferences import GroundTruthActionReward, WeightedReward, build_preferences, load_preferences
from nora15_hf.preferences.rewards import WorldModelGoalReward
from nora15_hf.trainers import (
    Nora15SFTConfig,
    Nora15SFTTrainer,
    WorldModelTrainer,
    WorldModelTrainingConfig,
    load_policy_for,
    tiny_policy_for,
)
from nora15_hf.trainers.supervised.open_loop import replay_episodes
from nora15_hf.vjepa2_ac import VJEPA2ACModel, tiny_world_model

COLOURS = {"top": 10, "wrist": 200, "side": 90}
# What each dimension is, so that a mistaken one shows in its value.
VALUES = {"x": 0.1, "y": 0.2, "gripper": 0.9}
STATES = {"px": -0.3, "py": 0.7}


def pictures(camera: str) -> np.ndarray:
    """Twelve that differ, of one colour on average."""
    noise = np.random.default_rng(len(camera)).integers(-9, 10, (12, 56, 56, 3))
    return np.uint8(COLOURS[camera] + noise)


def record(
    root: Path,
    cameras=("top", "wrist"),
    actions=("x", "y", "gripper"),
    states=("px", "py"),
    *,
    fps=10,
    scale=1.0,
    told=None,
    episodes=2,
    named=("action", "observation.state"),
) -> Path:
    """Episodes whose pictures have one colour per camera, and whose numbers vary a little around those of their names."""
    random = np.random.default_rng(0)
    features = {f"observation.images.{name}": {"dtype": "image", "shape": (56, 56, 3)} for name in cameras}
    features["observation.state"] = {"dtype": "float32", "shape": (len(states),), "names": list(states)}
    features["action"] = {"dtype": "float32", "shape": (len(actions),), "names": list(actions)}
    for key in features.keys() - {*named}:
        features[key].pop("names", None)
    conventions = {} if told is None else {"embodiment": told}
    writer = LeRobotWriter(root, fps=fps, robot_type="arm", features=features, conventions=conventions)
    for _ in range(episodes):
        noise = 0.05 * random.uniform(-1, 1, (12, 1))
        frames = {f"observation.images.{name}": pictures(name) for name in cameras}
        frames["observation.state"] = np.float32(np.array([STATES.get(name, 0.0) for name in states]) + noise)
        frames["action"] = np.float32(scale * (np.array([VALUES.get(name, 0.5) for name in actions]) + noise))
        writer.add_episode("pick", frames)
    return writer.finalize()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    record(root / "arm")
    record(root / "turned", ("wrist", "top"), ("gripper", "x", "y"), ("py", "px"))
    record(root / "three", ("side", "top", "wrist"))
    record(root / "one", ("top",))
    record(root / "other", ("top", "side"))
    record(root / "other_actions", actions=("x", "z", "gripper"))
    record(root / "metres", scale=10.0)
    record(root / "fast", fps=20)
    record(root / "told", told={"gripper": "1 = closed", "action_units": ["m", "m", "1"]})
    record(root / "told_otherwise", told={"gripper": "1 = open", "action_units": ["cm", "cm", "1"]})
    record(root / "unnamed", named=())
    record(root / "same_names", states=("x", "y", "gripper"))
    record(root / "turned_states", states=("gripper", "x", "y"))
    record(root / "unnamed_states", actions=("gripper", "x", "y"), states=("px", "py", "pz"), named=("action",))
    return root


@pytest.fixture(scope="module")
def policy(recordings):
    """For two cameras, with the state as an input."""
    return tiny_policy_for(LeRobotDataset(recordings / "arm"), ["pick"], image_size=56, state_input=True)


def close_to(sample, names=("x", "y", "gripper"), states=("px", "py"), cameras=("top", "wrist")) -> bool:
    """Whether a sample shows and says what these names mean, in this order."""
    return (
        [round(image.mean()) for image in sample["images"]] == [COLOURS[name] for name in cameras]
        and np.allclose(sample["actions"][0], [VALUES[name] for name in names], atol=0.06)
        and np.allclose(sample["state"], [STATES[name] for name in states], atol=0.06)
    )


# -- what is told beside the features -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"action_units": ["m", "m"]}, "actions of 2 dimensions, where 'action' has 3"),
        ({"delta_actions": [True] * 4}, "actions of 4 dimensions, where 'action' has 3"),
        ({"state_dim": 3}, "states of 3 dimensions, where 'observation.state' has 2"),
        ({"action_names": ["y", "x", "gripper"]}, r"action_names \['y', .*where 'action' has \['x', "),
        ({"control_rate": 30}, "control_rate 30, where fps is 10"),
    ],
)
def test_what_is_told_agrees_with_the_features(recordings, tmp_path, told, message):
    with pytest.raises(ValueError, match=f"contradicts its features: {message}"):
        record(tmp_path / "new", told=told)
    copy_of_arm = tmp_path / "arm"
    shutil.copytree(recordings / "told", copy_of_arm)
    info = json.loads((copy_of_arm / "meta" / "info.json").read_text())
    info["nora15_conventions"]["embodiment"] = told
    (copy_of_arm / "meta" / "info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=f"in the conventions of 'arm' contradicts its features: {message}"):
        LeRobotDataset(copy_of_arm)


def test_names_that_only_the_recorder_tells(tmp_path):
    told = {"action_names": ["x", "y", "gripper"], "state_names": ["px", "py"]}
    dataset = LeRobotDataset(record(tmp_path, named=(), told=told))
    assert (dataset.action_names, dataset.state_names) == (("x", "y", "gripper"), ("px", "py"))
    assert LeRobotDataset(tmp_path, action_names=["a", "b", "c"]).action_names == ("a", "b", "c")


# -- datasets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["map-style", "stream"])
def test_members_of_a_mixture_are_matched_by_name(recordings, kind):
    if kind == "map-style":
        mixture = LeRobotMixture([LeRobotDataset(recordings / name) for name in ("arm", "turned")])
        samples = [mixture[index] for index in range(len(mixture))]
    else:
        streams = [LeRobotStream(recordings / name, repeat=True, shuffle_buffer_size=0) for name in ("arm", "turned")]
        samples = [sample for sample, _ in zip(LeRobotStreamMixture(streams), range(20), strict=False)]
    assert {sample["dataset_key"] for sample in samples} == {"arm", "turned"}
    assert all(map(close_to, samples))


def test_columns_follow_the_order_of_the_names(recordings):
    arranged = LeRobotDataset(recordings / "turned").arranged(LeRobotDataset(recordings / "arm").embodiment)
    back = arranged.arranged(LeRobotDataset(recordings / "turned").embodiment)
    plain = LeRobotDataset(recordings / "turned")
    assert (back.camera_names, back.action_names, back.state_names) == (
        plain.camera_names,
        plain.action_names,
        plain.state_names,
    )
    np.testing.assert_array_equal(back.all_actions(), plain.all_actions())
    np.testing.assert_array_equal(arranged.all_actions(), plain.all_actions()[:, [1, 2, 0]])
    np.testing.assert_array_equal(arranged.all_states(), plain.all_states()[:, [1, 0]])
    # A column is what was recorded.
    np.testing.assert_array_equal(arranged.column("action"), plain.all_actions())
    for part in arranged.split_by_episode(0.5, seed=0):
        assert close_to(part[0])


def test_what_the_first_member_does_not_tell_the_others_are_compared_in(recordings):
    members = LeRobotMixture([LeRobotDataset(recordings / name) for name in ("unnamed", "arm", "turned")]).members
    assert [member.action_names for member in members] == [None, ("x", "y", "gripper"), ("x", "y", "gripper")]
    assert all(close_to(member[0]) for member in members)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("unnamed", "told", "told_otherwise"),
            r"gripper: member 'told' '1 = closed', member 'told_otherwise' '1 = open'",
        ),
        (("unnamed", "arm", "other_actions"), r"action names: member 'arm' .*'y'.*'z'"),
        (("arm", "other"), r"cameras: member 'arm' \['top', 'wrist'\], member 'other' \['top', 'side'\]"),
        (("arm", "other_actions"), r"action names: .*'y'.*'z'"),
        (("told", "told_otherwise"), r"action units: .*'cm'.*gripper: member 'told' '1 = closed'"),
    ],
)
def test_members_that_mean_something_else(recordings, names, message):
    with pytest.raises(ValueError, match=message) as error:
        LeRobotMixture([LeRobotDataset(recordings / name) for name in names])
    assert "image_keys={name: feature}" in str(error.value)


def test_the_caller_maps_names(recordings):
    other = LeRobotDataset(
        recordings / "other",
        image_keys={"wrist": "observation.images.side", "top": "observation.images.top"},
        action_names=["x", "y", "gripper"],
    )
    assert (other.camera_names, other.image_keys) == (
        ("wrist", "top"),
        ["observation.images.side", "observation.images.top"],
    )
    mixture = LeRobotMixture([LeRobotDataset(recordings / "arm"), other])
    assert [round(image.mean()) for image in mixture[len(mixture) - 1]["images"]] == [COLOURS["top"], COLOURS["side"]]
    with pytest.raises(ValueError, match=r"`action_names` is .*expected 3 different names"):
        LeRobotDataset(recordings / "other", action_names=["x", "y"])
    with pytest.raises(TypeError, match=r"expected a list of cameras, \['observation.images.top'\]"):
        LeRobotDataset(recordings / "other", image_keys="observation.images.top")
    top = "observation.images.top"
    for keys in ([top, top], {"top": top, "wrist": top}):
        with pytest.raises(ValueError, match=r"`image_keys` names .observation\.images\.top. twice"):
            LeRobotDataset(recordings / "other", image_keys=keys)


def test_features_with_one_short_name_are_two_cameras(tmp_path):
    camera = {"dtype": "image", "shape": (16, 16, 3)}
    features = {
        "observation.top": camera,
        "observation.images.top": camera,
        "action": {"dtype": "float32", "shape": (1,)},
    }
    writer = LeRobotWriter(tmp_path, fps=10, robot_type="arm", features=features)
    images = np.zeros((2, 16, 16, 3), np.uint8)
    writer.add_episode(
        "pick",
        {"observation.top": images, "observation.images.top": images + 9, "action": np.zeros((2, 1), np.float32)},
    )
    dataset = LeRobotDataset(writer.finalize())
    assert dataset.camera_names == tuple(dataset.image_keys) == ("observation.top", "observation.images.top")
    assert LeRobotDataset(tmp_path, image_keys=["observation.top"]).camera_names == ("top",)


# -- a dataset and a policy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["turned", "three"])
def test_fine_tuning_matches_by_name(recordings, policy, name):
    dataset = LeRobotDataset(recordings / name, dataset_key="arm")
    assert close_to(fit_dataset(dataset, policy[1])[0])
    with pytest.raises(ValueError, match=r"cameras( in another order)?: policy \['top', 'wrist'\]"):
        check_dataset_fits(dataset, policy[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one", r"cameras: policy \['top', 'wrist'\], dataset 'arm' \['top'\]"),
        ("other", "cameras: "),
        ("other_actions", "action names: "),
        ("fast", "control rate: policy 10, dataset 'arm' 20"),
    ],
)
def test_fine_tuning_on_something_else(recordings, policy, name, message):
    with pytest.raises(ValueError, match=message):
        fit_dataset(LeRobotDataset(recordings / name, dataset_key="arm"), policy[1])


def test_a_dataset_of_the_same_key_with_other_ranges(recordings, policy, tmp_path, caplog):
    metres = LeRobotDataset(recordings / "metres", dataset_key="arm")
    check_dataset_fits(metres, policy[1])
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    for part in ("actions of dataset 'arm' have other ranges", "x 0.0", "gripper ", "separate dataset_key"):
        assert part in record.message
    with pytest.raises(ValueError, match="have other ranges"):
        check_dataset_fits(metres, policy[1], strict=True)
    for part in policy:
        part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="have other ranges"):
        load_policy_for(tmp_path, metres, strict=True)
    # The policy's own data.
    check_dataset_fits(LeRobotDataset(recordings / "arm"), policy[1], strict=True)


@pytest.mark.parametrize("given", ["processing_class", "data_collator"])
@pytest.mark.parametrize(
    "wrap",
    [lambda dataset: dataset, lambda dataset: Subset(dataset, [3, 1]), lambda dataset: ConcatDataset([dataset])],
)
def test_trainers_match_by_name_whatever_the_dataset_is_wrapped_in(recordings, policy, wrap, given, tmp_path):
    def trainer(name: str) -> Nora15SFTTrainer:
        dataset = LeRobotDataset(recordings / name, dataset_key="arm")
        return Nora15SFTTrainer(
            policy[0],
            Nora15SFTConfig(str(tmp_path), max_steps=1, report_to="none", use_cpu=True),
            train_dataset=wrap(dataset),
            eval_dataset=wrap(dataset),
            **{given: policy[1] if given == "processing_class" else PolicyCollator(policy[1])},
        )

    turned = trainer("turned")
    assert close_to(turned.train_dataset[0])
    assert close_to(turned.eval_dataset[0])
    with pytest.raises(ValueError, match="do not agree: cameras"):
        trainer("other")


def test_what_a_subset_leaves_out_is_not_looked_at(recordings, policy):
    metres = LeRobotDataset(recordings / "metres", dataset_key="arm")
    fit_dataset(metres, policy[1], strict=True, check_values=False)


def test_a_stream_cannot_be_compared_strictly(recordings, policy):
    stream = LeRobotStream(recordings / "arm")
    check_dataset_fits(stream, policy[1])
    with pytest.raises(ValueError, match="dataset 'arm' is a stream, which is not read in advance"):
        check_dataset_fits(stream, policy[1], strict=True)


def test_an_error_is_measured_in_the_order_of_the_training(recordings, policy):
    turned = LeRobotDataset(recordings / "turned", dataset_key="arm")
    (replay,) = replay_episodes(policy[0].eval(), policy[1], turned, 1)
    np.testing.assert_allclose(replay.demonstrated.mean(0), [0.1, 0.2, 0.9], atol=0.06)
    with pytest.raises(ValueError, match="do not agree: cameras"):
        replay_episodes(*policy, LeRobotDataset(recordings / "other", dataset_key="arm"), 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("same_names", None),
        ("turned_states", "in dimension 0 the action is 'x', but the state is 'gripper'"),
        ("unnamed_states", "in dimension 0 the action is recorded dimension 1, but the state is recorded dimension 0"),
    ],
)
def test_differences_are_of_the_same_dimension(recordings, policy, name, message):
    """By name, or, without names of the state, by its place in the recording."""
    mask = [True, True, False]
    plain = LeRobotDataset(recordings / name, dataset_key="arm")
    member = plain.arranged(LeRobotDataset(recordings / "arm").embodiment)
    relative = copy.copy(policy[1])
    relative.delta_action_mask, relative.state_dim, relative.embodiments = mask, None, {}
    if message is None:
        compute_statistics(member, delta_mask=mask)
        fit_dataset(member, relative)
        return
    with pytest.raises(ValueError, match=message):
        compute_statistics(member, delta_mask=mask)
    for check in (fit_dataset, check_dataset_fits):
        with pytest.raises(ValueError, match=message):
            check(member, relative)


def test_training_completes_a_contract(recordings, policy):
    """A converted checkpoint, or whoever began to fill it in, does not tell everything."""
    processor = tiny_policy_for(LeRobotDataset(recordings / "told"), ["pick"], image_size=56)[1]
    complete = processor.embodiments["told"]
    begun = Embodiment(gripper="1 = closed", cameras={"wrist": Camera(role="wrist"), "top": Camera()})
    processor.embodiments["told"] = begun
    fitted = fit_dataset(LeRobotDataset(recordings / "told"), processor)
    assert [round(image.mean()) for image in fitted[0]["images"]] == [COLOURS["wrist"], COLOURS["top"]]
    written = processor.embodiments["told"]
    assert list(written.cameras) == ["wrist", "top"]
    assert written.cameras["wrist"] == Camera(height=56, width=56, role="wrist")
    assert replace(written, cameras=complete.cameras) == complete


def test_a_contract_takes_nothing_of_another_width():
    narrow, wide = (
        Embodiment(action_dim=2, gripper="1 = open"),
        Embodiment(action_names=("x", "y", "z"), control_rate=10),
    )
    assert narrow.completed(wide) == Embodiment(action_dim=2, gripper="1 = open", control_rate=10)


def test_training_writes_the_contract_of_a_key_without_one(recordings):
    dataset = LeRobotDataset(recordings / "told")
    _, processor = tiny_policy_for(dataset, ["pick"], image_size=56)
    processor.embodiments.clear()
    fit_dataset(dataset, processor)
    contract = processor.embodiment()
    assert (contract.gripper, contract.action_units, contract.control_rate) == ("1 = closed", ("m", "m", "1"), 10)
    assert list(contract.cameras) == ["top", "wrist"]


def test_a_new_key_keeps_those_that_a_policy_has(recordings, policy, tmp_path, caplog):
    for part in policy:
        part.save_pretrained(tmp_path)
    _, processor = load_policy_for(tmp_path, LeRobotDataset(recordings / "one", dataset_key="one"))
    assert processor.camera_names("arm") == ("top", "wrist")
    assert processor.camera_names("one") == ("top",)
    assert processor.camera_names() is None
    assert "trained on the cameras ['top', 'wrist'] so far; dataset 'one' shows it ['top']" in caplog.text
    # As many, but under other names.
    load_policy_for(tmp_path, LeRobotDataset(recordings / "other", dataset_key="other"))
    assert "trained on the cameras ['top', 'wrist'] so far; dataset 'other' shows it ['top', 'side']" in caplog.text
    caplog.clear()
    load_policy_for(tmp_path, LeRobotDataset(recordings / "turned", dataset_key="turned"))
    assert "trained on the cameras" not in caplog.text


@pytest.mark.parametrize("with_code", [False, True])
def test_files_keep_the_order_of_the_cameras(recordings, with_code, tmp_path):
    """It is not that of the alphabet, in which JSON files are often written."""
    cameras = {"wrist": "observation.images.wrist", "top": "observation.images.top"}
    dataset = LeRobotDataset(recordings / "arm", image_keys=cameras)
    processor = tiny_policy_for(dataset, ["pick"], image_size=56)[1]
    processor.save_pretrained(tmp_path, with_code=with_code)
    loaded = Nora15Processor.from_pretrained(tmp_path)
    assert loaded.camera_names() == ("wrist", "top")
    assert close_to(fit_dataset(LeRobotDataset(recordings / "arm"), loaded)[0], cameras=("wrist", "top"))


@pytest.mark.parametrize("names", [("arm", "turned"), ("turned", "arm")])
def test_a_new_key_is_shown_what_the_policy_knows_in_its_order(recordings, policy, names, tmp_path):
    """The policy's order is that of neither the mixture nor the new dataset."""
    processor = copy.copy(policy[1])
    known = LeRobotDataset(
        recordings / "turned", image_keys=[f"observation.images.{name}" for name in ("wrist", "top")]
    )
    statistics = compute_statistics(known)
    processor.embodiments = {"turned": known.embodiment}
    processor.set_norm_stats({"turned": statistics["action"]}, {"turned": statistics["state"]})
    policy[0].save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    mixture = LeRobotMixture([LeRobotDataset(recordings / name) for name in names])
    loaded = load_policy_for(tmp_path, mixture)[1]
    turned = ("gripper", "x", "y"), ("py", "px"), ("wrist", "top")
    assert all(close_to(member[0], *turned) for member in fit_dataset(mixture, loaded).members)
    # Alone, the new robot takes its actions as it recorded them.
    arm = LeRobotDataset(recordings / "arm")
    loaded = load_policy_for(tmp_path, arm)[1]
    assert close_to(fit_dataset(arm, loaded)[0], cameras=("wrist", "top"))
    assert loaded.camera_names() == ("wrist", "top")


# -- the processor ----------------------------------------------------------------------------------------------------


def test_the_contract_is_part_of_the_repo(policy, tmp_path, caplog):
    processor = policy[1]
    processor.save_pretrained(tmp_path)
    loaded = Nora15Processor.from_pretrained(tmp_path)
    assert caplog.records == []
    assert loaded.embodiments == processor.embodiments
    assert loaded.embodiment("arm") == processor.embodiment("arm")
    file = tmp_path / "processor_config.json"
    content = json.loads(file.read_text())
    del content["embodiments"]
    file.write_text(json.dumps(content))
    old = Nora15Processor.from_pretrained(tmp_path)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{str(tmp_path)!r} does not say which cameras, actions and states its dataset keys ['arm'] stand for, so nothing "
        "can be checked against them. Set processor.embodiments and save it again."
    ]
    assert old.camera_names() is None


def test_released_checkpoints_get_what_is_known():
    statistics = tiny_policy(action_dim=7)[1].norm_stats["default"]
    contract = released_embodiments({"bridge_orig": statistics})["bridge_orig"]
    assert contract.cameras == {"image": Camera(height=224, width=224, role="external")}
    assert contract.action_names[-1] == "gripper"
    assert contract.gripper == "1 = open, 0 = closed"
    assert released_embodiments({"two arms": tiny_policy(action_dim=14)[1].norm_stats["default"]}) == {}


PICTURES = {name: np.full((56, 56, 3), colour, np.uint8) for name, colour in COLOURS.items()}
STATE = np.float32([-0.3, 0.7])


def test_pictures_are_ordered_by_name(policy):
    processor = policy[1]
    by_list = processor(images=[[PICTURES["top"], PICTURES["wrist"]]], text=["pick"], state=STATE)
    for cameras in (("top", "wrist"), ("wrist", "top")):
        by_name = processor(images={name: PICTURES[name] for name in cameras}, text="pick", state=STATE)
        assert by_name["pixel_values"].equal(by_list["pixel_values"])
    _, unknown = tiny_policy(image_size=56)
    assert unknown(images={"top": PICTURES["top"]}, text="pick")["image_grid_thw"].shape == (1, 3)
    with pytest.raises(ValueError, match="does not say which cameras it was trained on"):
        unknown(images={name: PICTURES[name] for name in ("top", "wrist")}, text="pick")


@pytest.mark.parametrize(
    "images",
    [
        PICTURES["top"],
        [PICTURES["top"]],
        [PICTURES["top"]] * 3,
        {"top": PICTURES["top"]},
        {"top": PICTURES["top"], "side": PICTURES["side"]},
        PICTURES,
    ],
)
def test_other_cameras_than_those_of_the_training(policy, images):
    with pytest.raises(ValueError, match=r"trained on 2 camera\(s\): top, wrist"):
        policy[1](images=images, text="pick", state=STATE)
    control = Nora15ControlPolicy(*policy, seed=0)
    key = "image" if isinstance(images, np.ndarray) else "images"
    with pytest.raises(ValueError, match=r"trained on 2 camera\(s\): top, wrist"):
        control.select_action({key: images, "instruction": "pick", "state": STATE})


def test_pictures_without_a_dataset_key(policy):
    """Of a policy that was shown several sets of cameras."""
    processor, arm = copy.copy(policy[1]), policy[1].embodiments["arm"]
    keys = {
        "arm": arm,
        "turned": replace(arm, cameras=dict(reversed(arm.cameras.items()))),
        "front": replace(arm, cameras={"front": Camera()}),
    }
    processor.embodiments = keys
    processor.set_norm_stats(
        dict.fromkeys(keys, policy[1].norm_stats["arm"]), dict.fromkeys(keys, policy[1].state_stats["arm"])
    )
    processor.state_dim = None
    both = {name: PICTURES[name] for name in ("wrist", "top")}

    def pixels(images, **options):
        return processor(images=images, text="pick", **options)["pixel_values"]

    assert pixels(both, dataset_key="arm").equal(pixels([PICTURES["top"], PICTURES["wrist"]]))
    assert pixels(both, dataset_key="turned").equal(pixels([PICTURES["wrist"], PICTURES["top"]]))
    assert pixels({"front": PICTURES["side"]}).equal(pixels(PICTURES["side"]))
    for images, options, message in (
        (both, {}, "trained on in several orders: pass the dataset_key, one of 'arm', 'turned', 'front'"),
        ([PICTURES["top"]] * 3, {}, r"trained on 2 camera\(s\): top, wrist, or on .*, or on 1 camera\(s\): front"),
        ({"side": PICTURES["side"]}, {}, r"trained on 2 camera\(s\)"),
        ([PICTURES["top"]] * 2, {"dataset_key": "none"}, "`dataset_key` 'none' is unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            pixels(images, **options)
    with pytest.raises(ValueError, match=r"images is one dictionary, of \['wrist', 'top'\], for 2 texts"):
        processor(images={name: [picture] * 2 for name, picture in both.items()}, text=["pick"] * 2)


# -- a policy and what it drives --------------------------------------------------------------------------------------


def test_a_robot_that_is_another_one(policy):
    Nora15ControlPolicy(*policy, robot=Embodiment(cameras=dict.fromkeys(("wrist", "top", "side"), Camera())))
    with pytest.raises(ValueError, match="control rate: policy 10, robot 30"):
        Nora15ControlPolicy(*policy, robot=Embodiment(control_rate=30))
    with pytest.raises(ValueError, match="state names in another order"):
        Nora15ControlPolicy(*policy, robot=Embodiment(state_names=("py", "px")))


@pytest.mark.slow
def test_the_doctor_compares_a_dataset(policy, recordings, tmp_path):
    for part in policy:
        part.save_pretrained(tmp_path)
    found = examine_policy(tmp_path, recordings / "other", device="cpu", samples=2, dataset_key="arm").findings
    assert any(
        "cameras: checkpoint ['top', 'wrist'], dataset ['top', 'side']" in finding.message
        for finding in found
        if finding.level == "error"
    )
    found = examine_policy(tmp_path, recordings / "three", device="cpu", samples=2, dataset_key="arm").findings
    assert not any("cameras: " in finding.message for finding in found if finding.level == "error")
    report = examine_policy(tmp_path, recordings / "turned", device="cpu", samples=2, dataset_key="arm")
    assert max(row["disagreement %"] for row in report.sections["statistics"].rows) < 1e-3
    # Made-up pictures, too, are as many as the policy is shown.
    assert "ablation" in examine_policy(tmp_path, device="cpu", samples=2).sections


# -- a world model, preferences -------------------------------------------------------------------------------------


def world_model_reward(dataset: LeRobotDataset, conventions: ClipConventions) -> WeightedReward:
    model, processor = tiny_world_model(56, dataset.action_dim)
    # Untrained, it ignores actions.
    generator = torch.Generator().manual_seed(0)
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return WeightedReward({"world_model": (WorldModelGoalReward(model, processor, conventions=conventions), 1.0)})


def test_a_world_model_of_other_units_or_rates(policy, recordings):
    one = LeRobotDataset(recordings / "arm", image_keys=["observation.images.top"])
    contract = policy[1].embodiment("arm")
    world_model_reward(one, ClipConventions.of_policy(one, policy[1])).check_policy(contract)
    with pytest.raises(ValueError, match="normalization: policy 'min_max', world model 'q01_q99'; action statistics"):
        world_model_reward(one, ClipConventions.of_dataset(one)).check_policy(contract)
    fast = LeRobotDataset(recordings / "fast", image_keys=["observation.images.top"])
    with pytest.raises(ValueError, match="control rate: policy 10, world model 20"):
        world_model_reward(fast, ClipConventions.of_policy(fast, policy[1], "arm")).check_policy(contract)
    # Its statistics would normalise other dimensions.
    turned = LeRobotDataset(recordings / "turned", image_keys=["observation.images.top"])
    with pytest.raises(ValueError, match="Policy and dataset 'turned' do not agree: action names in another order"):
        ClipConventions.of_policy(turned, policy[1])
    with pytest.raises(ValueError, match="do not agree"):
        build_preferences(
            "unused",
            policy=policy[0],
            processor=policy[1],
            dataset=LeRobotDataset(recordings / "arm"),
            indices=[0, 1],
            reward=world_model_reward(one, ClipConventions.of_dataset(one)),
        )
    assert not Path("unused").exists()


def test_conventions_of_clips_keep_the_contract(recordings, tmp_path, caplog):
    dataset = LeRobotDataset(recordings / "told", image_keys=["observation.images.wrist"])
    conventions = ClipConventions.of_dataset(dataset)
    conventions.save_pretrained(tmp_path)
    loaded = ClipConventions.from_pretrained(tmp_path)
    assert loaded.contract == conventions.contract
    assert loaded.contract.gripper == "1 = closed"
    content = json.loads((tmp_path / "clips.json").read_text())
    del content["embodiment"]
    (tmp_path / "clips.json").write_text(json.dumps(content))
    assert ClipConventions.from_pretrained(tmp_path).embodiment is None
    assert "does not say which actions its world model was trained on" in caplog.text


def test_a_world_model_is_shown_its_own_camera(policy, recordings, tmp_path):
    """Whatever the policy sees, and wherever that camera stands in the dataset."""
    one = LeRobotDataset(recordings / "one")
    reward = world_model_reward(one, ClipConventions.of_policy(one, policy[1], "arm"))
    scores = []
    for name in ("three", "turned"):
        rows = build_preferences(
            tmp_path / name,
            policy=policy[0],
            processor=policy[1],
            dataset=LeRobotDataset(recordings / name, dataset_key="arm"),
            indices=[0, 5, 13],
            reward=reward,
            num_candidates=2,
        )
        assert [[round(np.mean(image)) for image in row["images"]] for row in rows] == [[10, 200]] * len(rows)
        scores.append(rows["reward"])
    assert scores[0] == scores[1]


def test_a_world_model_is_trained_further_on_what_it_has_learnt(policy, recordings, tmp_path, caplog):
    """Or its actions and pictures would mean something else from one step to the next."""
    model, processor = tiny_world_model(56, 3)
    one = LeRobotDataset(recordings / "one")
    own = ClipConventions.of_policy(one, policy[1], "arm")
    model.save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    assert ClipConventions.of_model(model) is None
    model = VJEPA2ACModel.from_pretrained(tmp_path)
    assert ClipConventions.of_model(model).contract == own.contract

    def trainer(conventions: ClipConventions, dataset: LeRobotDataset) -> WorldModelTrainer:
        args = WorldModelTrainingConfig(
            str(tmp_path / "run"), use_cpu=True, bf16=False, report_to="none", precompute_latents=False
        )
        clips = EpisodeClips(dataset, conventions, 4)
        return WorldModelTrainer(model, args, train_dataset=clips, processing_class=processor)

    metres = LeRobotDataset(recordings / "metres", image_keys=["observation.images.top"])
    wrist = LeRobotDataset(recordings / "arm", image_keys=["observation.images.wrist"])
    fast = LeRobotDataset(recordings / "fast", image_keys=["observation.images.top"])
    for dataset, message in (
        (metres, "normalization: the model's own 'min_max', the new 'q01_q99'"),
        (wrist, "cameras: the model's own clips"),
        (fast, "control rate: the model's own clips 10, the new clips 20"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(ClipConventions.of_dataset(dataset), dataset)
    further = own.of_other_dataset(metres, held_out_episodes=[1])
    assert "other ranges than those that the world model was trained on, in dimension(s) [0, 1, 2]" in caplog.text
    assert (further.dataset, further.held_out_episodes) == ("metres", (1,))
    trainer(further, metres)


@pytest.mark.parametrize(
    ("actions", "options", "message"),
    [
        (("gripper", "x", "y"), {}, None),
        (
            ("gripper", "x", "y"),
            {"gripper_dim": -1},
            "gripper_dim=-1 is 'y', but the gripper is 'gripper', dimension 0",
        ),
        (("x", "y", "z"), {}, r"needs gripper_dim, since none of the dimensions \['x', 'y', 'z'\]"),
        (("x", "y", "z"), {"gripper_dim": 1}, None),
        (("gripper", "x", "y"), {"masked_dims": [0]}, "has no effect, since masked_dims"),
    ],
)
def test_the_gripper_of_a_reward_is_the_one_of_that_name(actions, options, message):
    reward = GroundTruthActionReward(gripper_weight=0.5, **options)
    if message is not None:
        with pytest.raises(ValueError, match=message):
            reward.weights(3, actions)
        return
    gripper = options.get("gripper_dim", 0)
    assert reward.weights(3, actions).tolist() == [0.5 if dim == gripper else 1.0 for dim in range(3)]


def test_a_preference_set_is_continued_with_the_same_cameras(policy, recordings, tmp_path):
    def build(**cameras: str):
        return build_preferences(
            tmp_path,
            policy=policy[0],
            processor=policy[1],
            dataset=LeRobotDataset(
                recordings / "three",
                dataset_key="arm",
                image_keys={name: f"observation.images.{feature}" for name, feature in cameras.items()},
            ),
            indices=[0, 5],
            reward=WeightedReward({"demonstration": (GroundTruthActionReward(), 1.0)}),
            num_candidates=2,
        )

    build(top="top", wrist="wrist")
    build(wrist="wrist", top="top")
    with pytest.raises(FileExistsError, match=r"cameras=\{'top': 'observation.images.top'.*, now .*images.side"):
        build(top="top", wrist="side")


def test_a_preference_set_of_another_policy(policy, recordings, tmp_path):
    dataset = LeRobotDataset(recordings / "arm")
    build_preferences(
        tmp_path,
        policy=policy[0],
        processor=policy[1],
        dataset=dataset,
        indices=[0, 5, 13],
        reward=WeightedReward({"demonstration": (GroundTruthActionReward(), 1.0)}),
        num_candidates=2,
    )
    load_preferences(tmp_path, policy=policy[0], processor=policy[1])
    told = {"image_size": 84, "normalization": "q01_q99", "gripper": "1 = open", "state_names": ["py", "px"]}
    known = policy[1].embodiments["arm"]
    policy[1].embodiments["arm"] = replace(known, gripper="1 = closed")
    file = tmp_path / "preferences.json"
    content = json.loads(file.read_text())
    for item, value in told.items():
        changed = content | {
            "settings": content["settings"] | {"embodiment": content["settings"]["embodiment"] | {item: value}}
        }
        file.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=f"do not agree: {item.replace('_', ' ')}"):
            load_preferences(tmp_path, policy=policy[0], processor=policy[1])
    policy[1].embodiments["arm"] = known
