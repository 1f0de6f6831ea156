# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Continuing a run: only from a checkpoint that the same run wrote."""

import dataclasses
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..repo_files.json_files import read_json, write_json
from ..runtime.cpu_threads import keep_threads
from .continued_run import how_to_make, step_batch

RUN_FILE = "run.json"
BATCH = "batch of a step"

# Settings that can change between a run and its continuation without changing what is learnt.
_FREE = {
    "batch_eval_metrics", "dataloader_multiprocessing_context", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp_backend",
    "ddp_timeout", "debug", "disable_tqdm", "do_eval", "do_predict", "do_train", "enable_jit_checkpoint",
    "eval_accumulation_steps", "eval_delay", "eval_do_concat_batches", "eval_on_start", "eval_steps", "eval_strategy",
    "eval_use_gather_object", "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy",
    "hub_token", "include_for_metrics", "include_num_input_tokens_seen", "local_rank", "log_level",
    "log_level_replica", "log_on_each_node", "logging_first_step", "logging_nan_inf_filter", "logging_steps",
    "logging_strategy", "output_dir", "per_device_eval_batch_size", "prediction_loss_only", "project", "push_to_hub",
    "report_to", "resume_from_checkpoint", "run_name", "save_on_each_node", "save_only_model", "save_steps",
    "save_strategy", "save_total_limit", "skip_memory_metrics", "torch_empty_cache_steps", "trackio_bucket_id",
    "trackio_space_id", "trackio_static_space_id", "use_cpu",
}  # fmt: skip


def find_checkpoint(args: TrainingArguments, options: Mapping[str, object]) -> str | None:
    """
    The checkpoint to continue from: the newest complete one in `args.output_dir`, if the same run wrote it.

    A checkpoint is complete with its trainer state, which is written last; an interrupted run may leave one without.

    A run is known by `options` and by those training arguments that change what is learnt; of the number of processes, the
    batch of each and their accumulation only the product counts, the batch of a step. The first call writes them to
    `run.json` in the output folder; later calls compare. The number of threads that an entry point chose is kept there
    too, and the continued run takes it up.

    Args:
        args (`TrainingArguments`): `output_dir` is searched; a `resume_from_checkpoint` given there is returned as it is.
        options (`Mapping[str, object]`): What else defines the run, such as model and dataset, as JSON values.

    Returns:
        `str` or `None`: The argument of `Trainer.train(resume_from_checkpoint=...)`.

    Raises:
        ValueError: The folder holds checkpoints of a run with other settings, or of an unknown run.
    """
    if args.resume_from_checkpoint is not None:
        return args.resume_from_checkpoint
    run = {"options": dict(options), "arguments": _defining_arguments(args)}
    run = json.loads(json.dumps(run, sort_keys=True, default=str))
    output_dir = Path(args.output_dir)
    checkpoint = _newest_checkpoint(output_dir)
    record = output_dir / RUN_FILE
    if checkpoint is None:
        if args.should_save:
            output_dir.mkdir(parents=True, exist_ok=True)
            write_json(record, run)
            keep_threads(record)
        return None
    if not record.is_file():
        raise ValueError(
            f"`output_dir` {str(output_dir)!r} holds {Path(checkpoint).name}, but no {RUN_FILE} that says which run "
            "wrote it. Choose another output_dir, or name the checkpoint with resume_from_checkpoint."
        )
    earlier = {group: {} for group in run} | read_json(record)
    if {group: earlier[group] for group in run} != run:
        differences = [
            f"{name} was {earlier[group].get(name)!r}, is {run[group].get(name)!r}"
            for group in ("options", "arguments")
            for name in sorted(earlier[group] | run[group])
            if earlier[group].get(name) != run[group].get(name)
        ]
        advice = "Choose another output_dir, or name the checkpoint with resume_from_checkpoint to continue it anyway."
        if earlier["arguments"].get(BATCH) not in (None, run["arguments"][BATCH]):
            advice = f"{how_to_make(earlier['arguments'][BATCH], args)} Or choose another output_dir."
        raise ValueError(
            f"`output_dir` {str(output_dir)!r} holds {Path(checkpoint).name} of another run: {'; '.join(differences)}. {advice}"
        )
    if args.should_save:
        keep_threads(record)
    return checkpoint


def is_finished(checkpoint: str | None) -> bool:
    """
    Whether a checkpoint is the end of its run. `Trainer.train` would take one more step from there, at every call.

    Args:
        checkpoint (`str`, *optional*): From [`find_checkpoint`].
    """
    if checkpoint is None:
        return False
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    return state.global_step >= state.max_steps


def _newest_checkpoint(output_dir: Path) -> str | None:
    complete = {}
    for state in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"):
        try:
            complete[json.loads(state.read_text())["global_step"]] = str(state.parent)
        except json.JSONDecodeError:
            continue
    return complete[max(complete)] if complete else None


def _defining_arguments(args: TrainingArguments) -> dict[str, object]:
    batch = step_batch(args)
    defining = {field.name for field in dataclasses.fields(args)} - _FREE - batch.keys()
    return {name: getattr(args, name) for name in sorted(defining)} | {BATCH: prod(batch.values())}


__all__ = ["RUN_FILE", "find_checkpoint", "is_finished"]
