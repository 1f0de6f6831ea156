# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy as lerobot finds, builds and calls it."""

import importlib

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig

from lerobot_policy_nora15 import Nora15Config
from lerobot_policy_nora15.modeling_nora15 import Nora15Policy
from lerobot_policy_nora15.processor_nora15 import make_nora15_pre_post_processors
from lerobot_policy_nora15.server_connection import PolicyServerError
from wire_server import STATE_DIM


def policy_of(server, **options) -> Nora15Policy:
    return Nora15Policy(Nora15Config(url=server.url, device="cpu", timeout=5, **options))


def batch(*tasks: str, **tensors: torch.Tensor) -> dict:
    top = torch.arange(len(tasks) * 3 * 2 * 4).reshape(len(tasks), 3, 2, 4) % 256 / 255
    return {"observation.images.top": top, "observation.images.wrist": 1 - top, "task": list(tasks), **tensors}


def test_lerobot_finds_the_policy_by_its_names():
    assert PreTrainedConfig.get_choice_class("nora15") is Nora15Config
    modeling, processor = (
        Nora15Config.__module__.replace("configuration_", kind) for kind in ("modeling_", "processor_")
    )
    assert vars(importlib.import_module(modeling))["Nora15Policy"] is Nora15Policy
    assert "make_nora15_pre_post_processors" in vars(importlib.import_module(processor))


def test_a_request_holds_what_the_camera_gave_and_what_the_server_asks_for(server):
    server.metadata["state_dim"] = STATE_DIM
    policy = policy_of(server, seed=7, num_steps=4, dataset_key="arm")
    pictures = batch("open", "close")
    policy.select_action({**pictures, "observation.state": torch.arange(6.0).reshape(2, STATE_DIM)})
    assert [row["prompt"] for row in server.requests] == ["open", "close"]
    assert [row["noise_key"] for row in server.requests] == [[7, 0], [8, 0]]
    second = server.requests[1]
    expected = np.arange(24, 48).reshape(3, 2, 4).transpose(1, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(second["images/top"], expected)
    np.testing.assert_array_equal(second["images/wrist"], 255 - expected)
    assert second["images/top"].dtype == np.uint8
    np.testing.assert_array_equal(second["state"], np.float32([3, 4, 5]))
    assert (second["dataset_key"], second["sampling_params"]) == ("arm", {"num_inference_steps": 4})


def test_actions_come_from_chunks_and_noise_belongs_to_episodes(server):
    policy = policy_of(server, seed=10, n_action_steps=3)
    first = torch.stack([policy.select_action(batch("open", "open")) for _ in range(7)], dim=1)
    assert first[0, :, 0].tolist() == [10000, 10001, 10002, 10010, 10011, 10012, 10020]
    assert first[1, :, 0].tolist() == [11000, 11001, 11002, 11010, 11011, 11012, 11020]
    assert first.dtype == torch.float32
    assert len(server.requests) == 3 * 2
    policy.reset()
    assert policy.select_action(batch("open", "open"))[:, 0].tolist() == [12000, 13000]


def test_without_a_seed_every_episode_has_noise_of_its_own(server):
    policy = policy_of(server)
    for _ in range(2):
        policy.reset()
        policy.predict_action_chunk(batch("open", "open"))
    assert len({row["noise_key"][0] for row in server.requests}) == 4


@pytest.mark.parametrize(
    ("features", "cameras", "sent"),
    [
        (["observation.images.top", "observation.images.wrist", "observation.images.front"], {}, ["top", "wrist"]),
        (
            ["observation.images.image", "observation.images.image2"],
            {"top": "image", "wrist": "image2"},
            ["image", "image2"],
        ),
    ],
)
def test_cameras_are_matched_by_name_or_as_told(server, features, cameras, sent):
    policy = policy_of(server, cameras={name: f"observation.images.{feature}" for name, feature in cameras.items()})
    pictures = {feature: torch.full((1, 3, 2, 2), index / 255) for index, feature in enumerate(features)}
    policy.select_action({**pictures, "task": "open"})
    shown = [server.requests[0][path].max() for path in ("images/top", "images/wrist")]
    assert shown == [features.index(f"observation.images.{name}") for name in sent]


@pytest.mark.parametrize("feature", ["observation.image", "observation.images.corner"])
def test_the_only_picture_is_the_only_cameras(server, feature):
    server.metadata["observation_keys"]["images"] = {"image": "images/image"}
    policy_of(server).select_action({feature: torch.zeros(1, 3, 2, 2), "task": "open"})
    assert server.requests[0]["images/image"].shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation.images.wrist": None}, r"lack \{'wrist': 'observation.images.wrist'\}.*--policy.cameras"),
        ({"observation.images.top": torch.full((1, 3, 2, 2), 255.0)}, "'observation.images.top' has values from 255"),
        ({"observation.images.top": torch.full((1, 3, 2, 2), torch.nan)}, "'observation.images.top' has values"),
        ({}, "no 'observation.state', which the policy"),
    ],
)
def test_incomplete_batches_are_refused(server, changes, message):
    server.metadata["state_dim"] = STATE_DIM
    observation = {key: value for key, value in {**batch("open"), **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        policy_of(server).select_action(observation)


def test_another_number_of_environments_needs_a_reset(server):
    policy = policy_of(server)
    policy.predict_action_chunk(batch("open", "open"))
    with pytest.raises(ValueError, match="has 1 row"):
        policy.predict_action_chunk(batch("open"))


@pytest.mark.parametrize(
    "spoil", [lambda chunks: chunks * np.nan, lambda chunks: chunks[:, :, :2]], ids=["nan", "narrow"]
)
def test_actions_that_cannot_be_executed_are_refused(server, spoil):
    server.answers = spoil
    with pytest.raises(ValueError, match="expected finite ones of shape"):
        policy_of(server).select_action(batch("open"))


def test_the_servers_refusal_is_told_and_the_next_request_answered(server):
    policy = policy_of(server, seed=0)
    server.refusal = "prompt: is empty"
    with pytest.raises(PolicyServerError, match="prompt: is empty"):
        policy.select_action(batch(""))
    server.refusal = None
    assert policy.select_action(batch("open")).shape == (1, 4)


@pytest.mark.parametrize(
    ("features", "metadata", "options", "message"),
    [
        ({"action": (FeatureType.ACTION, (7,))}, {}, {}, r"actions of shape \(7,\), the policy's have 4"),
        ({"observation.state": (FeatureType.STATE, (6,))}, {"state_dim": 3}, {}, r"state of shape \(6,\)"),
        ({"observation.images.top": (FeatureType.VISUAL, (3, 8, 8))}, {}, {}, "lack {'wrist'"),
        ({}, {}, {"n_action_steps": 6}, "more than the policy's chunk of 5"),
        ({}, {}, {"cameras": {"front": "observation.images.top"}}, r"--policy.cameras names \['front'\]"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(server, features, metadata, options, message):
    server.metadata.update(metadata)
    if "cameras" in options:
        features = {"observation.images.top": (FeatureType.VISUAL, (3, 8, 8))}
    features = {key: PolicyFeature(type=kind, shape=shape) for key, (kind, shape) in features.items()}
    outputs = {key: feature for key, feature in features.items() if feature.type is FeatureType.ACTION}
    inputs = {key: feature for key, feature in features.items() if key not in outputs}
    with pytest.raises(ValueError, match=message):
        policy_of(server, input_features=inputs, output_features=outputs, **options)


def test_a_state_in_parts_is_refused(server):
    server.metadata["observation_keys"]["state"] = ["joints", "gripper"]
    with pytest.raises(ValueError, match="without --robot"):
        policy_of(server)


@pytest.mark.parametrize("options", [{"n_action_steps": 0}, {"num_steps": 0}, {"seed": -1}, {"timeout": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Nora15Config(device="cpu", **options)


def test_it_is_not_trained(server):
    with pytest.raises(NotImplementedError, match="nora15 sft"):
        policy_of(server).forward(batch("open"))


def test_processors_leave_numbers_alone(server):
    policy = policy_of(server)
    before, after = make_nora15_pre_post_processors(policy.config)
    observation = {key: value[0] for key, value in batch("open").items()}
    action = after(policy.select_action(before(observation)))
    assert action.shape == (1, 4)
    np.testing.assert_array_equal(
        server.requests[0]["images/top"].transpose(2, 0, 1), observation["observation.images.top"] * 255
    )
