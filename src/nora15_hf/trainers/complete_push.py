# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Complete uploads during training: what transformers' Trainer does not send, wait for or report by itself."""

import logging
from collections.abc import Callable
from pathlib import Path

from peft import PeftModel
from transformers import Trainer, TrainerCallback
from transformers.utils.hub import PushInProgress

logger = logging.getLogger(__name__)


class CompletePushCallback(TrainerCallback):
    """
    Fills the output folder before every upload of a training, once no earlier upload reads it any more.

    Such an upload takes the weights from the new checkpoint and everything else from the output folder, and reads both in
    the background: a file that changes meanwhile breaks the commit, or arrives beside weights of another step. With
    `hub_always_push` the training therefore waits here; without it, transformers leaves out a save while an upload is
    going on, and this callback is not called. Uploads that failed are logged: nobody else looks at their results.

    Args:
        trainer ([`~transformers.Trainer`]): Whose uploads these are.
        write_files (`Callable[[Path], None]`): Writes what belongs beside the weights into the output folder.
    """

    def __init__(self, trainer: Trainer, write_files: Callable[[Path], None]):
        self.trainer = trainer
        self.write_files = write_files

    def on_push_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._finish_uploads()
            self.write_files(Path(args.output_dir))

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._finish_uploads()

    def _finish_uploads(self) -> None:
        uploads = _uploads(self.trainer)
        if uploads is None:
            return
        uploads.wait_until_done()
        for error in (job.exception() for job in uploads.jobs):
            if error is not None:
                logger.warning(
                    "An upload to %r during training failed, so its commit is missing there: %s The training continues; the "
                    "next upload sends all files again.",
                    self.trainer.hub_model_id,
                    error,
                )
        # Reported once.
        uploads.jobs.clear()


def is_uploading(trainer: Trainer) -> bool:
    """Whether an upload in the background may still read the output folder; for the main process, which uploads."""
    uploads = _uploads(trainer)
    return uploads is not None and not uploads.is_done()


def _uploads(trainer: Trainer) -> PushInProgress | None:
    # The attribute exists only where a training uploads.
    return trainer.push_in_progress if trainer.args.push_to_hub else None


def write_policy_files(trainer: Trainer, folder: Path) -> None:
    """
    The files of a policy beside its weights: flow scheduler and card. Adapters need no scheduler, which the base model has,
    but tell which one that is.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, PeftModel):
        model.scheduler.save_pretrained(folder / "scheduler")
    elif trainer.adapter_base is not None:
        trainer.adapter_base.save(folder)
    trainer.create_model_card()


__all__ = ["CompletePushCallback", "is_uploading", "write_policy_files"]
