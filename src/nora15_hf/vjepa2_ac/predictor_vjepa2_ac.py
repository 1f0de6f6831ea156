# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The action-conditioned predictor of V-JEPA 2-AC: feed-forward layers, blocks, and the next-frame prediction."""

import math

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..runtime.recorded_outputs import Recorded, record
from .attention_vjepa2_ac import FrameCache, LayerCache, VJEPA2ACAttention, VJEPA2ACResidualLinear, rotary_tables
from .configuration_vjepa2_ac import VJEPA2ACConfig


def encode_rows(linear: nn.Linear, rows: torch.Tensor) -> torch.Tensor:
    """
    `linear(rows)` with the same rounding however few rows `(B, T, features)` there are: below about five, CPU libraries
    take another kernel. Each row is computed eight times, which costs nothing beside the patches, so that a frame that
    is imagined alone gets the very numbers that it gets as part of a clip.
    """
    return linear(rows[..., None, :].expand(-1, -1, 8, -1))[..., 0, :]


class VJEPA2ACMLP(nn.Module):
    """Feed-forward layer with GELU."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        width = int(config.predictor_hidden_size * config.predictor_mlp_ratio)
        self.fc1 = nn.Linear(config.predictor_hidden_size, width)
        self.fc2 = VJEPA2ACResidualLinear(width, config.predictor_hidden_size, layer_index)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(hidden_states)))


class VJEPA2ACSwiGLU(nn.Module):
    """Gated feed-forward layer; two thirds of the width, so that it has as many parameters as the plain one."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        width = int(config.predictor_hidden_size * config.predictor_mlp_ratio)
        width = 8 * math.ceil(2 * width // 3 / 8)
        self.fc1 = nn.Linear(config.predictor_hidden_size, width)
        # The original shrinks whatever is called `fc2`, also in this variant, where it is the gate.
        self.fc2 = VJEPA2ACResidualLinear(config.predictor_hidden_size, width, layer_index)
        self.fc3 = nn.Linear(width, config.predictor_hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc3(nn.functional.silu(self.fc1(hidden_states)) * self.fc2(hidden_states))


class VJEPA2ACBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block. Returns its keys and values instead of changing a cache that it is given."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.predictor_hidden_size, eps=config.predictor_layer_norm_eps)
        self.attn = VJEPA2ACAttention(config, layer_index)
        self.norm2 = nn.LayerNorm(config.predictor_hidden_size, eps=config.predictor_layer_norm_eps)
        self.mlp = (VJEPA2ACSwiGLU if config.predictor_use_swiglu else VJEPA2ACMLP)(config, layer_index)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        past: LayerCache | None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, LayerCache, torch.Tensor | None]:
        attended, present, weights = self.attn(self.norm1(hidden_states), rotary, past, output_attentions)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.norm2(hidden_states)), present, weights


class VJEPA2ACPredictor(nn.Module):
    """
    Frame-causal transformer over `[action, state, (camera,) patches]` of each frame. What it puts out at the patches
    of frame t is its prediction of frame t + 1 (V-JEPA 2 paper, arXiv 2506.09985, section 3; parameter names of the
    released checkpoint).
    """

    def __init__(self, config: VJEPA2ACConfig):
        super().__init__()
        self.config = config
        width = config.predictor_hidden_size
        self.predictor_embed = nn.Linear(config.encoder_config.hidden_size, width)
        self.action_encoder = nn.Linear(config.action_dim, width)
        self.state_encoder = nn.Linear(config.state_dim, width)
        self.extrinsics_encoder = nn.Linear(config.extrinsics_dim, width)
        self.predictor_blocks = nn.ModuleList(
            VJEPA2ACBlock(config, index) for index in range(config.predictor_num_hidden_layers)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=config.predictor_layer_norm_eps)
        self.predictor_proj = nn.Linear(width, config.encoder_config.hidden_size)
        if not config.use_extrinsics:
            # Part of every released checkpoint, but without gradient: distributed training would wait for it.
            self.extrinsics_encoder.requires_grad_(False)

    def forward(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor,
        extrinsics: torch.Tensor | None = None,
        past: FrameCache | None = None,
        return_cache: bool = False,
        recorded: Recorded | None = None,
    ) -> tuple[torch.Tensor, FrameCache | None]:
        """
        Args:
            latents (`torch.Tensor` of shape `(B, T, P, D)`):
                Layer-normed latents of T frames.
            actions (`torch.Tensor` of shape `(B, T, A)`), states (`torch.Tensor` of shape `(B, T, S)`):
                What is done, and where the robot is, at each of these frames.
            extrinsics (`torch.Tensor` of shape `(B, T, E)`, *optional*):
                The camera's pose; with `config.use_extrinsics` only.
            past (`FrameCache`, *optional*):
                Cache of the frames before these.
            return_cache (`bool`, *optional*, defaults to `False`):
                Whether to return the cache of all frames so far (keeps keys and values in memory).
            recorded (`Recorded`, *optional*):
                Lists to fill, `"hidden_states"` and `"attentions"` or one of them, see [`VJEPA2ACOutput`].

        Returns:
            `(torch.Tensor of shape (B, T, P, D), FrameCache or None)`: predictions of the frames after each, **not**
            layer-normed, and the cache.
        """
        embedded = self.predictor_embed(latents.to(self.predictor_embed.weight.dtype))
        hidden = torch.cat([self.embed_conditions(actions, states, extrinsics), embedded], dim=2)
        num_frames, tokens_per_frame = hidden.shape[1:3]
        first_frame = 0 if past is None else past[0][0].shape[2] // tokens_per_frame
        rotary = None
        if self.config.predictor_use_rope:
            rotary = rotary_tables(self.config, first_frame, num_frames, hidden.device)
        hidden = hidden.flatten(1, 2)
        cache: FrameCache | None = [] if return_cache else None
        output_attentions = recorded is not None and "attentions" in recorded
        for index, block in enumerate(self.predictor_blocks):
            record(recorded, "hidden_states", hidden)
            hidden, present, weights = block(hidden, rotary, None if past is None else past[index], output_attentions)
            record(recorded, "attentions", weights)
            if return_cache:
                cache.append(present)
        record(recorded, "hidden_states", hidden)
        patches = hidden.unflatten(1, (num_frames, tokens_per_frame))[:, :, self.config.num_condition_tokens :]
        return self.predictor_proj(self.predictor_norm(patches)), cache

    def embed_conditions(
        self, actions: torch.Tensor, states: torch.Tensor, extrinsics: torch.Tensor | None
    ) -> torch.Tensor:
        """The tokens in front of each frame's patches, `(B, T, condition tokens, width)`; arguments as in `forward`."""
        dtype = self.predictor_embed.weight.dtype
        tokens = [
            encode_rows(self.action_encoder, actions.to(dtype)),
            encode_rows(self.state_encoder, states.to(dtype)),
        ]
        if self.config.use_extrinsics:
            tokens.append(encode_rows(self.extrinsics_encoder, extrinsics.to(dtype)))
        return torch.stack(tokens, dim=2)


class FramePredictor:
    """
    The predictor on one frame after the other, with the cache of those before.

    Args:
        predictor ([`VJEPA2ACPredictor`]): The predictor.
    """

    def __init__(self, predictor: VJEPA2ACPredictor):
        self.predictor = predictor
        self.past: FrameCache | None = None

    def start(self, past: FrameCache | None) -> None:
        """Begins new futures behind frames of which `past` is the cache."""
        self.past = past

    def __call__(
        self, latents: torch.Tensor, actions: torch.Tensor, states: torch.Tensor, extrinsics: torch.Tensor | None
    ) -> torch.Tensor:
        """The prediction `(B, 1, P, D)` that follows one more frame; arguments as in `forward`, with T = 1."""
        prediction, self.past = self.predictor(latents, actions, states, extrinsics, past=self.past, return_cache=True)
        return prediction


__all__ = ["FramePredictor", "VJEPA2ACPredictor"]
