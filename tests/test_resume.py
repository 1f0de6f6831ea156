# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which checkpoint a run continues from."""

import pytest
from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from nora15_hf.trainers.resume import RUN_FILE, find_checkpoint, is_finished


def arguments(folder, **changes):
    return TrainingArguments(str(folder), report_to="none", use_cpu=True, **changes)


def test_new_folder_starts_from_the_beginning_and_records_the_run(tmp_path):
    assert find_checkpoint(arguments(tmp_path / "new"), {"model": "a"}) is None
    assert (tmp_path / "new" / RUN_FILE).is_file()


def test_newest_checkpoint_of_the_same_run_is_found(tmp_path):
    find_checkpoint(arguments(tmp_path), {"model": "a"})
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    # What is logged, saved or where it is pushed does not make another run.
    again = arguments(tmp_path, logging_steps=3, save_steps=7, dataloader_num_workers=1)
    assert find_checkpoint(again, {"model": "a"}) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize(
    ("options", "changes", "expected"),
    [
        ({"model": "b"}, {}, "model was 'a', is 'b'"),
        ({"model": "a"}, {"learning_rate": 1e-3}, "learning_rate was 5e-05, is 0.001"),
        ({"model": "a"}, {"seed": 1}, "seed was 42, is 1"),
        ({"model": "a", "lora_rank": 4}, {}, "lora_rank was None, is 4"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, options, changes, expected):
    find_checkpoint(arguments(tmp_path), {"model": "a"})
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(ValueError, match=expected):
        find_checkpoint(arguments(tmp_path, **changes), options)


def test_checkpoint_of_an_unknown_run_is_refused(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(ValueError, match=RUN_FILE):
        find_checkpoint(arguments(tmp_path), {})


def test_named_checkpoint_is_taken_as_it_is(tmp_path):
    assert find_checkpoint(arguments(tmp_path, resume_from_checkpoint="elsewhere"), {}) == "elsewhere"


def test_end_of_a_run_is_known(tmp_path):
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        TrainerState(global_step=step, max_steps=4).save_to_json(
            str(tmp_path / f"checkpoint-{step}" / TRAINER_STATE_NAME)
        )
    assert not is_finished(None)
    assert not is_finished(str(tmp_path / "checkpoint-2"))
    assert is_finished(str(tmp_path / "checkpoint-4"))
