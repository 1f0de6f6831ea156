# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preferences that need the simulator: states reached again, success as a reward, states reached by the policy."""

import numpy as np
import pytest
import torch

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install 'nora15_hf[sim]'")

from helpers.reward_batches import batch_of
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    build_preferences,
    select_states,
)
from nora15_hf.preferences.reached_states import record_reached_states
from nora15_hf.preferences.simulator_reward import SimulatorSuccessReward
from nora15_hf.preferences.simulator_states import SimulatorStates
from nora15_hf.simulation.metaworld.metaworld_env import MetaWorldEnv
from nora15_hf.simulation.simulation_pool import SimulationPool

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.filterwarnings("ignore:Constant:UserWarning"),  # Meta-World's experts, at every step
]

TASK = "coffee-button"
INSTRUCTION = "push the coffee machine button"
MAX_STEPS = 60


@pytest.fixture(scope="module")
def pool():
    with SimulationPool("metaworld", num_workers=1, num_slots=4, renderer="raycast", max_steps=MAX_STEPS) as pool:
        yield pool


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy((INSTRUCTION,))


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory, pool):
    return record_demonstrations(
        tmp_path_factory.mktemp("data") / "demonstrations", [TASK], 2, pool=pool, noise_std=0.1, progress=False
    )


def opened(root) -> LeRobotDataset:
    return LeRobotDataset(root, dataset_key="default")


def test_frames_are_states_that_can_be_reached_again(demonstrations, pool):
    dataset = opened(demonstrations)
    states = SimulatorStates(dataset)
    wanted = [(0, 0), (1, 7), (1, 30)]
    found = pool.restore(
        [
            (slot, state.task, state.seed, state.executed)
            for slot, state in enumerate(states.state(*position) for position in wanted)
        ]
    )
    for (episode, frame), observation in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(
            observation.images["image"], dataset.frame(int(dataset.episodes["from"][episode]) + frame)
        )
    assert states.state(1, 30).executed.shape == (30, 4)
    with pytest.raises(ValueError, match="opened with 1 of its 2 episodes"):
        SimulatorStates(LeRobotDataset(demonstrations, image_keys=[], episodes=[1]))


def test_the_score_is_what_happens_in_the_simulator(demonstrations, pool, tiny):
    dataset = opened(demonstrations)
    index = 20
    sample = dataset[index]
    good = torch.from_numpy(sample["actions"])
    away = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(5, 4)
    reward = SimulatorSuccessReward(pool, tiny[1], dataset, discount=0.9)
    scores = reward.score(batch_of(dataset, [index, 0], torch.stack([good, away]).expand(2, 2, 5, 4)))
    env = MetaWorldEnv(TASK, renderer="raycast", max_steps=MAX_STEPS)
    state = SimulatorStates(dataset).state(0, index)
    for number, chunk in enumerate((good, away)):
        env.reset(state.seed)
        for action in (*state.executed, *chunk.numpy()):
            env.step(action)
        while not env.success and env.num_steps < MAX_STEPS:
            env.step(env.expert_action())
        expected = 0.9 ** (env.num_steps - index) if env.success else 0.0
        assert scores[0, number] == pytest.approx(expected, rel=1e-6)
    assert scores[0, 0] > scores[0, 1]
    assert torch.equal(reward.score(batch_of(dataset, [index], good.expand(1, 2, 5, 4)))[0], scores[0, :1].expand(2))
    assert reward.settings["continued_by"] == "expert"
    env.close()


def test_the_policy_can_go_on_and_meets_the_same_luck_with_every_candidate(demonstrations, pool, tiny):
    dataset = opened(demonstrations)
    calls = []

    class Watched(Nora15ChunkPolicy):
        def __call__(self, observations, noise_keys):
            calls.append((list(noise_keys), [observation.instruction for observation in observations]))
            return super().__call__(observations, noise_keys)

    policy = Watched(*tiny, sampler=FlowSampler(1))
    reward = SimulatorSuccessReward(pool, tiny[1], dataset, policy=policy)
    candidates = torch.zeros(1, 2, 5, 4)
    scores = reward.score(batch_of(dataset, [30], candidates))
    seed = SimulatorStates(dataset).state(0, 30).seed
    assert calls[0] == ([(seed, 30, 1)] * 2, [INSTRUCTION] * 2)
    assert len(calls) == (MAX_STEPS - 30 - 5) / 5
    assert scores[0, 0] == scores[0, 1]
    assert reward.settings["continued_by_fingerprint"]
    with pytest.raises(ValueError, match=r"discount=0 must lie in \(0, 1\]"):
        SimulatorSuccessReward(pool, tiny[1], dataset, discount=0)


@pytest.mark.slow
def test_states_that_the_policy_reached_become_preferences(pool, tiny, tmp_path):
    policy = Nora15ChunkPolicy(*tiny, sampler=FlowSampler(1))
    root = record_reached_states(
        tmp_path / "reached", policy, [TASK], 3, pool=pool, max_policy_steps=10, first_seed=40, progress=False
    )
    again = record_reached_states(
        tmp_path / "again", policy, [TASK], 3, pool=pool, max_policy_steps=10, first_seed=40, progress=False
    )
    dataset = opened(root)
    for column in ("all_actions", "all_states"):
        np.testing.assert_array_equal(getattr(dataset, column)(), getattr(LeRobotDataset(again), column)())
    recorded = dataset.conventions["reached_states"]
    assert dataset.num_episodes + len(recorded["failed"]) == 3
    # The policy acted first, and then the expert alone.
    seed, executed = (dataset.conventions[name][0] for name in ("episode_seeds", "policy_actions"))
    assert all(5 <= len(actions) <= 10 for actions in dataset.conventions["policy_actions"])
    [seen] = pool.start([(0, TASK, seed)])
    [chunk] = policy([seen], [(seed, 0)])
    np.testing.assert_allclose(executed[:5], chunk, atol=1e-5)
    np.testing.assert_array_equal(dataset.all_actions(), dataset.column("executed_action"))
    states = SimulatorStates(dataset).state(0, 8)
    assert len(states.executed) == len(executed) + 8
    [observation] = pool.restore([(0, states.task, states.seed, states.executed)])
    np.testing.assert_array_equal(observation.images["image"], dataset.frame(8))

    reward = WeightedReward(
        {
            "success": (SimulatorSuccessReward(pool, tiny[1], dataset, discount=0.99), 1.0),
            "ground_truth": (GroundTruthActionReward(), 0.1),
        }
    )
    rows = build_preferences(
        tmp_path / "preferences",
        policy=tiny[0],
        processor=tiny[1],
        dataset=dataset,
        indices=select_states(dataset, 3),
        reward=reward,
        num_candidates=2,
        sampler=FlowSampler(num_steps=1),
        progress=False,
    )
    assert all(0 < value < 1 for row in rows for value in row["rewards"]["success"])
    with pytest.raises(ValueError, match="steps_after_success=0 must be at least 1"):
        record_reached_states(tmp_path / "x", policy, [TASK], 1, pool=pool, steps_after_success=0)
    with pytest.raises(ValueError, match="max_policy_steps < 60 must hold"):
        record_reached_states(tmp_path / "x", policy, [TASK], 1, pool=pool, max_policy_steps=60)
