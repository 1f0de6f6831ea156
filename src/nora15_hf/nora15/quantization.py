# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""bitsandbytes for the policy: the backbone's language layers in 8 or 4 bits, the parts that produce actions unchanged."""

import copy

from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers.quantizers_utils import should_convert_module

# Full paths, since bitsandbytes matches from the start of a module's name: "action_expert" would not protect
# "policy.action_expert", nor "visual" "vlm.model.visual".
ACTION_MODULES = (
    "action_expert",
    "action_in_proj",
    "action_out_proj",
    "action_time_mlp_in",
    "action_time_mlp_out",
)
# Only some policies have it, so a list of the caller's own may leave it out.
STATE_MODULE = "state_proj"
LM_HEAD = "vlm.lm_head"
VISION_TOWER = "vlm.model.visual"
DEFAULT_SKIP_MODULES = (*ACTION_MODULES, STATE_MODULE, LM_HEAD, VISION_TOWER)


def backbone_quantization(config: BitsAndBytesConfig) -> BitsAndBytesConfig:
    """
    The configuration with the policy's list of modules that stay in the checkpoint's precision.

    Without a list of the caller's own, the linear layers of the backbone's language model are quantised and nothing
    else. transformers would quantise the action expert, too, and drops its protection of the LM head as soon as there
    is a list.

    Args:
        config (`BitsAndBytesConfig`): `load_in_8bit=True` or `load_in_4bit=True`; a list of the caller's own in
            `llm_int8_skip_modules` must protect the action expert, its projections and the LM head.

    Returns:
        `BitsAndBytesConfig`: a copy with [`DEFAULT_SKIP_MODULES`], or `config` itself when it brought its own list.

    Raises:
        TypeError: For another quantisation method.
        ValueError: When the caller's list leaves one of those modules to be quantised.
    """
    if not isinstance(config, BitsAndBytesConfig):
        raise TypeError(
            f"quantization_config is a {type(config).__name__}; the policy is quantised with a "
            "transformers.BitsAndBytesConfig(load_in_8bit=True) or (load_in_4bit=True). Other methods would also "
            "quantise the action expert."
        )
    if config.llm_int8_skip_modules is None:
        config = copy.deepcopy(config)
        config.llm_int8_skip_modules = list(DEFAULT_SKIP_MODULES)
        return config
    # A pattern protects the layers inside a module only when it matches from the start of their names, which none of
    # them tells apart from this stand-in; as a suffix "expert" would match the module, but not its layers.
    probes = {name: f"{name}.*" if name == "action_expert" else name for name in (*ACTION_MODULES, LM_HEAD)}
    unprotected = [
        name for name, probe in probes.items() if should_convert_module(probe, config.llm_int8_skip_modules)
    ]
    if unprotected:
        raise ValueError(
            f"llm_int8_skip_modules={config.llm_int8_skip_modules} would quantise {unprotected}. The action expert and "
            "its projections integrate the flow and must keep their precision; the LM head shares its weights with the "
            f"embedding, which cannot be quantised. Add these names, or omit the list to use the default "
            f"{list(DEFAULT_SKIP_MODULES)}."
        )
    return config


def refuse_repacked_weights(model: PreTrainedModel) -> None:
    """
    Raises when 4-bit weights cannot be saved faithfully any more.

    At its first pass on a CPU with AVX512-BF16, bitsandbytes rearranges 4-bit weights and rounds their scales to
    bfloat16. When it saves, it restores the weights but not the order of the scales: the file, and from then on the
    model itself, would give other actions without a word (bitsandbytes 0.50).

    Raises:
        ValueError: When a weight has been rearranged.
    """
    for name, parameter in model.named_parameters():
        # Only 4-bit parameters have a state, and only rearranged ones the mark.
        if getattr(getattr(parameter, "quant_state", None), "packing_format_for_cpu", False):
            raise ValueError(
                f"{name} was rearranged for this CPU when the 4-bit policy first ran, and bitsandbytes cannot save it "
                "faithfully after that. Load the policy again and save it before its first use."
            )


__all__ = [
    "ACTION_MODULES",
    "DEFAULT_SKIP_MODULES",
    "STATE_MODULE",
    "backbone_quantization",
    "refuse_repacked_weights",
]
