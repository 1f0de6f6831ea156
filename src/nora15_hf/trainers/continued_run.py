# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a checkpoint must share with the trainer that continues it, however the continuation is asked for."""

import logging
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput, get_last_checkpoint, has_length

from ..repo_files.json_files import read_json
from ..repo_files.stored_tensors import read_header
from .adapter_base import AdapterBase

logger = logging.getLogger(__name__)


class StepBatch(TrainerCallback, ExportableState):
    """
    Keeps in every checkpoint what the rows of a step of its run are the product of; nothing with `auto_find_batch_size`, which
    a checkpoint knows by itself.
    """

    def __init__(self):
        self.made_of: dict[str, int] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.made_of = {} if args.auto_find_batch_size else step_batch(args)

    def state(self) -> dict[str, dict[str, Any]]:
        return {"args": {}, "attributes": {"made_of": self.made_of}}


def step_batch(args: TrainingArguments) -> dict[str, int]:
    """What the rows of an optimizer step are the product of, by name."""
    return {
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "processes": args.world_size,
    }


def how_to_make(total: int, args: TrainingArguments) -> str:
    """A sentence that explains how the processes of a run form a batch of `total` rows."""
    per_device, processes = args.per_device_train_batch_size, args.world_size
    if total % (per_device * processes):
        return (
            "Choose per_device_train_batch_size and gradient_accumulation_steps so that their product times the number of "
            f"processes, {processes}, is {total}."
        )
    return (
        f"With processes={processes} and per_device_train_batch_size={per_device} it takes "
        f"gradient_accumulation_steps={total // (per_device * processes)} to form the same batch."
    )


class TrainingData(TrainerCallback, ExportableState):
    """Keeps a digest of the training data in every checkpoint; None if the data cannot be compared."""

    def __init__(self):
        self.fingerprint: str | None = None

    def state(self) -> dict[str, dict[str, Any]]:
        return {"args": {}, "attributes": {"fingerprint": self.fingerprint}}


class EpochCallback(TrainerCallback):
    """
    Tells datasets and augmentations which pass over the data begins, also where a resumed run begins within one.

    accelerate tells a dataset only if no sampler wants to know, which one does in a resumed or distributed run.
    """

    def __init__(self, listeners: Iterable[Any]):
        self.listeners = [listener for listener in listeners if hasattr(listener, "set_epoch")]

    def on_epoch_begin(self, args, state, control, **kwargs):
        for listener in self.listeners:
            listener.set_epoch(int(state.epoch))


class ContinuedRunMixin:
    """
    A trainer that continues a checkpoint only as the run that it belongs to: with as many rows in a step, on the same data,
    and with the base that its adapters were trained on. Stands before [`~transformers.Trainer`] or one of its subclasses among the bases.

    Attributes:
        resumed_from (`Path`, *optional*): The checkpoint that training continues.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.resumed_from: Path | None = None
        self.add_callback(StepBatch())
        self.training_data = TrainingData()
        self.add_callback(self.training_data)
        # Here, before FSDP shards the weights. The parameters of ZeRO-3 are empty.
        is_known = isinstance(self.model, PeftModel) and not is_deepspeed_zero3_enabled()
        self.adapter_base = AdapterBase.of(self.model) if is_known else None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs) -> TrainOutput:
        """
        As in `Trainer`.

        Raises:
            ValueError: No batch is complete. `resume_from_checkpoint` is damaged, belongs to a run with another number of rows in a step or on other
                data, or holds adapters of another base.
        """
        rows = self.args.train_batch_size * self.args.world_size
        if self.args.dataloader_drop_last and has_length(self.train_dataset) and len(self.train_dataset) < rows:
            raise ValueError(
                f"dataloader_drop_last=True drops the only batch: train_dataset has {len(self.train_dataset)} rows, a step takes {rows}. Nothing "
                "would be trained. Choose a smaller per_device_train_batch_size, or leave dataloader_drop_last out."
            )
        self.training_data.fingerprint = self.data_fingerprint()
        if resume_from_checkpoint is True:
            # Where there is none, the parent says so.
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        self.resumed_from = None
        if isinstance(resume_from_checkpoint, str | Path):
            self.resumed_from = Path(resume_from_checkpoint)
            check_files(self.resumed_from)
            if (self.resumed_from / TRAINER_STATE_NAME).is_file():
                self._check_run(TrainerState.load_from_json(str(self.resumed_from / TRAINER_STATE_NAME)))
            if self.adapter_base is not None:
                self.adapter_base.check(self.resumed_from)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def data_fingerprint(self) -> str | None:
        """Digest of `train_dataset`, to be compared with that of another run; None if it cannot be compared."""
        raise NotImplementedError

    def _check_run(self, state: TrainerState) -> None:
        kept = state.stateful_callbacks.get(TrainingData.__name__, {"attributes": {"fingerprint": None}})
        then, mine = kept["attributes"]["fingerprint"], self.training_data.fingerprint
        if None not in (then, mine) and then != mine:
            raise ValueError(
                f"{self.resumed_from} was written by a run on other data than train_dataset. Pass the dataset of that run. To train on "
                "other data, start a new run from the weights of the checkpoint."
            )
        kept = state.stateful_callbacks.get(StepBatch.__name__, {"attributes": {"made_of": {}}})
        before, now = kept["attributes"]["made_of"], step_batch(self.args)
        if not before or self.args.auto_find_batch_size or prod(before.values()) == prod(now.values()):
            return
        told = [
            f"{prod(made_of.values())} rows ({', '.join(f'{name}={count}' for name, count in made_of.items())})"
            for made_of in (before, now)
        ]
        raise ValueError(
            f"A step of the run that wrote {self.resumed_from} takes {told[0]}, a step of this one {told[1]}, but learning rate and "
            f"schedule depend on the batch. {how_to_make(prod(before.values()), self.args)} To train with another one, start "
            "a new run from the weights of the checkpoint."
        )

    def _issue_warnings_after_load(self, load_result) -> None:
        # Of tied weights a checkpoint holds one: the others are not missing.
        tied = self.model.all_tied_weights_keys if isinstance(self.model, PreTrainedModel) else {}
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.adapter_base is not None:
            self.adapter_base.save(Path(output_dir or self.args.output_dir))


def check_files(checkpoint: Path) -> None:
    """
    Checks that the files of a checkpoint are complete; the error of the library that reads one would not name it.

    Raises:
        ValueError: One is truncated or damaged.
    """
    for file in sorted(path for path in checkpoint.glob("*") if path.is_file()):
        try:
            if file.suffix == ".safetensors":
                read_header(file, floats_only=False)
            elif file.suffix == ".json":
                read_json(file)
            elif file.suffix in (".pt", ".pth") and not is_zipfile(file):
                raise ValueError("it is not a file of torch.save")
        except ValueError as error:
            raise ValueError(
                f"{file} is damaged or incomplete, perhaps because of a full disk or an interrupted copy ({error}). Resume from "
                "another checkpoint, or start a new run from the weights of this one."
            ) from error
    if not [*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]:
        logger.warning(f"{checkpoint} holds no optimizer state: the optimizer starts from scratch.")


__all__ = [
    "ContinuedRunMixin",
    "EpochCallback",
    "StepBatch",
    "TrainingData",
    "check_files",
    "how_to_make",
    "step_batch",
]
