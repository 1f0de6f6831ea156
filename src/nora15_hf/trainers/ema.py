# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Exponential moving average of the trained weights, as a callback of transformers' Trainer."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

EMA_FILE = "ema.safetensors"


class EmaCallback(TrainerCallback):
    """
    Averages the trainable parameters after every optimizer step and puts the average into the model when training ends.

    The decay ramps up as `min(decay, (1 + step) / (10 + step))`, so that a short run does not remember its random start.
    Checkpoints hold the average in `ema.safetensors`; a resumed run continues it.

    Args:
        decay (`float`): In (0, 1).
    """

    def __init__(self, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay={decay} must lie between 0 and 1, for example 0.999; None switches it off.")
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}

    @staticmethod
    def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    @staticmethod
    def _checkpoint_file(args, state) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / EMA_FILE

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        parameters = self._trainable(model)
        if state.global_step == 0:
            self.average = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            return
        file = self._checkpoint_file(args, state)
        if not file.exists():
            raise FileNotFoundError(
                f"Training resumes at step {state.global_step} with ema_decay={self.decay}, but {file} is missing: the "
                "checkpoint was written without a moving average. Resume without ema_decay or start anew."
            )
        saved = load_file(file)
        self.average = {name: saved[name].to(parameter.device) for name, parameter in parameters.items()}

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        parameters = self._trainable(model)
        torch._foreach_lerp_(
            list(self.average.values()), [parameters[name].detach() for name in self.average], 1.0 - decay
        )

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            save_file(self.average, self._checkpoint_file(args, state))

    @torch.no_grad()
    def on_train_end(self, args, state, control, model=None, **kwargs):
        for name, parameter in self._trainable(model).items():
            parameter.copy_(self.average[name])


__all__ = ["EmaCallback"]
