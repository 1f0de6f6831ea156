# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Optimizers that cannot run where they were asked for."""

from transformers import TrainingArguments


def check_optimizer(args: TrainingArguments, is_fsdp_enabled: bool) -> None:
    """
    Refuses bitsandbytes' optimizers under FSDP, and its paged ones without a GPU.

    Args:
        args (`TrainingArguments`): `optim` and `device` count.
        is_fsdp_enabled (`bool`): Whether FSDP shards the parameters.

    Raises:
        ValueError: The optimizer cannot run there; the message names one that can.
    """
    optimizer = str(args.optim.value)
    from_bitsandbytes = "8bit" in optimizer or "paged" in optimizer or "bnb" in optimizer
    if from_bitsandbytes and is_fsdp_enabled:
        raise ValueError(
            f'optim="{optimizer}" is bitsandbytes\', which cannot update the sharded parameters of FSDP. Use '
            'optim="adamw_torch_fused"; FSDP shards its state.'
        )
    if "paged" in optimizer and args.device.type != "cuda":
        raise ValueError(
            f'optim="{optimizer}" pages between GPU and CPU memory, but this run is on {args.device.type}. Use '
            f'optim="{optimizer.removeprefix("paged_")}".'
        )


__all__ = ["check_optimizer"]
