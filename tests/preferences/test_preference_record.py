# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How a preference set came about: the record on disk, and what of it the rows in memory still know."""

import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from helpers.preference_records import SETTINGS, make_record
from nora15_hf.preferences import split_by_episode
from nora15_hf.preferences.preference_record import (
    PreferenceRecord,
    preference_info,
    with_preference_info,
)


@pytest.fixture
def record() -> PreferenceRecord:
    return make_record()


@pytest.fixture
def rows(record) -> Dataset:
    columns = {"instruction": ["open", "close", "push"], "margin": [1.0, 3.0, 2.0]}
    return with_preference_info(Dataset.from_dict(columns), record, sampled_by_policy=True)


def test_a_record_is_read_as_it_was_written(record, tmp_path):
    record.write(tmp_path)
    assert PreferenceRecord.read(tmp_path) == record
    content = json.loads((tmp_path / "preferences.json").read_text())
    assert list(content) == ["settings", "provenance", "states", "shards", "counts"]
    assert content["settings"] == vars(SETTINGS)
    assert content["counts"] == {"states": 3, "undecodable": 0, "ties": 1, "too_close": 0, "pairs": 2}


def test_what_readers_ask_for(record):
    assert record.settings.chunks_per_state == 5
    assert record.settings.reward_weights == {"world_model": 1.0, "ground_truth": 0.5}
    assert record.settings.world_model == "robots/world-model"
    assert replace(SETTINGS, reward={"rewards": {"ground_truth": {"weight": 1.0}}}).world_model is None


def test_an_unfinished_set_is_read_by_whoever_continues_it(record, tmp_path):
    record.counts = None
    record.write(tmp_path)
    assert "counts" not in json.loads((tmp_path / "preferences.json").read_text())
    with pytest.raises(FileNotFoundError, match="is unfinished: 0 files are there, not yet those of all 3 states"):
        PreferenceRecord.read(tmp_path)
    assert PreferenceRecord.read(tmp_path, unfinished=True) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(licence="mit"), r"preferences\.json: unknown keys \['licence'\]"),
        (lambda content: content["settings"].update(horizon=5), r"settings of .*: unknown keys \['horizon'\]"),
        (lambda content: content["counts"].update(lost=1), r"counts of .*: unknown keys \['lost'\]"),
        (lambda content: content["settings"].pop("seed"), r"settings of .*: the keys \['seed'\] are missing"),
        (lambda content: content.pop("states"), r"preferences\.json: the keys \['states'\] are missing"),
        (lambda content: content.update(settings=[]), r"settings of .* is a list, expected a JSON object"),
        (lambda content: content.update(provenance=None), "provenance is None, expected dict"),
        (lambda content: content.update(states=["4"]), "states is .*, expected list"),
        (
            lambda content: content["settings"].update(dataset_key=[]),
            r"settings of .*: dataset_key is \[\], expected str",
        ),
        (lambda content: content["settings"].update(num_candidates=None), "num_candidates is None, expected int"),
        (lambda content: content["settings"].update(dtype="float16"), "dtype is 'float16', expected .*bfloat16"),
        (
            lambda content: content["settings"].update(pairing="worst"),
            "pairing is 'worst', expected one of best_worst",
        ),
        (lambda content: content["settings"].update(reward={}), r"reward is \{\}, expected an object with the weight"),
        (lambda content: content["counts"].update(ties=None), "counts of .*: ties is None, expected int"),
        (
            lambda content: content.update(decisions={"pairs": 1, "rewards": "x", "kendall_tau": {}}),
            "decisions of .*: rewards is 'x', expected dict",
        ),
    ],
)
def test_keys_that_differ_are_named(record, tmp_path, change, message):
    content = record.to_json()
    change(content)
    (tmp_path / "preferences.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        PreferenceRecord.read(tmp_path)


def test_damaged_files_are_named(tmp_path):
    for content, message in (("{", "is not valid JSON"), ("[]", "is a list, expected a JSON object")):
        (tmp_path / "preferences.json").write_text(content)
        with pytest.raises(ValueError, match=rf"preferences\.json {message}"):
            PreferenceRecord.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.shuffle(seed=0),
        lambda rows: rows.select([2, 0]),
        lambda rows: rows.filter(lambda margin: margin > 1, input_columns="margin"),
        lambda rows: rows.map(lambda row: {"instruction": row["instruction"].upper()}),
        lambda rows: rows.add_column("number", [0, 1, 2]).remove_columns("margin"),
        lambda rows: rows.train_test_split(0.5, seed=0)["train"],
        lambda rows: split_by_episode(
            rows.add_column("dataset_key", ["arm"] * 3).add_column("episode_index", range(3)), 0.5, seed=0
        )[0],
        lambda rows: concatenate_datasets([rows.select([2]), rows.select([0])]),
    ],
    ids=["shuffled", "selected", "filtered", "mapped", "columns", "split", "split by episode", "parts of one set"],
)
def test_rows_of_one_set_remember_it(record, rows, change):
    info = preference_info(change(rows))
    assert (info.record, info.sampled_by_policy) == (record, True)


def test_rows_of_several_sets_or_from_elsewhere_claim_nothing(record, rows):
    other = with_preference_info(rows, replace(record, states=[1, 2, 3]), None)
    foreign = Dataset.from_dict({"instruction": ["open"], "margin": [1.0]})
    foreign.info.description = "Pairs that people ranked."
    for dataset in (
        foreign,
        concatenate_datasets([rows, other]),
        concatenate_datasets([rows, foreign]),
        concatenate_datasets([foreign, rows]),
    ):
        assert preference_info(dataset) is None


@pytest.mark.parametrize(("fraction", "seed"), [(0.1, 0), (0.5, 1), (0.9, 2)])
def test_held_out_rows_share_no_episode_with_the_others(fraction, seed):
    random = np.random.default_rng(seed)
    rows = Dataset.from_dict(
        {
            "dataset_key": random.choice(["arm", "hand"], 60).tolist(),
            "episode_index": random.integers(4, size=60).tolist(),
        }
    )
    rows = rows.add_column("number", range(60))
    training, held_out = split_by_episode(rows, fraction, seed)
    episodes = [set(zip(part["dataset_key"], part["episode_index"], strict=True)) for part in (training, held_out)]
    assert not episodes[0] & episodes[1]
    assert len(episodes[1]) == round(fraction * len(episodes[0] | episodes[1]))
    assert sorted([*training["number"], *held_out["number"]]) == list(range(60))
    with pytest.raises(ValueError, match=r"lack \['episode_index'\].*Split them yourself"):
        split_by_episode(rows.remove_columns("episode_index"), fraction, seed)
