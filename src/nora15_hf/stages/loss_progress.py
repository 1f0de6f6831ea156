# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A training progress bar that shows the latest losses instead of printing a line for each log."""

from transformers import ProgressCallback, Trainer


class LossProgressCallback(ProgressCallback):
    """transformers' progress bar with the remaining time and the named metrics."""

    def __init__(self, description: str, metrics: tuple[str, ...] = ("loss",)):
        super().__init__()
        self.description, self.metrics = description, metrics

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            self.training_bar.set_description(self.description)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.set_postfix({name: f"{logs[name]:.4g}" for name in self.metrics if name in logs})


def show_losses(trainer: Trainer, description: str, metrics: tuple[str, ...] = ("loss",)) -> None:
    """Replaces a trainer's progress bar by [`LossProgressCallback`]."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(LossProgressCallback(description, metrics))


__all__ = ["LossProgressCallback", "show_losses"]
