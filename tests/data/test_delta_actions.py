# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Actions as differences from the state: statistics, training targets, and the way back in a control loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nora15_hf import ActionStatistics, Nora15Processor
from nora15_hf.actions.normalization import actions_to_deltas, deltas_to_actions
from nora15_hf.control import Nora15ControlPolicy
from nora15_hf.data import LeRobotDataset, LeRobotWriter, PolicyCollator, compute_statistics
from nora15_hf.nora15.presets import tiny_policy

MASK = [True, True, True, False]
LENGTHS = (7, 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> LeRobotDataset:
    root = tmp_path_factory.mktemp("delta") / "arm"
    writer = LeRobotWriter(
        root,
        fps=10,
        features={
            "observation.image": {"dtype": "image", "shape": (84, 84, 3)},
            "observation.state": {"dtype": "float32", "shape": (5,)},
            "action": {"dtype": "float32", "shape": (4,)},
        },
        robot_type="arm",
    )
    random = np.random.default_rng(0)
    for length in LENGTHS:
        state = random.normal(5, 1, (length, 5)).astype(np.float32)
        action = np.concatenate([state[:, :3] + random.normal(0, 0.1, (length, 3)), np.ones((length, 1))], axis=1)
        image = random.integers(0, 256, (length, 84, 84, 3), dtype=np.uint8)
        frames = {"observation.image": image, "observation.state": state, "action": action.astype(np.float32)}
        writer.add_episode("open the faucet", frames)
    return LeRobotDataset(writer.finalize(), chunk_size=3, dataset_key="arm")


@pytest.fixture(scope="module")
def policy(dataset):
    statistics = compute_statistics(dataset, delta_mask=MASK)["action"]
    model, processor = tiny_policy(chunk_size=3, norm_stats={"arm": statistics})
    processor.delta_action_mask = MASK
    return model, processor


@given(
    batch=st.integers(1, 4), between=st.lists(st.integers(1, 3), max_size=2), mask=st.lists(st.booleans(), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_deltas_and_back(batch, between, mask, seed):
    random = np.random.default_rng(seed)
    actions = random.normal(size=(batch, *between, len(mask)))
    state = random.normal(size=(batch, len(mask) + 1))
    deltas = actions_to_deltas(actions, state, mask)
    expected = actions - (state[:, : len(mask)] * mask).reshape(batch, *[1] * len(between), len(mask))
    np.testing.assert_allclose(deltas, expected, atol=1e-12)
    np.testing.assert_allclose(deltas_to_actions(deltas, state, mask), actions, atol=1e-12)


def test_statistics_count_every_step_inside_its_episode(dataset):
    actions, states = dataset.all_actions(), dataset.all_states()
    rows = [
        actions[start + step] - np.append(states[start, :3], 0)
        for first, length in ((0, 7), (7, 4))
        for start in range(first, first + length)
        for step in range(3)
        if start + step < first + length
    ]
    found = compute_statistics(dataset, delta_mask=MASK)["action"]
    expected = ActionStatistics.from_actions(np.stack(rows))
    assert found.count == len(rows)
    np.testing.assert_allclose(found.q99, expected.q99, rtol=1e-6)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=1e-6)


def test_training_targets_are_normalised_deltas(dataset, policy):
    _, processor = policy
    samples = [dataset[0], dataset[8]]
    batch = PolicyCollator(processor)(samples)
    deltas = np.stack([sample["actions"] - np.append(sample["state"][:3], 0) for sample in samples])
    processor.delta_action_mask = None
    try:
        expected = processor.normalize_actions(torch.from_numpy(deltas).float())
    finally:
        processor.delta_action_mask = MASK
    torch.testing.assert_close(batch["actions"], expected)
    states = np.stack([sample["state"] for sample in samples])
    back = processor.unnormalize_actions(batch["actions"], state=states)
    torch.testing.assert_close(back, torch.from_numpy(np.stack([s["actions"] for s in samples])), atol=1e-5, rtol=0)


def test_several_dataset_keys_take_their_own_state(policy, dataset):
    _, processor = policy
    samples = [dataset[0], dataset[8]]
    one = PolicyCollator(processor)(samples)["actions"]
    for sample in samples:
        alone = PolicyCollator(processor)([sample])["actions"]
        assert any(torch.equal(alone[0], row) for row in one)


def test_the_state_is_demanded(policy, dataset):
    _, processor = policy
    with pytest.raises(ValueError, match="state is missing"):
        processor.unnormalize_actions(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="state is missing"):
        processor(images=dataset.frame(0), text="open the faucet", actions=dataset[0]["actions"])


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (np.zeros(2), "S of at least 3"),
        (np.zeros((3, 4)), "3 rows for a batch of 1"),
        (np.full(4, np.nan), "NaN"),
        (np.zeros((1, 1, 4)), "has shape"),
    ],
)
def test_bad_states_are_refused(policy, state, words):
    with pytest.raises(ValueError, match=words):
        policy[1].unnormalize_actions(torch.zeros(1, 3, 4), state=state)


def test_mask_of_another_length_is_refused(policy):
    processor = policy[1]
    with pytest.raises(ValueError, match="delta_action_mask has 2 entries for action_dim=4"):
        Nora15Processor(processor.tokenizer, action_dim=4, delta_action_mask=[True, False])


def test_mask_is_saved(policy, tmp_path):
    policy[1].save_pretrained(tmp_path)
    assert Nora15Processor.from_pretrained(tmp_path).delta_action_mask == MASK


def test_control_loop_adds_the_state(policy, dataset):
    control = Nora15ControlPolicy(*policy, seed=0)
    observation = {"image": dataset.frame(0), "instruction": "open the faucet", "state": np.zeros(5)}
    still = control.predict_chunk(observation)
    control.reset()
    moved = control.predict_chunk({**observation, "state": np.array([1.0, 2.0, 3.0, 4.0, 5.0])})
    np.testing.assert_allclose(moved - still, np.broadcast_to([1.0, 2.0, 3.0, 0.0], (3, 4)), atol=1e-5)
    with pytest.raises(ValueError, match="'state', which this policy reads or from which"):
        control.predict_chunk({key: value for key, value in observation.items() if key != "state"})
