# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Stored rewards weighted anew make the pairs that labelling with these weights makes."""

import pytest
import torch

from helpers.preference_demonstrations import write_demonstrations
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FlowSampler,
    GroundTruthActionReward,
    NoPairsError,
    WeightedReward,
    build_preferences,
    preference_info,
    rerank_preferences,
)


class SmallMotions:
    """Prefers chunks that move little."""

    settings: dict = {"type": "SmallMotions"}

    def score(self, batch):
        return -batch.candidates.abs().mean((2, 3))


class Indifferent:
    """Scores every candidate alike."""

    settings: dict = {"type": "Indifferent"}

    def score(self, batch):
        return torch.zeros(batch.candidates.shape[:2])


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    policy, processor = tiny_policy(("open the faucet",), image_size=56)
    dataset = LeRobotDataset(write_demonstrations(root / "demonstrations"), dataset_key="default")

    def built(weights, *, standardize=False, **options):
        rewards = {"demonstration": GroundTruthActionReward(), "calm": SmallMotions(), "none": Indifferent()}
        return build_preferences(
            tmp_path_factory.mktemp("preferences") / "set",
            policy=policy,
            processor=processor,
            dataset=dataset,
            indices=range(8),
            reward=WeightedReward({name: (rewards[name], weight) for name, weight in weights.items()}, standardize),
            num_candidates=3,
            sampler=FlowSampler(num_steps=2),
            progress=False,
            **options,
        )

    return built


@pytest.mark.parametrize("pairing", ["best_worst", "best_random", "all"])
@pytest.mark.parametrize("standardize", [False, True])
def test_other_weights_make_the_pairs_that_labelling_with_them_makes(build, pairing, standardize):
    weights = {"demonstration": 0.2, "calm": 1.0}
    rows = build({"demonstration": 1.0, "calm": 1.0, "none": 1.0}, pairing=pairing)
    found = rerank_preferences(rows, weights, standardize=standardize)
    expected = build(weights, standardize=standardize, pairing=pairing)
    same = [name for name in expected.column_names if name != "rewards"]
    assert found.select_columns(same)[:] == expected.select_columns(same)[:]
    assert found.features == rows.features
    assert found["chosen"] != rows["chosen"]
    record, wanted = preference_info(found).record, preference_info(expected).record
    assert record.settings == wanted.settings
    assert record.decisions == wanted.decisions
    assert record.counts.pairs == len(found)
    assert preference_info(rows).record.settings.reward["rewards"].keys() == {"demonstration", "calm", "none"}


def test_rows_are_named_by_what_they_were_made_of(build):
    rows = build({"demonstration": 1.0, "calm": 0.1})
    one, other = (rerank_preferences(rows, {name: 1.0}) for name in ("demonstration", "calm"))
    assert (
        preference_info(one).record.provenance["reranked_from"]
        == preference_info(other).record.provenance["reranked_from"]
    )
    assert preference_info(one).record.settings != preference_info(other).record.settings


def test_what_cannot_be_reranked_is_refused(build):
    rows = build({"demonstration": 1.0, "none": 1.0})
    with pytest.raises(
        ValueError, match=r"weights=\{'calm': 1.0\} must give weights of rewards .* demonstration, none"
    ):
        rerank_preferences(rows, {"calm": 1.0})
    with pytest.raises(ValueError, match=r"weights=\{\} must give weights"):
        rerank_preferences(rows, {})
    with pytest.raises(NoPairsError, match="the rewards are equal there"):
        rerank_preferences(rows, {"none": 1.0})
    unknown = rows.from_dict(rows[:2])
    with pytest.raises(ValueError, match="Read them with load_preferences"):
        rerank_preferences(unknown, {"none": 1.0})
