# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which checkpoint a run continues from."""

import dataclasses
from pathlib import Path

import pytest
from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from nora15_hf.trainers.continued_run import step_batch
from nora15_hf.trainers.resume import _FREE, RUN_FILE, find_checkpoint, is_finished

# Arguments of transformers that change what is learnt, or which weights remain.
DEFINING = {
    "accelerator_config", "activation_checkpointing", "activation_checkpointing_kwargs", "adam_beta1", "adam_beta2",
    "adam_epsilon", "auto_find_batch_size", "average_tokens_across_devices", "bf16", "bf16_full_eval", "data_seed",
    "dataloader_drop_last", "dataloader_in_order", "ddp_broadcast_buffers", "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters", "ddp_static_graph", "deepspeed", "fp16", "fp16_full_eval", "fsdp", "fsdp_config",
    "full_determinism", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "greater_is_better", "ignore_data_skip", "label_names", "label_smoothing_factor", "learning_rate",
    "length_column_name", "liger_kernel_config", "load_best_model_at_end", "lr_scheduler_kwargs", "lr_scheduler_type",
    "max_grad_norm", "max_steps", "metric_for_best_model", "neftune_noise_alpha", "num_train_epochs", "optim",
    "optim_args", "optim_target_modules", "parallelism_config", "remove_unused_columns",
    "restore_callback_states_from_checkpoint", "seed", "tf32", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "train_sampling_strategy", "use_cache", "use_liger_kernel", "warmup_steps", "weight_decay",
}  # fmt: skip


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
    again = arguments(tmp_path, logging_steps=3, save_steps=7, dataloader_num_workers=1, eval_strategy="steps")
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


@pytest.mark.parametrize("content", ["", "[]", '{"arguments": '])
def test_a_damaged_record_of_a_run_is_refused(tmp_path, content):
    checkpoint(tmp_path, 2)
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(ValueError, match=RUN_FILE):
        find_checkpoint(arguments(tmp_path), {})


def test_every_argument_of_transformers_is_known_to_define_a_run_or_not():
    """A new one is a decision to make: into `_FREE`, into the list above, or a factor of the batch of a step."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    factors = {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert known - _FREE == DEFINING | factors
    assert known & step_batch(TrainingArguments("run", use_cpu=True)).keys() == factors


@pytest.mark.parametrize(
    ("per_device", "accumulation", "processes", "mend"),
    [
        (4, 1, 2, None),
        (2, 2, 2, None),
        (8, 1, 1, None),
        (4, 1, 1, "gradient_accumulation_steps=2"),
        (1, 1, 4, "gradient_accumulation_steps=2"),
        (4, 2, 2, "gradient_accumulation_steps=1"),
        (3, 1, 1, "product times the number of processes, 1, is 8"),
    ],
)
def test_a_run_is_continued_with_the_batch_that_its_processes_made(
    tmp_path, monkeypatch, per_device, accumulation, processes, mend
):
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    find_checkpoint(arguments(tmp_path, per_device_train_batch_size=4), {})
    found = checkpoint(tmp_path, 2)
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    sizes = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}
    if mend is None:
        assert find_checkpoint(arguments(tmp_path, **sizes), {}) == found
        return
    with pytest.raises(ValueError, match=f"batch of a step was 8, is {per_device * accumulation * processes}.*{mend}"):
        find_checkpoint(arguments(tmp_path, **sizes), {})


def test_named_checkpoint_is_taken_as_it_is(tmp_path):
    assert find_checkpoint(arguments(tmp_path, resume_from_checkpoint="elsewhere"), {}) == "elsewhere"


def test_end_of_a_run_is_known(tmp_path):
    assert not is_finished(None)
    assert not is_finished(checkpoint(tmp_path, 2, max_steps=4))
    assert is_finished(checkpoint(tmp_path, 4, max_steps=4))
