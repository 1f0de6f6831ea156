# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What every trainer refuses before it trains, however it was asked for."""

import torch
from torch import nn
from transformers import Trainer, TrainingArguments


def refuse_hub_token(args: TrainingArguments) -> None:
    """
    Refuses a token among the training arguments, which travel with a run: into its logs, its trackers and its processes.

    Raises:
        ValueError: `args.hub_token` is set; the message does not repeat it.
    """
    if args.hub_token is not None:
        raise ValueError(
            "hub_token does not belong among the training arguments, which travel with a run and its logs. Leave it out, "
            "and log in with `hf auth login` or set the environment variable HF_TOKEN."
        )


def check_training(trainer: Trainer) -> None:
    """
    Refuses a training that could not run, or would learn nothing, with this model, these arguments and these devices.

    Every trainer calls it once its model and its parent class are set up.

    Args:
        trainer ([`~transformers.Trainer`]): Its `model`, `args` and whether FSDP is on count.

    Raises:
        ValueError: Several GPUs in one process, an optimizer that cannot run there, or trainable parameters that are
            absent or not float32.
    """
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"One process sees {trainer.args.n_gpu} GPUs, which transformers would feed through DataParallel. Start one "
            "process for each GPU: accelerate launch, see examples/accelerate, or set CUDA_VISIBLE_DEVICES."
        )
    _check_optimizer(trainer.args, trainer.is_fsdp_enabled)
    _check_trainable_parameters(trainer.model)


def _check_optimizer(args: TrainingArguments, is_fsdp_enabled: bool) -> None:
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


def _check_trainable_parameters(model: nn.Module) -> None:
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError("No parameter of model requires a gradient. Call requires_grad_(True) on what shall learn.")
    for name, parameter in trainable.items():
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"Parameter {name!r} learns in {parameter.dtype}: small updates would be rounded away. Load the model with "
                "dtype=torch.float32; bf16=True still computes in bfloat16."
            )


__all__ = ["check_training", "refuse_hub_token"]
