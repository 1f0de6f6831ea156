# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' own flow policy, PI0, at the sizes of a policy of this package."""

import torch
from transformers import PI0Config, PI0ForConditionalGeneration

from nora15_hf import Nora15Config

PICTURE = 224


def matched_pi0(config: Nora15Config, patch_size: int, device: str, dtype: torch.dtype) -> PI0ForConditionalGeneration:
    """
    PI0 with the widths, depths, heads, vocabulary, chunk and action dimension of a policy.

    Its vision tower does not merge patches, and its MLP has two matrices where Qwen's has three (so that it is half as wide
    again). A picture of 224 px becomes 256 tokens with patches of 14 px, or 64, as many as the policy's, with 28 px.
    """
    text, vision, expert = config.vlm_config.text_config, config.vlm_config.vision_config, config.action_expert_config
    head_dim = text.hidden_size // text.num_attention_heads
    pi0_config = PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": {
                "model_type": "gemma",
                "hidden_size": text.hidden_size,
                "num_hidden_layers": text.num_hidden_layers,
                "intermediate_size": text.intermediate_size,
                "num_attention_heads": text.num_attention_heads,
                "num_key_value_heads": text.num_key_value_heads,
                "head_dim": head_dim,
                "vocab_size": text.vocab_size,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": vision.hidden_size,
                "intermediate_size": vision.intermediate_size * 3 // 2,
                "num_hidden_layers": vision.depth,
                "num_attention_heads": vision.num_heads,
                "patch_size": patch_size,
                "image_size": PICTURE,
                "vision_use_head": False,
            },
            "projection_dim": text.hidden_size,
            "image_token_id": text.vocab_size - 1,
        },
        dit_config={
            "model_type": "gemma",
            "hidden_size": expert.hidden_size,
            "num_hidden_layers": text.num_hidden_layers,
            "intermediate_size": expert.intermediate_size,
            "num_attention_heads": expert.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "head_dim": head_dim,
        },
        chunk_size=config.chunk_size,
        max_action_dim=config.action_dim,
        max_state_dim=config.action_dim,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return PI0ForConditionalGeneration._from_config(pi0_config, dtype=dtype).eval()


def pi0_inputs(model: PI0ForConditionalGeneration, text_tokens: int, batch: int) -> dict[str, torch.Tensor]:
    """Random inputs: one picture, a state and so many tokens of text in each row."""
    config = model.config
    vision = config.vlm_config.vision_config
    image_tokens = (PICTURE // vision.patch_size) ** 2
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(10, 200, (batch, image_tokens + text_tokens), generator=generator)
    input_ids[:, :image_tokens] = config.vlm_config.image_token_id
    inputs = {
        "state": torch.zeros(batch, config.max_state_dim),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": torch.randn(batch, 1, 3, PICTURE, PICTURE, generator=generator),
        "pixel_attention_mask": torch.ones(batch, 1, dtype=torch.bool),
    }
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


__all__ = ["matched_pi0", "pi0_inputs"]
