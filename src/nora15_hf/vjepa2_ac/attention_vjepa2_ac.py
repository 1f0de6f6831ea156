# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Frame-causal attention of the V-JEPA 2-AC predictor: rotary positions, keys and values of past frames."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_vjepa2_ac import VJEPA2ACConfig

LayerCache = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one predictor layer, each `(B, heads, frames * tokens per frame, head_dim)`."""

FrameCache = list[LayerCache]
"""One `LayerCache` per predictor layer: all that later frames need to know about earlier ones."""


def axial_rotary_tables(
    grid_size: tuple[int, int],
    num_condition_tokens: int,
    head_dim: int,
    first_frame: int,
    num_frames: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Cosines and sines of V-JEPA 2's rotary embedding, each float32 `(num_frames * tokens per frame, head_dim)`.

    A head splits into `[frame | row | column | rest]`; the rest keeps angle zero and so stays as it is. Inside an
    axis the frequencies are tiled (angle j uses frequency j mod n) although the turned pairs are adjacent, so that a
    pair mixes two frequencies and absolute frame indices matter: the released weights were trained this way
    (`facebookresearch/vjepa2`, `src/models/utils/modules.py`). Computed from integers at every call, because a buffer
    would follow the model to bfloat16.

    Args:
        grid_size (`tuple[int, int]`): Rows and columns of patches.
        num_condition_tokens (`int`): Tokens in front of a frame's patches, which are turned along the frame axis only.
        head_dim (`int`): Width of an attention head.
        first_frame, num_frames (`int`): Which frames.
    """
    rows, columns = grid_size
    positions = torch.zeros(num_frames, num_condition_tokens + rows * columns, 3, device=device)
    positions[..., 0] = torch.arange(first_frame, first_frame + num_frames, device=device)[:, None]
    patches = torch.arange(rows * columns, device=device)
    positions[:, num_condition_tokens:, 1] = patches // columns
    positions[:, num_condition_tokens:, 2] = (patches % columns) * (rows / columns)

    num_frequencies = head_dim // 3 // 2
    exponents = torch.arange(num_frequencies, device=device, dtype=torch.float32) / num_frequencies
    frequencies = (1.0 / 10000**exponents).repeat(2)
    rates = torch.zeros(3, head_dim, device=device)
    for axis in range(3):
        rates[axis, axis * 2 * num_frequencies : (axis + 1) * 2 * num_frequencies] = frequencies
    # Each column of `rates` has one non-zero row, so this sum is exact (a matrix product might run in TF32).
    angles = (positions.flatten(0, 1)[:, :, None] * rates).sum(1)
    return angles.cos(), angles.sin()


def rotary_tables(
    config: VJEPA2ACConfig, first_frame: int, num_frames: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """[`axial_rotary_tables`] of the predictor's tokens."""
    return axial_rotary_tables(
        config.grid_size, config.num_condition_tokens, config.predictor_head_dim, first_frame, num_frames, device
    )


def rotate(hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns adjacent pairs of `hidden` (..., tokens, head_dim) by the tables of [`rotary_tables`]."""
    even, odd = hidden.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (hidden * cos + turned * sin).to(hidden.dtype)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, `(B, heads, tokens, head_dim)` -> `(B, tokens, heads, head_dim)` and its weights."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


def frame_causal_mask(query: torch.Tensor, num_keys: int, tokens_per_frame: int) -> torch.Tensor:
    """Additive mask `(queries, keys)` for `query` `(B, heads, queries, head_dim)`, the last of the frames of the keys."""
    frames = torch.arange(num_keys, device=query.device) // tokens_per_frame
    later = frames > frames[-query.shape[2] :, None]
    return torch.zeros(later.shape, dtype=query.dtype, device=query.device).masked_fill_(later, -torch.inf)


class VJEPA2ACResidualLinear(nn.Linear):
    """A linear layer whose initial weights shrink with the depth of its block."""

    def __init__(self, in_features: int, out_features: int, layer_index: int):
        super().__init__(in_features, out_features)
        self.layer_index = layer_index


class VJEPA2ACAttention(nn.Module):
    """
    Multi-head attention with rotary positions, over the new frames and the cached ones before them.

    A token sees its own frame and all earlier ones. Instead of masking the later ones, the frames attend one after the
    other, each to the keys up to its own: no mask to build, no masked scores to compute (the released code computes
    T * T blocks, of which T * (T + 1) / 2 count), kernels that take no mask, and a frame that is computed
    alone after a cache runs exactly the arithmetic that it runs as part of a clip. Only where the weights are asked for,
    all frames attend at once, under a mask.
    """

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        self.config = config
        self.head_dim = config.predictor_head_dim
        self.qkv = nn.Linear(config.predictor_hidden_size, 3 * config.predictor_hidden_size)
        self.proj = VJEPA2ACResidualLinear(config.predictor_hidden_size, config.predictor_hidden_size, layer_index)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        past: LayerCache | None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, LayerCache, torch.Tensor | None]:
        qkv = self.qkv(hidden_states).unflatten(-1, (3, -1, self.head_dim))
        qkv = qkv.permute(2, 0, 3, 1, 4)
        query, key = qkv[:2] if rotary is None else rotate(qkv[:2], *rotary)
        value = qkv[2]
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        if output_attentions:
            mask = frame_causal_mask(query, key.shape[2], self.config.tokens_per_frame)
            attended, weights = eager_attention_forward(self, query, key, value, mask, self.head_dim**-0.5)
            return self.proj(attended.flatten(2)), (key, value), weights
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, seen = [], key.shape[2] - query.shape[2]
        for frame_query in query.split(self.config.tokens_per_frame, dim=2):
            seen += self.config.tokens_per_frame
            frame_attended, _ = attention(
                self,
                frame_query,
                key[:, :, :seen],
                value[:, :, :seen],
                attention_mask=None,
                scaling=self.head_dim**-0.5,
                dropout=0.0,
                is_causal=False,
            )
            attended.append(frame_attended.flatten(2))
        return self.proj(torch.cat(attended, dim=1)), (key, value), None


__all__ = [
    "FrameCache",
    "LayerCache",
    "VJEPA2ACAttention",
    "VJEPA2ACResidualLinear",
    "axial_rotary_tables",
    "eager_attention_forward",
    "rotary_tables",
    "rotate",
]
