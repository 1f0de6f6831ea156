# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pairs without a reward: stale against fresh, interventions, success of episodes."""

import copy

import numpy as np
import pytest

from nora15_hf.actions.normalization import ActionStatistics
from nora15_hf.commands import preference_building
from nora15_hf.commands import preferences as command
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.hub import write_card
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    EpisodeSuccess,
    GroundTruthActionReward,
    Interventions,
    NoPairsError,
    PreferenceRecord,
    StaleAgainstFresh,
    WeightedReward,
    build_preferences,
    load_preferences,
    regenerate_candidates,
    sample_candidates,
)

LENGTHS = (9, 8, 12, 7)
INSTRUCTIONS = ["open", "open", "open", "close"]
HUMAN = [(0, 2, 5), (2, 0, 12)]  # episode, first frame, end
SUCCESSES = (0, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four episodes of flat pictures, with who acted and what succeeded."""
    rng = np.random.default_rng(0)
    vector = {"dtype": "float32", "shape": (4,)}
    flag = {"dtype": "bool", "shape": (1,)}
    features = {
        "observation.image": {"dtype": "image", "shape": (56, 56, 3)},
        "observation.state": vector,
        "action": vector,
        "intervention": flag,
        "next.success": flag,
        "nobody": flag,
    }
    root = tmp_path_factory.mktemp("pairs") / "recording"
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="test")
    # The first episode begins like the third, and the second unlike both.
    for number, (length, brightness) in enumerate(zip(LENGTHS, (100, 200, 110, 100), strict=True)):
        human, success = np.zeros((2, length, 1), dtype=bool)
        for episode, first, end in HUMAN:
            if episode == number:
                human[first:end] = True
        success[-1] = number in SUCCESSES
        writer.add_episode(
            INSTRUCTIONS[number],
            {
                "observation.image": np.full((length, 56, 56, 3), brightness, dtype=np.uint8)
                + rng.integers(0, 9, (length, 56, 56, 3), dtype=np.uint8),
                "observation.state": rng.uniform(-1, 1, (length, 4)).astype(np.float32),
                "action": rng.uniform(-1, 1, (length, 4)).astype(np.float32),
                "intervention": human,
                "next.success": success,
                "nobody": np.zeros((length, 1), dtype=bool),
            },
        )
    return writer.finalize()


@pytest.fixture(scope="module")
def dataset(root):
    return LeRobotDataset(root, dataset_key="default")


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy(("open", "close"), image_size=56)


def build(folder, tiny, dataset, source, indices=None, **options):
    return build_preferences(
        folder,
        policy=tiny[0],
        processor=tiny[1],
        dataset=dataset,
        indices=source.positions if indices is None else indices,
        pairs_from=source,
        progress=False,
        **options,
    )


def test_stale_against_fresh(tmp_path, tiny, dataset):
    source = StaleAgainstFresh(dataset, steps=2)
    starts = dataset.episodes["from"].tolist()
    assert source.positions == sorted(set(range(len(dataset))) - {start + step for start in starts for step in (0, 1)})
    rows = build(tmp_path / "set", tiny, dataset, source, [2, 7, 20], batch_size=2).with_format("numpy")
    assert rows["frame_index"][:].tolist() == [2, 7, 3]
    for row, position in zip(rows, (2, 7, 20), strict=True):
        fresh = sample_candidates(*tiny, [dataset[position]], num_candidates=2)[0, 0].numpy()
        # Under the noise of the present state, which the observation's index stands for.
        earlier = dataset[position - 2] | {"index": dataset[position]["index"]}
        stale = sample_candidates(*tiny, [earlier], num_candidates=2)[0, 0].numpy()
        np.testing.assert_allclose(row["chosen"], fresh, atol=1e-5)
        np.testing.assert_allclose(row["rejected"][:3], stale[2:], atol=1e-5)
        np.testing.assert_allclose(row["rejected"][3:], row["chosen"][3:])
        assert row["margin"] == 1
    # Position 7 is the last but one of its episode.
    assert rows["action_mask"][:].tolist() == [
        [True] * 3 + [False] * 2,
        [True] * 2 + [False] * 3,
        [True] * 3 + [False] * 2,
    ]


def test_stale_differences_are_counted_from_the_present_state(tiny, dataset, tmp_path):
    """A policy of differences from the state: what is left of the old chunk leads to the same places."""
    policy, processor = tiny
    processor = copy.deepcopy(processor)
    processor.delta_action_mask = [True] * 4
    wide = ActionStatistics.from_actions(np.array([[-9.0] * 4, [9.0] * 4], dtype=np.float32))
    processor.set_norm_stats({"default": wide}, {})
    rows = build(tmp_path / "set", (policy, processor), dataset, StaleAgainstFresh(dataset, 2), [4]).with_format(
        "numpy"
    )
    earlier = dataset[2] | {"index": 4}
    stale = sample_candidates(policy, processor, [earlier], num_candidates=2)[:, 0]
    before = processor.unnormalize_actions(stale, "default", state=dataset[2]["state"][None])[0]
    now = processor.unnormalize_actions(rows["rejected"][:], "default", state=dataset[4]["state"][None])[0]
    np.testing.assert_allclose(now[:3], before[2:], atol=1e-5)
    assert np.abs(rows["rejected"][0][:3] - stale[0, 2:].numpy()).max() > 1e-3


def test_interventions(tmp_path, tiny, dataset):
    source = Interventions(dataset)
    assert source.positions == [2, 3, 4, *range(17, 29)]
    rows = build(tmp_path / "set", tiny, dataset, source, [2, 4, 20]).with_format("numpy")
    for row, position in zip(rows, (2, 4, 20), strict=True):
        expected = tiny[1].normalize_actions(dataset[position]["actions"], "default")
        np.testing.assert_allclose(row["chosen"], expected, atol=1e-6)
        np.testing.assert_allclose(row["actions"], row["chosen"])
        policy = sample_candidates(*tiny, [dataset[position]], num_candidates=2)[0, 0].numpy()
        np.testing.assert_allclose(row["rejected"], policy, atol=1e-5)
    # Where the policy acted again, nobody says what is better.
    assert rows["action_mask"][:].sum(1).tolist() == [3, 1, 5]


def test_success_of_episodes(tmp_path, tiny, dataset):
    source = EpisodeSuccess(dataset, num_frames=3)
    assert source.positions == [0, 1, 2]
    rows = build(tmp_path / "set", tiny, dataset, source).with_format("numpy")
    for frame, row in enumerate(rows):
        # The third episode begins like the first; the fourth has another instruction.
        for side, position in (("chosen", frame), ("rejected", 17 + frame)):
            expected = tiny[1].normalize_actions(dataset[position]["actions"], "default")
            np.testing.assert_allclose(row[side], expected, atol=1e-6)
    assert rows["rewards"][0] == {"success": pytest.approx([1.0, 0.0])}


def test_they_are_ordinary_preference_sets(tmp_path, tiny, dataset):
    source = EpisodeSuccess(dataset)
    folder = tmp_path / "set"
    rows = build(folder, tiny, dataset, source)
    record = PreferenceRecord.read(folder)
    assert record.settings.pairs_from == source.settings
    assert (record.counts.states, record.counts.pairs) == (5, 5)
    assert len(load_preferences(folder, policy=tiny[0], processor=tiny[1])) == 5
    # Called again it finds everything done, and another source is another set.
    assert build(folder, tiny, dataset, source).to_dict() == rows.to_dict()
    with pytest.raises(FileExistsError, match="pairs_from"):
        build(folder, tiny, dataset, EpisodeSuccess(dataset, num_frames=4), [0, 1, 2, 3])
    with pytest.raises(ValueError, match="no candidates that were sampled together, but pairs"):
        regenerate_candidates(folder, rows[0], policy=tiny[0], processor=tiny[1], dataset=dataset)
    card = write_card(folder).read_text()
    assert "made without a reward: the first 5 frames of an episode that succeeded" in card
    assert "weighted sum" not in card


def test_a_source_without_pairs(dataset):
    with pytest.raises(ValueError, match="'nobody' of 'default' is 0 in all 36 frames: nobody took over"):
        Interventions(dataset, "nobody")
    with pytest.raises(ValueError, match="'nobody' of 'default', 0 of 4 episodes succeeded"):
        EpisodeSuccess(dataset, "nobody")
    with pytest.raises(ValueError, match=r"steps=5 must lie between 1 and 4"):
        StaleAgainstFresh(dataset, 5)
    with pytest.raises(ValueError, match="num_frames=0 must be at least 1"):
        EpisodeSuccess(dataset, num_frames=0)
    with pytest.raises(ValueError, match="'action' of 'default' has 4 numbers per frame, expected one"):
        Interventions(dataset, "action")


def test_arguments_that_do_not_fit(tmp_path, tiny, dataset):
    source = Interventions(dataset)
    with pytest.raises(ValueError, match="indices names 0 and 1 others at which Interventions has no pair"):
        build(tmp_path / "set", tiny, dataset, source, [0, 1, 2])
    with pytest.raises(ValueError, match="pairing='all' are for candidates"):
        build(tmp_path / "set", tiny, dataset, source, pairing="all")
    part = LeRobotDataset(dataset.root, chunk_size=5, episodes=[1, 2])
    with pytest.raises(ValueError, match="Interventions was made of other frames than those of dataset 'default'"):
        build(tmp_path / "set", tiny, dataset, Interventions(part))
    reward = WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)})
    with pytest.raises(ValueError, match="Give either reward"):
        build(tmp_path / "set", tiny, dataset, source, reward=reward)
    assert not (tmp_path / "set").exists()


def test_a_human_who_does_the_same_leaves_no_pair(tmp_path, tiny, dataset, monkeypatch):
    def same(self, context):
        pairs = original(self, context)
        pairs.chunks[:, 1] = pairs.chunks[:, 0]
        return pairs

    original = Interventions.pairs
    monkeypatch.setattr(Interventions, "pairs", same)
    with pytest.raises(NoPairsError, match=r"No pair is left of 15 states: .* 15 pairs are ties"):
        build(tmp_path / "set", tiny, dataset, Interventions(dataset))


@pytest.mark.parametrize("source", ["stale", "interventions", pytest.param("success", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_command(source, tmp_path, tiny, root, capsys, monkeypatch):
    if source != "success":
        # Drawing takes longer than everything else.
        monkeypatch.setattr(preference_building, "write_preference_figures", lambda folder, rows: None)
    for part in tiny:
        part.save_pretrained(tmp_path / "policy")
    options = ["--demonstrations", str(root), "--dataset_key", "default", "--output", str(tmp_path / "set")]
    options += ["--success_frames", "2"] if source == "success" else []
    command.main(["--policy", str(tmp_path / "policy"), *options, "--pairs_from", source])
    pairs = {"stale": 28, "interventions": 15, "success": 2}[source]
    assert f"{pairs} pairs from {pairs} states" in capsys.readouterr().out
    assert (tmp_path / "set" / "README.md").is_file()


def test_options_of_the_command_that_exclude_each_other(tmp_path, capsys):
    options = ["--policy", "me/policy", "--demonstrations", "me/data", "--output", str(tmp_path / "set")]
    with pytest.raises(SystemExit):
        command.main([*options, "--pairs_from", "stale", "--world_model", "me/world-model"])
    assert "--world_model has no effect with --pairs_from stale, which ranks no candidates" in capsys.readouterr().err
