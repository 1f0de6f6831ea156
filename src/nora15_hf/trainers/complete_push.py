# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Uploads during training that can be loaded: what transformers' Trainer does not send by itself."""

from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import TrainerCallback

from ..nora15 import Nora15ForActionPrediction


class CompletePushCallback(TrainerCallback):
    """
    Writes the policy's flow scheduler beside the weights before every upload of a training.

    Such an upload takes the weights from the new checkpoint and everything else from the output folder, where nobody
    has written `scheduler/` before the training ends. Adapters need none: the base model has it.

    Args:
        model ([`Nora15ForActionPrediction`] or [`~peft.PeftModel`]): What is trained.
    """

    def __init__(self, model: nn.Module):
        self.policy: Nora15ForActionPrediction | None = None if isinstance(model, PeftModel) else model

    def on_push_begin(self, args, state, control, **kwargs):
        if self.policy is not None:
            self.policy.scheduler.save_pretrained(Path(args.output_dir) / "scheduler")


__all__ = ["CompletePushCallback"]
