# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The released world model's depth and keys at a quarter of its width."""

# The released depth and key set at a quarter of the width.
QUARTER = {
    "encoder_config": {
        "hidden_size": 352,
        "num_hidden_layers": 40,
        "num_attention_heads": 22,
        "mlp_ratio": 48 / 11,
        "crop_size": 256,
        "patch_size": 16,
        "tubelet_size": 2,
        "frames_per_clip": 64,
    },
    "predictor_hidden_size": 256,
    "action_convention": "metric",
}
