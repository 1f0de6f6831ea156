# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the training commands for adapters (LoRA), on a backbone that may be stored in 4 bits (QLoRA)."""

from dataclasses import dataclass, field

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from ..nora15 import Nora15Config
from ..trainers import nf4_config, policy_lora_config
from . import option_types


@dataclass(kw_only=True)
class AdapterArguments:
    """Which part of a policy learns, and how the rest is held."""

    lora_rank: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": "Train adapters of this rank in the backbone, and the action expert in full.",
        },
    )
    quantize_backbone: bool = field(
        default=False, metadata={"help": "Store the backbone in 4 bits (QLoRA); needs lora_rank."}
    )

    def __post_init__(self):
        if self.quantize_backbone and self.lora_rank is None:
            raise ValueError(
                "quantize_backbone needs lora_rank: weights in 4 bits cannot be trained, but adapters can."
            )

    def quantization_config(self, bf16: bool) -> BitsAndBytesConfig | None:
        """For loading the policy; `bf16` is the training's compute type, float32 otherwise."""
        return nf4_config(torch.bfloat16 if bf16 else torch.float32) if self.quantize_backbone else None

    def peft_config(self, config: Nora15Config) -> LoraConfig | None:
        """For the trainer, of a policy of that configuration."""
        return None if self.lora_rank is None else policy_lora_config(config, self.lora_rank)


__all__ = ["AdapterArguments"]
