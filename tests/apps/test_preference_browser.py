# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 view` shows: which pairs are found, what is said about one, and where its chunks are drawn."""

import numpy as np
import pytest

from helpers.preference_demonstrations import write_demonstrations
from nora15_hf.apps.page_parts import BESIDE_PICTURE, ON_PICTURE, table_html
from nora15_hf.apps.preference_browser import PreferenceBrowser, recorded_projection
from nora15_hf.apps.shown_pair import pair_html, sentence, slider_limits
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    build_preferences,
    load_preferences,
)
from nora15_hf.simulation.hand_projection import HandProjection

INSTRUCTIONS = ("open the faucet", "close the faucet")
OVERHEAD = HandProjection(np.array([[0.1, 0, 0.5], [0, 0.1, 0.5], [0, 0, 1.0]]), np.array([0.0, 0.0, -3.0]), 0.01)


def build(folder, standardize: bool):
    """Pairs by two rewards, of which the second contradicts the first."""
    dataset = LeRobotDataset(write_demonstrations(folder / "data", instructions=INSTRUCTIONS), dataset_key="default")
    policy, processor = tiny_policy(INSTRUCTIONS, image_size=56)
    rewards = {"all": (GroundTruthActionReward(), 1.0), "hand": (GroundTruthActionReward(masked_dims=[3]), -0.25)}
    build_preferences(
        folder / "preferences",
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=range(len(dataset)),
        reward=WeightedReward(rewards, standardize=standardize),
        num_candidates=3,
        sampler=FlowSampler(num_steps=1),
        progress=False,
    )
    return load_preferences(folder / "preferences")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return build(tmp_path_factory.mktemp("view"), standardize=False)


@pytest.fixture(scope="module")
def processor():
    return tiny_policy(INSTRUCTIONS, image_size=56)[1]


def test_pairs_are_found_by_instruction_and_margin(rows):
    browser = PreferenceBrowser(rows)
    assert browser.instructions() == sorted(INSTRUCTIONS)
    everything = browser.find(None, -np.inf, np.inf)
    assert sorted(everything) == list(range(len(rows)))
    assert np.all(np.diff(browser.margins[everything]) <= 0)
    # Limits that a slider took from the margins themselves include them.
    low, high = float(browser.margins[everything[-1]]), float(browser.margins[everything[1]])
    assert browser.find(None, low, high) == everything[1:]
    ours = browser.find(INSTRUCTIONS[1], low, np.inf)
    assert {rows[row]["instruction"] for row in ours} == {INSTRUCTIONS[1]}
    assert len(ours) < len(everything)
    assert browser.find(INSTRUCTIONS[0], 1e6, 1e7) == []


@pytest.mark.parametrize("standardize", [False, True])
def test_shares_add_up_to_the_margin_and_name_who_decided(standardize, rows, tmp_path):
    rows = build(tmp_path, standardize) if standardize else rows
    browser = PreferenceBrowser(rows)
    for row in browser.find(None, -np.inf, np.inf):
        pair = browser.pair(row)
        assert sum(share.share for share in pair.shares) == pytest.approx(pair.margin, abs=1e-5)
        assert pair.decided_by.share == max(share.share for share in pair.shares) > 0
        assert pair.reward[pair.chosen_number] - pair.reward[pair.rejected_number] == pytest.approx(pair.margin)
        np.testing.assert_array_equal(pair.chosen, rows[row]["candidates"][pair.chosen_number])
    assert f"“{pair.instruction}”, episode {pair.episode_index}, frame" in sentence(pair)
    assert f"decided by {pair.decided_by.name}, which gave" in sentence(pair)
    assert "3 candidates per state" in browser.describe()


def test_with_the_policy_chunks_are_in_physical_units_and_on_the_picture(rows, processor, monkeypatch):
    plain = PreferenceBrowser(rows)
    assert plain.action_names == [f"dimension {number}" for number in range(4)]
    picture, _, table = pair_html(plain, plain.pair(0))
    assert BESIDE_PICTURE in picture
    assert "chosen" in table
    assert "share of the margin" in table

    browser = PreferenceBrowser(rows, processor)
    assert browser.pair(0).hand is None
    monkeypatch.setattr("nora15_hf.apps.preference_browser.recorded_projection", lambda conventions: OVERHEAD)
    browser = PreferenceBrowser(rows, processor)
    pair = browser.pair(0)
    np.testing.assert_allclose(pair.hand, np.float32(rows[0]["state"])[:3])
    expected = processor.unnormalize_actions(np.float32(rows[0]["chosen"]), "default")
    np.testing.assert_array_equal(pair.chosen, expected)
    assert ON_PICTURE in pair_html(browser, pair)[0]


def test_what_cannot_be_shown_is_refused(rows, processor):
    with pytest.raises(ValueError, match="has no pairs"):
        PreferenceBrowser(rows.select([]))
    unknown = rows.from_dict(rows[:1], features=rows.features)
    with pytest.raises(ValueError, match="read them with load_preferences"):
        PreferenceBrowser(unknown)
    stats = processor.norm_stats
    try:
        processor.norm_stats = {"other": stats["default"]}
        with pytest.raises(ValueError, match="dataset_key 'default', but the policy knows \\['other'\\]"):
            PreferenceBrowser(rows, processor)
    finally:
        processor.norm_stats = stats


def test_a_simulator_that_is_not_here_is_told(monkeypatch, caplog):
    assert recorded_projection({}) is None
    conventions = {"simulator": "metaworld", "renderer": "raycast"}
    monkeypatch.setattr(
        "nora15_hf.simulation.environment_table.import_environment",
        lambda path: (_ for _ in ()).throw(ImportError("metaworld is not installed")),
    )
    assert recorded_projection(conventions) is None
    assert "beside the pictures" in caplog.text
    assert "metaworld is not installed" in caplog.text


def test_texts_in_tables_are_escaped():
    assert "<td>&lt;b&gt;</td>" in table_html(["<i>"], [["<b>"]])
    assert "<th>&lt;i&gt;</th>" in table_html(["<i>"], [["<b>"]])


@pytest.mark.parametrize("margins", [[0.05181396, 0.32563174], [0.5, 0.5], [1e-5, 3.3e-5], [2.0, 1234.0], [-0.2, 0.1]])
def test_sliders_include_every_margin_and_have_short_limits(margins):
    lowest, highest, step = slider_limits(np.float32(margins))
    assert lowest <= min(np.float32(margins)) <= max(np.float32(margins)) <= highest
    assert 0 < step <= highest - lowest <= np.ptp(margins) + 3 * step
    assert max(map(len, map(repr, (lowest, highest, step)))) <= 9
