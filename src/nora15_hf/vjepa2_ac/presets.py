# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""World models that need no download."""

from .configuration_vjepa2_ac import VJEPA2ACConfig
from .modeling_vjepa2_ac import VJEPA2ACModel
from .processing_vjepa2_ac import VJEPA2ACProcessor


def tiny_world_model(
    image_size: int = 84, action_dim: int = 4, action_convention: str = "normalized", width: int = 128
) -> tuple[VJEPA2ACModel, VJEPA2ACProcessor]:
    """
    A world model with random weights, of about one million parameters by default, and its processor. Before training it predicts that
    nothing changes.

    Args:
        image_size (`int`, *optional*, defaults to 84):
            Side of the images in pixels, a multiple of 14.
        action_dim (`int`, *optional*, defaults to 4):
            Dimensions of one action; states get as many.
        action_convention (`str`, *optional*, defaults to `"normalized"`):
            See [`VJEPA2ACConfig`]; `"metric"` needs `action_dim=7`.
        width (`int`, *optional*, defaults to 128):
            Of the hidden states of encoder and predictor, a multiple of 4.

    Returns:
        `(VJEPA2ACModel, VJEPA2ACProcessor)`: seed torch before the call for reproducible weights.
    """
    config = VJEPA2ACConfig(
        encoder_config={
            "hidden_size": width,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "mlp_ratio": 3.0,
            "crop_size": image_size,
            "patch_size": 14,
            "tubelet_size": 1,
            "frames_per_clip": 1,
        },
        predictor_hidden_size=width,
        predictor_num_hidden_layers=3,
        predictor_num_attention_heads=4,
        predictor_mlp_ratio=2.0,
        predictor_identity_init=True,
        action_dim=action_dim,
        state_dim=action_dim,
        action_convention=action_convention,
    )
    return VJEPA2ACModel(config), VJEPA2ACProcessor(size=image_size)


__all__ = ["tiny_world_model"]
