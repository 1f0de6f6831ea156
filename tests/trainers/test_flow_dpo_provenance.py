# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference rows from anywhere train, and the card says what is known of how they came about."""

import pytest
from datasets import concatenate_datasets

from helpers.flow_dpo_runs import make_rows, make_trainer
from helpers.preference_records import SETTINGS, make_record
from nora15_hf.preferences.preference_record import preference_info, with_preference_info


def recorded(**changes):
    return with_preference_info(make_rows(4, **changes), make_record(), sampled_by_policy=True)


def described(text: str):
    rows = make_rows(4)
    rows.info.description = text
    return rows


def card_of_a_run(policy, processor, output, rows, **options) -> str:
    trainer = make_trainer(policy, processor, output, rows, max_steps=1, freeze_backbone=True, **options)
    trainer.train()
    trainer.create_model_card()
    return (output / "README.md").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows,
        lambda rows: rows.shuffle(seed=0),
        lambda rows: rows.select([3, 1]),
        lambda rows: rows.map(lambda row: {"instruction": "close the faucet"}),
        lambda rows: concatenate_datasets([rows.select([3]), rows.select([0])]),
    ],
    ids=["whole", "shuffled", "selected", "mapped", "parts of one set"],
)
def test_rows_of_one_set_are_told_in_the_card(policy, processor, tmp_path, change):
    card = card_of_a_run(policy, processor, tmp_path / "run", change(recorded()))
    assert "robots/policy" in card
    assert SETTINGS.policy_fingerprint in card
    assert "| ground_truth | 0.5 |" in card
    assert "candidates are the starting policy's own" in card


@pytest.mark.parametrize(
    "rows",
    [
        lambda: make_rows(4),
        lambda: described("Pairs that people ranked."),
        lambda: described('{"settings": {}}'),
        lambda: concatenate_datasets([recorded(), make_rows(4)]),
        lambda: concatenate_datasets([described("One."), described("Two.")]),
    ],
    ids=["no description", "text", "JSON of somebody else", "concatenated with others", "two descriptions"],
)
def test_rows_of_unknown_origin_train_and_the_card_says_so(policy, processor, tmp_path, rows):
    card = card_of_a_run(policy, processor, tmp_path / "run", rows())
    assert "without a record of how they were made" in card
    assert SETTINGS.policy_fingerprint not in card
    assert "candidates are the starting policy's own" not in card


def test_precomputed_reference_values_do_not_cost_the_record(policy, processor, tmp_path):
    card = card_of_a_run(policy, processor, tmp_path / "run", recorded(), precompute_ref_log_probs=True)
    assert SETTINGS.policy_fingerprint in card


def test_the_trainer_leaves_the_rows_of_its_caller_alone(policy, processor, tmp_path):
    rows = recorded()
    trainer = make_trainer(policy, processor, tmp_path / "run", rows, precompute_ref_log_probs=True)
    assert trainer.preference_info == preference_info(rows)
    assert "reference_chosen" not in rows.column_names
