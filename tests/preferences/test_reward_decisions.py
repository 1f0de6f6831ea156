# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which reward decides, and whether a reward prefers what was demonstrated."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from helpers.preference_demonstrations import write_demonstrations
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    GroundTruthActionReward,
    RewardDecisions,
    WeightedReward,
    WorldModelGoalReward,
    check_reward,
    select_pairs,
)
from nora15_hf.preferences.reward_decisions import DecisionSums, kendall_tau
from nora15_hf.vjepa2_ac.presets import tiny_world_model

STATES, CANDIDATES = 40, 5


class Known:
    """A reward whose scores are given; nothing else of it is asked."""

    settings: dict = {}


@pytest.fixture(scope="module")
def scores() -> dict[str, torch.Tensor]:
    """One reward spreads thirty times as far as the other, and knows nothing of it."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: spread * torch.randn(STATES, CANDIDATES, generator=generator)
        for name, spread in {"small": 0.1, "large": 3.0}.items()
    }


def decisions(scores, weights, *, standardize=False, pairing="best_worst", parts=(slice(None),)) -> RewardDecisions:
    reward = WeightedReward({name: (Known(), weights[name]) for name in scores}, standardize)
    candidates = np.random.default_rng(0).normal(size=(STATES, CANDIDATES, 2, 3))
    sums = DecisionSums.none(list(scores))
    for part in parts:
        here = {name: score[part] for name, score in scores.items()}

        def pairs(of: torch.Tensor, part=part):
            return select_pairs(of.numpy(), candidates[part], pairing=pairing, indices=range(STATES)[part])

        sums += DecisionSums.of_batch(here, reward.weights, reward.standardize, pairs(reward.combine(here)), pairs)
    return RewardDecisions.of(sums, weights, standardize)


@pytest.mark.parametrize("pairing", ["best_worst", "best_random", "all"])
def test_the_reward_that_spreads_most_decides_and_equal_say_ends_that(scores, pairing):
    found = decisions(scores, {"small": 1.0, "large": 1.0}, pairing=pairing)
    assert found.pairs == STATES * (10 if pairing == "all" else 1)
    assert found.rewards["large"]["alone"] > 0.9 > found.rewards["small"]["alone"]
    assert found.rewards["large"]["alone"] == found.rewards["small"]["without"]
    assert found.decided_by == "large"
    assert found.equal_say["small"] == 1.0
    spreads = {name: found.rewards[name]["spread"] for name in scores}
    assert found.equal_say["large"] == pytest.approx(spreads["small"] / spreads["large"])
    assert "The reward 'large' decides" in found.warning()
    assert "weights small 1, large 0.0283" in found.warning()
    for fair in (
        decisions(scores, found.equal_say, pairing=pairing),
        decisions(scores, {"small": 1.0, "large": 1.0}, standardize=True, pairing=pairing),
    ):
        assert fair.decided_by is fair.warning() is fair.equal_say is None
        assert abs(fair.rewards["small"]["alone"] - fair.rewards["large"]["alone"]) < 0.3
    by_standardizing = decisions(scores, {"small": 0.02, "large": 1.0}, standardize=True, pairing=pairing)
    assert by_standardizing.equal_say == {"small": 0.02, "large": 0.02}


def test_figures_are_those_of_their_definitions(scores):
    found = decisions(scores, {"small": 1.0, "large": 0.5})
    for name, score in scores.items():
        assert found.rewards[name]["spread"] == pytest.approx(score.std(1, correction=0).mean().item(), rel=1e-5)
        assert found.rewards[name]["ties"] == 0
    taus = [kendalltau(*two).statistic for two in zip(*scores.values(), strict=True)]
    assert found.kendall_tau == {"small, large": pytest.approx(np.mean(taus))}
    parts = decisions(scores, {"small": 1.0, "large": 0.5}, parts=(slice(0, 7), slice(7, None)))
    assert parts.rewards == {name: pytest.approx(each) for name, each in found.rewards.items()}
    assert parts.kendall_tau == pytest.approx(found.kendall_tau)
    assert found.text().splitlines()[0].split("  ")[0] == "reward"
    assert len(found.text().splitlines()) == 4


def test_ties_and_rewards_that_tell_nothing_apart(scores):
    constant = {"success": torch.zeros(STATES, CANDIDATES), "large": scores["large"]}
    constant["success"][0, :2] = 1.0
    found = decisions(constant, {"success": 1.0, "large": 0.0001})
    # Four of ten comparisons in one state of forty are no ties: 6 of 2 * 3.
    assert found.rewards["success"]["ties"] == pytest.approx(1 - 6 / 400)
    expected = kendalltau(constant["success"][0], constant["large"][0]).statistic
    assert found.kendall_tau == {"success, large": pytest.approx(expected)}
    nothing = decisions({"success": torch.zeros(STATES, CANDIDATES)}, {"success": 1.0})
    assert (nothing.pairs, nothing.kendall_tau, nothing.warning()) == (0, {}, None)
    assert np.isnan(kendall_tau(np.zeros((1, 3)), np.ones((1, 3))))


def test_a_reward_without_a_say(scores):
    # Not meant to have one.
    assert decisions(scores, {"small": 0.0, "large": 1.0}).warning() is None
    flat = {"flat": torch.zeros(STATES, CANDIDATES), "large": scores["large"]}
    warning = decisions(flat, {"flat": 1.0, "large": 1.0}).warning()
    assert "'flat' scores the candidates of a state alike, so that no weight gives it a say" in warning
    assert "with the weights" not in warning


class Indifferent:
    """Scores every candidate alike."""

    settings: dict = {"type": "Indifferent"}

    def score(self, batch):
        return torch.zeros(batch.candidates.shape[:2])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demonstrations"
    return LeRobotDataset(write_demonstrations(root, (7, 9), ("open", "close")), dataset_key="default")


def test_a_reward_is_checked_on_demonstrated_chunks(dataset, tmp_path):
    processor = tiny_policy(("open", "close"), image_size=56)[1]
    reward = WeightedReward({"demonstration": (GroundTruthActionReward(), 1.0), "none": (Indifferent(), 2.0)})
    options = {"processor": processor, "dataset": dataset, "reward": reward, "progress": False}
    result = check_reward(indices=[0, 1, 2, 8, 9], batch_size=2, **options)
    assert result.spoiled == ["noise 0.1", "noise 0.25", "noise 0.5", "noise 1", "shuffled", "reversed"]
    assert result.episodes == [0, 1]
    ranking = result.ranking()
    assert list(ranking) == ["demonstration", "none", "combined"]
    for kind in result.spoiled:
        assert ranking["demonstration"]["all"][kind] == ranking["combined"]["all"][kind] == (5, 5)
        assert ranking["demonstration"]["open"][kind] == (3, 3)
        assert ranking["none"]["close"][kind] == (0, 2)
    result.save(tmp_path)
    written = json.loads((tmp_path / "reward_check.json").read_text())
    assert written["ranking"]["none"]["all"]["reversed"]["won"] == 0
    assert written["states"] == 5
    assert (tmp_path / "reward_check.png").read_bytes()[1:4] == b"PNG"
    assert "100% (57% to 100%)" in result.text()
    # The same states in other batches are ranked against the same chunks.
    assert check_reward(indices=[0, 1, 2, 8, 9], **options).ranking() == ranking


def test_how_often_demonstrations_approach_the_goal_is_reported(dataset, monkeypatch):
    monkeypatch.setattr(
        WorldModelGoalReward,
        "nears_goal",
        lambda self, batch: torch.tensor([sample["instruction"] == "close" for sample in batch.samples]),
    )
    world_model = tiny_world_model(56)
    reward = WeightedReward(
        {
            "goal": (WorldModelGoalReward(*world_model), 1.0),
            "next": (WorldModelGoalReward(*world_model, "subgoal"), 1.0),
        }
    )
    processor = tiny_policy(("open", "close"), image_size=56)[1]
    result = check_reward(processor=processor, dataset=dataset, indices=[0, 1, 8], reward=reward, progress=False)
    assert result.progress() == {"goal": {"all": (1, 3), "open": (0, 2), "close": (1, 1)}}
    assert result.to_dict()["nears_goal"]["goal"]["open"] == {"nearer": 0, "states": 2}
    lines = result.text().splitlines()
    assert lines[-4] == "How often the demonstrated chunk itself ends nearer to the goal of goal:"
    assert lines[-2].split() == ["open", "0%"]


def test_a_spoiled_chunk_that_is_the_demonstrated_one_does_not_count(dataset, monkeypatch):
    processor = tiny_policy(("open", "close"), image_size=56)[1]
    reward = WeightedReward({"none": (Indifferent(), 1.0)})
    monkeypatch.setattr("nora15_hf.preferences.reward_check.demonstrated_chunks", lambda *_: torch.ones(2, 5, 4))
    result = check_reward(processor=processor, dataset=dataset, indices=[0, 1], reward=reward, progress=False)
    assert result.ranking()["none"]["all"]["reversed"] == (0, 0)
    assert result.ranking()["none"]["all"]["noise 1"] == (0, 2)
    assert result.text().splitlines()[3].split()[-1] == "-"
    with pytest.raises(ValueError, match="indices is empty"):
        check_reward(processor=processor, dataset=dataset, indices=[], reward=reward)
