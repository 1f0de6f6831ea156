# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a policy that the supervised trainer wrote."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from peft import PeftModel

from ...cards.card_info import PolicyCardInfo

if TYPE_CHECKING:
    from .sft_trainer import Nora15SFTTrainer

_NOT_STATED = "not stated; ask who recorded the data"
_SETTINGS = (
    "objective", "freeze", "knowledge_insulation", "image_augmentation", "ema_decay", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm", "optim", "bf16",
    "gradient_checkpointing", "seed",
)  # fmt: skip


def sft_card_info(trainer: "Nora15SFTTrainer", name: str) -> PolicyCardInfo:
    """
    What is known about the policy at the present step.

    The meaning of the action dimensions and of the gripper's sign is taken from the processor's `conventions` (keys
    `action_space` and `gripper`), in which a dataset keeps what it was recorded with.

    Args:
        trainer ([`Nora15SFTTrainer`]): With a processor.
        name (`str`): Of the model.

    Raises:
        ValueError: The trainer has no processor, which knows the policy's conventions.
    """
    processor, config, args = trainer.processing_class, trainer.policy.config, trainer.args
    if processor is None:
        raise ValueError("A card states the processor's conventions: give processing_class to the trainer.")
    keys = tuple(processor.norm_stats)
    conventions = {field: value for key in keys for field, value in processor.conventions.get(key, {}).items()}
    settings = {setting: vars(args)[setting] for setting in _SETTINGS}
    settings = {
        setting: str(value.value if isinstance(value, Enum) else value)
        for setting, value in settings.items()
        if value not in (None, [], False)
    }
    settings["steps"] = trainer.state.global_step
    settings["batch size"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    # Of a folder the name only: its path would tell strangers about this machine.
    source = config.name_or_path
    base_model = Path(source).name if source and Path(source).exists() else source or None
    adapters = (
        f"This repo holds adapters for {base_model}: load both with "
        f"`nora15_hf.trainers.load_merged_policy(base, {trainer.hub_model_id or name!r})`, not as the snippet above does."
    )
    results = [log for log in trainer.state.log_history if "eval_loss" in log]
    if results:
        settings |= {key: round(value, 5) for key, value in results[-1].items() if key.startswith("eval_")}
    return PolicyCardInfo(
        repo_id=trainer.hub_model_id or name,
        name=name,
        stage="sft",
        num_parameters=sum(parameter.numel() for parameter in trainer.policy.parameters()),
        image_size=processor.image_size,
        chunk_size=config.chunk_size,
        action_dim=config.action_dim,
        n_action_steps=config.chunk_size,
        action_space=str(conventions.get("action_space", _NOT_STATED)),
        gripper=str(conventions.get("gripper", _NOT_STATED)),
        normalization=f"{processor.normalization_mode} of the dataset, to [-1, 1]",
        state_dim=config.state_dim,
        statistics_keys=keys,
        decoder=f"flow matching, {type(trainer.policy.scheduler).__name__}, {config.num_inference_steps} steps",
        example_instruction="pick up the object",
        training=settings,
        base_model=base_model,
        limits=(adapters,) if isinstance(trainer.model, PeftModel) else (),
    )


__all__ = ["sft_card_info"]
