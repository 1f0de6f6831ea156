# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What every trainer refuses before it trains, however it was asked for."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import Trainer, TrainingArguments

from ..nora15 import Nora15Config, Nora15Processor

# Arguments of transformers' and TRL's trainers that these trainers would not look at. Each begins the sentence.
_OPTIONS = {
    "compute_loss_func": "would not be called: each trainer has the loss of its method. Override compute_loss in a subclass.",
    "compute_metrics": "needs logits, which evaluation does not return. Leave it out.",
    "preprocess_logits_for_metrics": "needs logits, which evaluation does not return. Leave it out.",
    "model_init": (
        "would make a model that was not prepared for this training, and hyperparameter_search with it. Pass model, and make "
        "a trainer for each trial."
    ),
    "quantization_config": "is for loading a model. Load it with from_pretrained(..., quantization_config=...), then pass it.",
}


def refuse_options(options: Mapping[str, Any], **others: str) -> None:
    """
    Refuses arguments of `Trainer` and `DPOTrainer` that would be taken and not used.

    Args:
        options (`Mapping[str, Any]`): By name, what a trainer was given besides its own arguments.
        others (`str`): Further names, with the end of the sentence that they begin.

    Raises:
        ValueError: One of them is given.
    """
    for name, reason in (_OPTIONS | others).items():
        if options.get(name) is not None:
            raise ValueError(f"{name} {reason}")


def refuse_settings(args: TrainingArguments, fixed: Mapping[str, tuple[Any, str]]) -> None:
    """
    Refuses values of training arguments that would be taken and not used.

    Args:
        args (`TrainingArguments`): Of the run.
        fixed (`Mapping[str, tuple[Any, str]]`): By name the only value, and why there is no other.

    Raises:
        ValueError: One has another value.
    """
    for name, (only, reason) in fixed.items():
        if getattr(args, name) != only:
            raise ValueError(f"{name}={getattr(args, name)!r} does not apply: {reason}. Leave it at {only!r}.")


def check_arguments(args: TrainingArguments, expected: type[TrainingArguments]) -> None:
    """
    Raises:
        TypeError: The training arguments are of another class than the trainer's own, which knows more of them.
    """
    if not isinstance(args, expected):
        raise TypeError(
            f"args is a {type(args).__name__}, expected {expected.__name__}, which has this trainer's own options and "
            f"defaults. Create the arguments as {expected.__name__}(...)."
        )


def check_model(model: nn.Module, expected: type[nn.Module], name: str = "model") -> nn.Module:
    """
    The model without adapters; `name` is that of the argument.

    Raises:
        TypeError: It is of another class.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, expected):
        raise TypeError(
            f"{name} is a {type(base).__name__}, expected a {expected.__name__}. Load it with "
            f"{expected.__name__}.from_pretrained(..., dtype=torch.float32)."
        )
    return base


def check_processor(name: str, processor: Any, config: Nora15Config) -> None:
    """
    Args:
        name (`str`): Of the argument.
        processor: What was given.
        config ([`Nora15Config`]): Of the policy.

    Raises:
        TypeError: It is of another class.
        ValueError: It belongs to another policy.
    """
    if not isinstance(processor, Nora15Processor):
        raise TypeError(
            f"{name} is a {type(processor).__name__}, expected a Nora15Processor, which knows cameras and units. Load it with "
            "Nora15Processor.from_pretrained(...)."
        )
    processor.check_model(config)


def refuse_hub_token(args: TrainingArguments) -> None:
    """
    Refuses a token among the training arguments, which travel with a run: into its logs, its trackers and its processes.

    Raises:
        ValueError: `args.hub_token` is set; the message does not repeat it.
    """
    if args.hub_token is not None:
        raise ValueError(
            "hub_token must not be one of the training arguments, which are stored with a run and its logs. Omit it, "
            "and log in with `hf auth login` or set the environment variable HF_TOKEN."
        )


def check_dataset(name: str, dataset: Any, expected: type) -> None:
    """
    Args:
        name (`str`): Of the argument.
        dataset: What was given.
        expected (`type`): Its class.

    Raises:
        TypeError: It is of another class.
    """
    if not isinstance(dataset, expected):
        raise TypeError(
            f"{name} is a {type(dataset).__name__}, expected {expected.__name__}, which knows lengths, units and episodes of "
            "its rows."
        )


def check_training(trainer: Trainer) -> None:
    """
    Refuses a training that could not run, or would learn nothing, with this model, these arguments and these devices.

    Every trainer calls it once its model and its parent class are set up.

    Args:
        trainer ([`~transformers.Trainer`]): Its `model`, `args` and whether FSDP is on count.

    Raises:
        ValueError: Several GPUs in one process, an optimizer that cannot run there, or trainable parameters that are
            absent or not float32, or batches that one process would cut up for others.
    """
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"One process sees {trainer.args.n_gpu} GPUs, which transformers would use through DataParallel. Start one "
            "process for each GPU: accelerate launch, see examples/accelerate, or set CUDA_VISIBLE_DEVICES."
        )
    _check_data_loading(trainer)
    _check_optimizer(trainer.args, trainer.is_fsdp_enabled)
    _check_trainable_parameters(trainer.model)


def _check_data_loading(trainer: Trainer) -> None:
    loading = trainer.accelerator.dataloader_config
    if loading.dispatch_batches:
        raise ValueError(
            "accelerator_config has dispatch_batches=True, which cuts every tensor of a batch by its rows, but the images of a "
            "batch are a tensor of patches. Omit it: each process then reads its own rows."
        )
    # By default accelerate would do so with iterable datasets.
    loading.dispatch_batches = False


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
        raise ValueError(
            "No parameter of model requires a gradient. Call requires_grad_(True) on the parameters to train."
        )
    for name, parameter in trainable.items():
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"Parameter {name!r} is trained in {parameter.dtype}: small updates would be rounded away. Load the model with "
                "dtype=torch.float32; bf16=True still computes in bfloat16."
            )


__all__ = [
    "check_arguments",
    "check_dataset",
    "check_model",
    "check_processor",
    "check_training",
    "refuse_hub_token",
    "refuse_options",
    "refuse_settings",
]
