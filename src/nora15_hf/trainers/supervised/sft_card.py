# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a policy that the supervised trainer wrote."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainingArguments

from ...cards.card_info import PolicyCardInfo
from ...cards.policy_card import policy_card_info
from ...nora15 import Nora15ForActionPrediction, Nora15Processor
from ..training_card import origin, training_settings

_SETTINGS = (
    "objective", "reward_weighting", "freeze", "knowledge_insulation", "image_augmentation", "ema_decay", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm", "optim", "bf16",
    "gradient_checkpointing", "seed",
)  # fmt: skip


def sft_card_info(
    policy: Nora15ForActionPrediction,
    processor: Nora15Processor,
    args: TrainingArguments,
    *,
    steps: int,
    log_history: Sequence[Mapping[str, float]] = (),
    preferences: Mapping[str, Any] | None = None,
    **facts: Any,
) -> PolicyCardInfo:
    """
    What a supervised training knows about its policy.

    Args:
        policy ([`Nora15ForActionPrediction`]), processor ([`Nora15Processor`]), args ([`Nora15SFTConfig`]): Of the run.
        steps (`int`): Optimiser steps done.
        log_history (`Sequence[Mapping[str, float]]`, *optional*): The last evaluation in it is shown.
        preferences (`Mapping[str, Any]`, *optional*): How the preferences were made, with `reward_weighting`.
        facts: Other fields of [`PolicyCardInfo`], `repo_id` among them.
    """
    evaluations = [log for log in log_history if "eval_loss" in log]
    measured = {
        key: round(value, 5) for log in evaluations[-1:] for key, value in log.items() if key.startswith("eval_")
    }
    return policy_card_info(
        policy.config,
        processor,
        stage="sft",
        num_parameters=policy.num_parameters(),
        scheduler=type(policy.scheduler).__name__,
        training=training_settings(args, _SETTINGS, steps) | measured | dict(preferences or {}),
        **(origin(policy.config.name_or_path) | facts),
    )


__all__ = ["sft_card_info"]
