# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Exponential moving average of the trained weights, as a callback of transformers' Trainer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback

if TYPE_CHECKING:
    from .continued_run import ContinuedRunMixin

EMA_FILE = "ema.safetensors"


class EmaCallback(TrainerCallback):
    """
    Averages the trainable parameters after every optimizer step and puts the average into the model when training ends.

    The decay ramps up as `min(decay, (1 + step) / (10 + step))`, so that a short run does not remember its random start.
    Checkpoints hold the average in `ema.safetensors`; a resumed run continues it. Parameters that FSDP2 has sharded are
    averaged in shards and saved whole.

    Args:
        decay (`float`): In (0, 1).
        trainer ([`~nora15_hf.trainers.continued_run.ContinuedRunMixin`], *optional*):
            Tells which checkpoint is resumed; without one nothing can be.
    """

    def __init__(self, decay: float, trainer: "ContinuedRunMixin | None" = None):
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay={decay} must lie between 0 and 1, for example 0.999; None switches it off.")
        self.decay = decay
        self.trainer = trainer
        self.average: dict[str, torch.Tensor] = {}

    @staticmethod
    def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        parameters = self._trainable(model)
        if state.global_step == 0:
            self.average = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            return
        file = self.trainer.resumed_from / EMA_FILE
        if not file.exists():
            raise FileNotFoundError(
                f"Training resumes at step {state.global_step} with ema_decay={self.decay}, but {file} is missing: the "
                "checkpoint was written without a moving average. Resume without ema_decay or start a new run."
            )
        try:
            saved = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}). Resume from another checkpoint.") from error
        if saved.keys() != parameters.keys():
            odd = sorted(saved.keys() ^ parameters.keys())
            raise ValueError(
                f"{file} averages parameters other than those that are trained now: {len(odd)} differ, for example {odd[0]!r}. Resume "
                "with the freeze, objective and adapters of the run that wrote it, or start a new run from its weights."
            )
        self.average = {name: _placed_as(parameter, saved[name]) for name, parameter in parameters.items()}

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        parameters = self._trainable(model)
        torch._foreach_lerp_(
            list(self.average.values()), [parameters[name].detach() for name in self.average], 1.0 - decay
        )

    def save(self, folder: Path, is_main_process: bool = True) -> None:
        """Writes the average into a checkpoint's folder; every process must call it, the main one writes."""
        whole = {name: _whole(value) for name, value in self.average.items()}
        if is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(whole, folder / EMA_FILE)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the average in place of its weights, for evaluation."""
        parameters = self._trainable(model)
        trained = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._put(self.average, parameters)
        try:
            yield
        finally:
            self._put(trained, parameters)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self._put(self.average, self._trainable(model))

    @staticmethod
    @torch.no_grad()
    def _put(values: dict[str, torch.Tensor], parameters: dict[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _placed_as(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A loaded tensor on the device of a parameter, with the same sharding."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


__all__ = ["EMA_FILE", "EmaCallback"]
