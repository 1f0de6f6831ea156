# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which parameters of the policy a supervised run trains."""

from peft import PeftModel
from torch import nn

from ...nora15 import Nora15Config
from .sft_config import FREEZABLE, Nora15SFTConfig


def unreachable_parameters(config: Nora15Config, objective: str) -> tuple[str, ...]:
    """
    Prefixes of the parameters that an objective gives no gradient.

    DDP waits for the gradient of every trainable parameter, so these must not be trainable. Flow matching reads the
    backbone's keys and values, hence nothing of its last layer behind them.
    """
    if objective == "fast":
        return FREEZABLE["expert"]
    if objective == "joint":
        return ()
    last = f"vlm.model.language_model.layers.{config.get_text_config().num_hidden_layers - 1}"
    return (
        f"{last}.self_attn.q_proj",
        f"{last}.self_attn.o_proj",
        f"{last}.post_attention_layernorm",
        f"{last}.mlp",
        "vlm.model.language_model.norm",
        "vlm.lm_head",
    )


def select_trainable_parameters(model: nn.Module, config: Nora15Config, args: Nora15SFTConfig) -> None:
    """
    Sets `requires_grad` as `args.freeze` and `args.objective` say; with adapters only the adapters' own choice is
    narrowed.
    """
    still = tuple(prefix for part in args.freeze for prefix in FREEZABLE[part])
    still += unreachable_parameters(config, args.objective)
    adapted = isinstance(model, PeftModel)
    for name, parameter in model.named_parameters():
        trained = not name.removeprefix("base_model.model.").startswith(still) if still else True
        # Weights in 4 or 8 bits are integers, which can have no gradient.
        if parameter.is_floating_point():
            parameter.requires_grad_(trained and (parameter.requires_grad or not adapted))


__all__ = ["select_trainable_parameters", "unreachable_parameters"]
