# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Outcomes in Meta-World are those of the closed loop as it was before environments had a protocol.

`tests/fixtures/closed_loop/outcomes.json` was written at commit 564d1aa by the same calls. The policy needs no network and
draws from its noise keys, so that the outcomes depend on seeds and keys but not on how a processor rounds.
"""

import json

import numpy as np
import pytest
import torch

from helpers.paths import FIXTURES
from helpers.reward_batches import batch_of
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.evaluation.episodes import Episode
from nora15_hf.evaluation.rollout import rollout
from nora15_hf.evaluation.shuffled_images import ShuffledImages
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences.reached_states import record_reached_states
from nora15_hf.preferences.simulator_reward import SimulatorSuccessReward
from nora15_hf.simulation.environment import Observation
from nora15_hf.simulation.simulation_pool import SimulationPool

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.filterwarnings("ignore:Constant:UserWarning"),  # Meta-World's experts, at every step
]

RECORDED = json.loads((FIXTURES / "closed_loop" / "outcomes.json").read_text())
DRIFT = {
    "press the handle down": (0, 1, -1, 1),
    "push the coffee machine button": (0, 1, 0, 1),
    "close the drawer": (0, 1, -0.5, 1),
}


class DriftingPolicy(Nora15ChunkPolicy):
    """Moves in the direction of its instruction, with noise from the keys."""

    def __call__(self, observations, noise_keys):
        chunks = []
        for observation, key in zip(observations, noise_keys, strict=True):
            noise = np.random.default_rng(key).standard_normal((5, 4))
            chunks.append(np.clip(0.6 * np.array(DRIFT[observation.instruction]) + 0.4 * noise, -1, 1))
        return np.stack(chunks).astype(np.float32)


@pytest.fixture(scope="module")
def policy():
    return DriftingPolicy(*tiny_policy(tuple(DRIFT)))


@pytest.fixture(scope="module")
def pool():
    with SimulationPool(
        "metaworld", num_workers=2, num_slots=4, image_size=16, renderer="raycast", max_steps=60
    ) as pool:
        yield pool


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory, pool):
    root = tmp_path_factory.mktemp("closed_loop") / "demonstrations"
    return record_demonstrations(root, ["coffee-button", "handle-press"], 3, pool=pool, progress=False)


def lengths(dataset):
    return (dataset.episodes["to"] - dataset.episodes["from"]).tolist()


def moved(root, action_key="executed_action"):
    """Sum of every dimension's absolute action over all frames."""
    return np.abs(LeRobotDataset(root, action_key=action_key, image_keys=[]).all_actions()).sum(0)


@pytest.mark.slow
def test_rollout(policy, pool):
    tasks = ("handle-press", "coffee-button", "drawer-close")
    results = rollout(
        policy, [Episode(task, 10_000 + seed) for task in tasks for seed in range(4)], pool, progress=False
    )
    found = [[result.task, result.seed, result.success, result.num_steps] for result in results]
    assert found == RECORDED["rollout"]


def test_demonstrations(demonstrations):
    recorded = RECORDED["demonstrations"]
    dataset = LeRobotDataset(demonstrations)
    assert dataset.conventions["demonstrations"]["failed_seeds"] == recorded["failed_seeds"]
    assert lengths(dataset) == recorded["lengths"]
    np.testing.assert_allclose(moved(demonstrations, "action"), recorded["actions"], atol=0.01)
    np.testing.assert_allclose(moved(demonstrations), recorded["executed"], atol=0.01)


def test_reached_states(policy, pool, tmp_path):
    root = record_reached_states(
        tmp_path / "reached",
        policy,
        ["coffee-button", "handle-press"],
        3,
        pool=pool,
        max_policy_steps=30,
        first_seed=40,
        progress=False,
    )
    recorded = RECORDED["reached_states"]
    dataset = LeRobotDataset(root)
    assert dataset.conventions["reached_states"] == {"failed": recorded["failed"], "max_policy_steps": 30}
    by_policy = dataset.conventions["policy_actions"]
    assert list(map(len, by_policy)) == recorded["policy_steps"]
    assert dataset.conventions["episode_seeds"] == recorded["seeds"]
    # What was recorded are whole episodes, the policy's part included.
    assert np.add(lengths(dataset), recorded["policy_steps"]).tolist() == recorded["lengths"]
    moved_by_policy = np.abs(np.clip(np.concatenate(by_policy), -1, 1)).sum(0)
    np.testing.assert_allclose(moved(root) + moved_by_policy, recorded["executed"], atol=0.01)


@pytest.mark.parametrize("who", ["expert", "policy"])
def test_success_reward(policy, pool, demonstrations, who):
    """The recorded numbers are steps to success."""
    dataset = LeRobotDataset(demonstrations, dataset_key="default")
    reward = SimulatorSuccessReward(
        pool, policy.processor, dataset, policy=policy if who == "policy" else None, discount=0.99
    )
    candidates = np.random.default_rng(0).uniform(-1, 1, (3, 2, 5, 4)).astype(np.float32)
    scores = reward.score(batch_of(dataset, [10, 60, 130], torch.from_numpy(candidates)))
    np.testing.assert_allclose(scores, 0.99 ** np.array(RECORDED["scores"][who]), rtol=1e-6)


def test_shuffled_images():
    received = []
    policy = ShuffledImages(
        lambda observations, keys: received.append([observation.images["image"] for observation in observations])
    )
    for instructions in ("abacabb", "aaaaa", "b"):
        policy(
            [Observation({"image": number}, None, text) for number, text in enumerate(instructions)],
            [(10_000 + number, 3) for number in range(len(instructions))],
        )
    assert received == RECORDED["shuffled"]
