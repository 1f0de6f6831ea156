# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Keeps access tokens out of what a training writes and publishes."""

from transformers import TrainingArguments


def refuse_hub_token(args: TrainingArguments) -> None:
    """
    Refuses a token among the training arguments.

    transformers stores all arguments in `training_args.bin`, beside the model and in every checkpoint, and
    `push_to_hub=True` publishes that file.

    Raises:
        ValueError: `args.hub_token` is set; the message does not repeat it.
    """
    if args.hub_token is not None:
        raise ValueError(
            "hub_token would be written to training_args.bin, which push_to_hub publishes. Leave it out, and log in with "
            "`hf auth login` or set the environment variable HF_TOKEN."
        )


__all__ = ["refuse_hub_token"]
