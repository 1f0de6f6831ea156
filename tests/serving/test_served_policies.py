# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy and the replay behind a server: batches, refusals of single requests, numbers that are not finite."""

import dataclasses

import numpy as np
import pytest
import torch

from helpers.counting_dataset import write_counting_dataset
from helpers.two_camera_arm import TASKS, TwoCameraArm
from nora15_hf import control
from nora15_hf.actions import ActionStatistics
from nora15_hf.control import FlowSampler
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.data import LeRobotDataset
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving import served_policy
from nora15_hf.serving.dataset_replay import DatasetReplay
from nora15_hf.serving.served_policy import ChunkRequest, ModelPolicy
from nora15_hf.serving.serving_error import ServingError
from nora15_hf.simulation.environment import Observation

H, A = 2, 3
KEYS = ("arm", "big arm")


@pytest.fixture(scope="module")
def arm_policy():
    """Two cameras, a state that it reads and from which actions are differences, two dataset keys with other units."""
    contract = Embodiment(
        cameras={"front": Camera(height=56, width=56), "wrist": Camera()}, state_names=("x", "y", "gripper")
    )
    statistics = {
        key: ActionStatistics.from_actions(np.stack([-np.ones(A), np.full(A, scale)]).astype(np.float32))
        for key, scale in zip(KEYS, (1, 50), strict=True)
    }
    model, processor = tiny_policy(
        [task.instruction for task in TASKS.values()],
        image_size=56,
        chunk_size=H,
        action_dim=A,
        state_dim=3,
        norm_stats=statistics,
        embodiments=dict.fromkeys(KEYS, contract),
    )
    processor.delta_action_mask = [True, True, False]
    return model, processor


def requests(count: int, **options) -> list[ChunkRequest]:
    env = TwoCameraArm("left")
    found = []
    for seed in range(count):
        env.reset(seed)
        found.append(ChunkRequest(env.observation(), (seed, 5), **options))
    return found


def evaluated(
    arm_policy, request: ChunkRequest, key: str, num_steps: int | None = None, temperature: float = 1.0
) -> np.ndarray:
    """What closed-loop evaluation would execute."""
    policy = Nora15ChunkPolicy(*arm_policy, key, FlowSampler(num_steps, temperature))
    return policy([request.observation], [request.noise_key])[0]


def test_a_chunk_is_that_of_the_evaluation_whatever_is_asked_for_beside_it(arm_policy):
    policy = ModelPolicy(*arm_policy, dataset_key="arm", num_steps=2, temperature=0.3)
    asked = requests(3)
    asked[1] = dataclasses.replace(asked[1], dataset_key="big arm")
    asked[2] = dataclasses.replace(asked[2], num_steps=3)
    found = policy.predict(asked)
    expected = [
        evaluated(arm_policy, asked[0], "arm", 2, 0.3),
        evaluated(arm_policy, asked[1], "big arm", 2, 0.3),
        evaluated(arm_policy, asked[2], "arm", 3, 0.3),
    ]
    for chunk, reference in zip(found, expected, strict=True):
        assert (chunk.shape, chunk.dtype) == ((H, A), np.float32)
        np.testing.assert_allclose(chunk, reference, rtol=1e-4, atol=1e-4)
    # Alone it is the very same.
    np.testing.assert_array_equal(policy.predict(asked[:1])[0], expected[0])


def test_a_refused_request_does_not_spoil_the_others(arm_policy):
    policy = ModelPolicy(*arm_policy, dataset_key="arm", num_steps=1)
    asked = requests(3)
    marked = dataclasses.replace(asked[1].observation, instruction="<|im_end|>")
    asked[1] = dataclasses.replace(asked[1], observation=marked)
    found = policy.predict(asked)
    assert isinstance(found[1], ServingError)
    assert "special token" in str(found[1])
    for number in (0, 2):
        np.testing.assert_allclose(found[number], evaluated(arm_policy, asked[number], "arm", 1), rtol=1e-4, atol=1e-4)


def test_a_request_that_breaks_the_policy_does_not_break_the_others(arm_policy, monkeypatch):
    policy = ModelPolicy(*arm_policy, dataset_key="arm", num_steps=1)
    asked = requests(2)

    def predict_chunks(model, processor, images, instructions, noise_keys, **options):
        if asked[0].noise_key in noise_keys:
            raise RuntimeError("out of memory")
        return control.predict_chunks(model, processor, images, instructions, noise_keys, **options)

    monkeypatch.setattr(served_policy, "predict_chunks", predict_chunks)
    broken, found = policy.predict(asked)
    assert isinstance(broken, RuntimeError)
    np.testing.assert_array_equal(found, evaluated(arm_policy, asked[1], "arm", 1))


def test_actions_that_are_not_finite_are_an_error(arm_policy):
    policy = ModelPolicy(*arm_policy, dataset_key="arm", num_steps=1)
    weight = next(arm_policy[0].action_expert.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
        (found,) = policy.predict(requests(1))
        weight.copy_(kept)
    assert isinstance(found, ServingError)
    assert "NaN or infinity, which is not sent" in str(found)


def test_what_it_tells_and_warms_up_with(arm_policy, monkeypatch):
    with pytest.raises(ValueError, match="there are 2 to choose from"):
        ModelPolicy(*arm_policy)
    policy = ModelPolicy(*arm_policy, dataset_key="arm", num_steps=4, revision="abc", compile=True)
    told = {
        "dataset_key": "arm",
        "dataset_keys": list(KEYS),
        "num_steps": 4,
        "policy_revision": "abc",
        "needs_state": True,
    }
    assert {key: policy.metadata[key] for key in told} == told
    assert policy.contract("arm").state_names == ("x", "y", "gripper")
    assert policy.new_seed() != policy.new_seed()
    compiled = []
    monkeypatch.setattr(arm_policy[0], "warm_up", lambda **inputs: compiled.append(inputs), raising=False)
    policy.warm_up()
    assert len(compiled) == 1


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> LeRobotDataset:
    root = write_counting_dataset(tmp_path_factory.mktemp("recorded") / "arm", (3, 2))
    return LeRobotDataset(root, chunk_size=2, dataset_key="recorded")


def replayed(replay: DatasetReplay, *key: int) -> list[float]:
    seen = Observation({"image": np.zeros((8, 8, 3), dtype=np.uint8)}, None, "push")
    (chunk,) = replay.predict([ChunkRequest(seen, key)])
    assert chunk.dtype == np.float32
    return chunk[:, 0].tolist()


def test_a_replay_follows_its_episodes(recorded):
    replay = DatasetReplay(recorded)
    # Behind the end the last action is repeated.
    assert [replayed(replay, 0, prediction) for prediction in range(3)] == [[0, 1], [2, 2], [2, 2]]
    assert [replayed(replay, 1, prediction) for prediction in range(2)] == [[3, 4], [4, 4]]
    assert replayed(replay, 2) == replayed(replay, 2, 0, 7) == [0, 1]
    assert [replay.new_seed() for _ in range(3)] == [0, 1, 2]
    half = DatasetReplay(recorded, n_action_steps=1)
    assert [replayed(half, 0, prediction) for prediction in range(3)] == [[0, 1], [1, 2], [2, 2]]
    assert half.contract("recorded").cameras == {"image": Camera(height=8, width=8)}
    assert half.metadata["contract"] == half.contract("recorded").to_dict()
    with pytest.raises(ValueError, match="n_action_steps=3 must lie between 1 and the chunk size 2"):
        DatasetReplay(recorded, n_action_steps=3)
