# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The recorded numbers of the released policy at a tiny size, the configuration they belong to, and tolerances."""

import json

from helpers.paths import FIXTURES
from nora15_hf.nora15 import Nora15Config

GOLDEN = FIXTURES / "nora15"
ACTIVATION, VELOCITY, GRADIENT = 5e-5, 3e-5, 1e-4
FAST_START, NUM_FAST = 500, 64
TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)
VISION_SIZES = (
    "depth",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "out_hidden_size",
    "tokens_per_second",
    "window_size",
    "fullatt_block_indexes",
)
MARKERS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def released_config() -> Nora15Config:
    recorded = json.loads((GOLDEN / "config.json").read_text())
    vlm, expert = recorded["qwen2_5_vl_config"], recorded["expert"]
    text = {name: vlm["text_config"][name] for name in TEXT_SIZES}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": vlm["text_config"]["rope_theta"],
        "mrope_section": vlm["text_config"]["rope_scaling"]["mrope_section"],
    }
    return Nora15Config(
        vlm_config={
            "text_config": text,
            "vision_config": {name: vlm["vision_config"][name] for name in VISION_SIZES},
            "tie_word_embeddings": True,
            **{name: vlm[name] for name in MARKERS},
        },
        action_expert_config={
            name: expert[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")
        },
        action_token_start_id=FAST_START,
        num_action_tokens=NUM_FAST,
    )
