# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""World models of the recorded size, with the reference predictor's weights."""

import torch
from safetensors.torch import load_file

from helpers.paths import FIXTURES
from nora15_hf.vjepa2_ac import (
    VJEPA2ACConfig,
    VJEPA2ACModel,
    VJEPA2ACProcessor,
    normalize_latents,
    tiny_world_model,
)

GOLDEN = FIXTURES / "vjepa2_ac"
PARITY = {"rtol": 0, "atol": 2e-6}
# Of the encoder computed in float64, where every processor gives the same: the recorded values are float32 and lie up to 3.8e-6
# from the exact ones. In float32, other instructions add roundings of their own.
ENCODER_PARITY = {"rtol": 0, "atol": 4e-6, "check_dtype": False}
VARIANTS = {
    "A": {},
    "B": {"use_extrinsics": True},
    "D_silu": {"predictor_use_swiglu": True, "predictor_num_hidden_layers": 2},
    "F_norope": {"predictor_use_rope": False, "predictor_num_hidden_layers": 2},
}
ENCODER = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "mlp_ratio": 48 / 11,
    "crop_size": 64,
    "patch_size": 16,
    "tubelet_size": 2,
    "frames_per_clip": 8,
}


def fixture(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def small_config(**changes) -> VJEPA2ACConfig:
    defaults = {
        "encoder_config": ENCODER,
        "predictor_hidden_size": 48,
        "predictor_num_hidden_layers": 3,
        "predictor_num_attention_heads": 4,
    }
    return VJEPA2ACConfig(**defaults | changes)


def small_model(variant: str = "A", **changes) -> VJEPA2ACModel:
    """A model with the reference predictor's weights and a random encoder."""
    model = VJEPA2ACModel(small_config(**VARIANTS[variant] | changes)).eval()
    model.predictor.load_state_dict(fixture(f"predictor_{variant}_weights"))
    return model


def random_inputs(model: VJEPA2ACModel, batch: int = 2, frames: int = 3, steps: int = 4, candidates: int = 5):
    generator = torch.Generator().manual_seed(1)
    config = model.config
    latents = normalize_latents(
        torch.randn(batch, frames, config.num_patches, config.encoder_config.hidden_size, generator=generator)
    )
    actions = torch.randn(batch, candidates, steps, config.action_dim, generator=generator)
    context = torch.randn(batch, frames - 1, config.action_dim, generator=generator)
    return latents, actions, context


def listening_world_model(
    image_size: int, action_dim: int, convention: str = "normalized"
) -> tuple[VJEPA2ACModel, VJEPA2ACProcessor]:
    """A tiny world model whose random weights make it listen to actions and poses, and its processor."""
    torch.manual_seed(0)
    model, processor = tiny_world_model(image_size=image_size, action_dim=action_dim, action_convention=convention)
    for block in model.predictor.predictor_blocks:
        torch.nn.init.normal_(block.attn.proj.weight, std=0.1)
    for encoder in (model.predictor.action_encoder, model.predictor.state_encoder):
        torch.nn.init.normal_(encoder.weight, std=1.0)
    return model.eval(), processor
