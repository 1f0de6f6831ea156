# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which checkpoint a run continues from."""

from pathlib import Path

import pytest
from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from nora15_hf.trainers.resume import RUN_FILE, find_checkpoint, is_finished


def arguments(folder, **changes):
    return TrainingArguments(str(folder), report_to="none", use_cpu=True, **changes)


def checkpoint(folder: Path, step: int, max_steps: int = 20) -> str:
    """A complete one: with the trainer's state, which is written last."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    TrainerState(global_step=step, max_steps=max_steps).save_to_json(str(path / TRAINER_STATE_NAME))
    return str(path)


def test_new_folder_starts_from_the_beginning_and_records_the_run(tmp_path):
    assert find_checkpoint(arguments(tmp_path / "new"), {"model": "a"}) is None
    assert (tmp_path / "new" / RUN_FILE).is_file()


def test_newest_checkpoint_of_the_same_run_is_found(tmp_path):
    find_checkpoint(arguments(tmp_path), {"model": "a"})
    newest = [checkpoint(tmp_path, step) for step in (2, 10)][-1]
    # What was interrupted while it was written is no checkpoint.
    (tmp_path / "checkpoint-12").mkdir()
    # What is logged, saved or where it is pushed does not make another run.
    again = arguments(tmp_path, logging_steps=3, save_steps=7, dataloader_num_workers=1)
    assert find_checkpoint(again, {"model": "a"}) == newest


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
    checkpoint(tmp_path, 2)
    with pytest.raises(ValueError, match=expected):
        find_checkpoint(arguments(tmp_path, **changes), options)


def test_checkpoint_of_an_unknown_run_is_refused(tmp_path):
    checkpoint(tmp_path, 2)
    with pytest.raises(ValueError, match=RUN_FILE):
        find_checkpoint(arguments(tmp_path), {})


def test_named_checkpoint_is_taken_as_it_is(tmp_path):
    assert find_checkpoint(arguments(tmp_path, resume_from_checkpoint="elsewhere"), {}) == "elsewhere"


def test_end_of_a_run_is_known(tmp_path):
    assert not is_finished(None)
    assert not is_finished(checkpoint(tmp_path, 2, max_steps=4))
    assert is_finished(checkpoint(tmp_path, 4, max_steps=4))
