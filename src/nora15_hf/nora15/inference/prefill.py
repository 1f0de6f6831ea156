# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The backbone's pass over a prompt, for inference: vision tower and language layers, no LM head, no wait for the device."""

import functools
from collections.abc import Hashable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from .joined_linear import JoinedLinear, joined_linear
from .layer_weights import (
    LayerWeights,
    finish_layer,
    grouped_attention,
    grouped_mask,
    project_heads,
    rms_norm,
    rotary_tables,
)


@dataclass(frozen=True)
class VisionLayout:
    """Where the patches of pictures stand; see [`vision_layout`]."""

    order: torch.Tensor
    inverse_order: torch.Tensor
    positions: torch.Tensor
    window_lengths: tuple[int, ...]
    frame_lengths: tuple[int, ...]


@functools.lru_cache(maxsize=32)
def vision_layout(
    grids: tuple[tuple[int, int, int], ...], merge_size: int, window_size: int, patch_size: int, device: torch.device
) -> VisionLayout:
    """
    Where the patches of pictures stand, which depends on the pictures' sizes only.

    Returns:
        The order of merged tokens that puts windows side by side, its inverse, the patches' positions `(patches, 2)` in that
        order, and the lengths in patches of all windows and of all frames.
    """
    grid = torch.tensor(grids)
    window_index, boundaries = get_vision_window_index(grid, merge_size, window_size, patch_size)
    position = get_vision_position_ids(grid, merge_size).view(len(window_index), merge_size**2, 2)
    return VisionLayout(
        order=window_index.to(device),
        inverse_order=window_index.argsort().to(device),
        positions=position[window_index].flatten(0, 1).to(device),
        window_lengths=tuple(boundaries.diff().tolist()),
        frame_lengths=tuple(height * width for frames, height, width in grids for _ in range(frames)),
    )


def attend_windows(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: tuple[int, ...], scaling: float
) -> torch.Tensor:
    """
    Attention inside each of the windows that lie end to end in `(patches, heads, head_dim)`.

    Windows of equal length, which all pictures of one suitable size have, are a batch; others go one by one.
    """
    if len(set(lengths)) == 1:
        batched = (x.view(len(lengths), lengths[0], *x.shape[1:]).transpose(1, 2) for x in (queries, keys, values))
        return F.scaled_dot_product_attention(*batched, scale=scaling).transpose(1, 2).reshape(len(queries), -1)
    windows = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (queries, keys, values)), strict=True)
    attended = [F.scaled_dot_product_attention(*(x[None] for x in window), scale=scaling)[0] for window in windows]
    return torch.cat(attended, dim=1).transpose(0, 1).reshape(len(queries), -1)


@dataclass(frozen=True)
class VisionBlockWeights:
    """What one block of the vision tower computes with."""

    norm1: nn.Module
    norm2: nn.Module
    qkv: JoinedLinear
    output: JoinedLinear
    gate_up: JoinedLinear
    down: JoinedLinear
    activation: nn.Module
    num_heads: int
    scaling: float
    sees_whole_frame: bool

    @property
    def projections(self) -> tuple[JoinedLinear, ...]:
        return self.qkv, self.output, self.gate_up, self.down


@dataclass(frozen=True)
class VisionWeights:
    """What the vision tower computes with; see [`read_vision`]."""

    tower: nn.Module
    kernel: JoinedLinear
    blocks: list[VisionBlockWeights]
    merge: JoinedLinear
    project: JoinedLinear

    @property
    def form(self) -> tuple[Hashable, ...]:
        """All of it that compiled code takes for granted."""
        of_blocks = (
            (
                block.norm1.variance_epsilon,
                block.norm2.variance_epsilon,
                block.scaling,
                *(p.form for p in block.projections),
            )
            for block in self.blocks
        )
        ends = self.kernel.form, self.merge.form, self.project.form, self.tower.merger.ln_q.variance_epsilon
        return *ends, *of_blocks


def read_vision(visual: nn.Module) -> VisionWeights:
    """The weights of a known `Qwen2_5_VisionTransformerPretrainedModel` as they are now."""
    patches = visual.patch_embed.proj
    return VisionWeights(
        tower=visual,
        # A convolution whose stride is its kernel is a product.
        kernel=JoinedLinear(((patches.weight.flatten(1), patches.bias),)),
        blocks=[
            VisionBlockWeights(
                norm1=block.norm1,
                norm2=block.norm2,
                qkv=joined_linear([block.attn.qkv]),
                output=joined_linear([block.attn.proj]),
                gate_up=joined_linear([block.mlp.gate_proj, block.mlp.up_proj]),
                down=joined_linear([block.mlp.down_proj]),
                activation=block.mlp.act_fn,
                num_heads=block.attn.num_heads,
                scaling=block.attn.scaling,
                sees_whole_frame=number in visual.fullatt_block_indexes,
            )
            for number, block in enumerate(visual.blocks)
        ],
        merge=joined_linear([visual.merger.mlp[0]]),
        project=joined_linear([visual.merger.mlp[2]]),
    )


def encode_patches(weights: VisionWeights, pixel_values: torch.Tensor, layout: VisionLayout) -> torch.Tensor:
    """
    The pooled output of Qwen2.5-VL's vision tower.

    Args:
        weights ([`VisionWeights`]): Of [`read_vision`].
        pixel_values (`torch.Tensor` of shape `(patches, channels * temporal_patch * patch * patch)`): Flattened patches.
        layout ([`VisionLayout`]): Of [`vision_layout`].

    Returns:
        `torch.Tensor` of shape `(merged tokens, out_hidden_size)`.
    """
    visual = weights.tower
    hidden_states = weights.kernel(pixel_values.to(weights.kernel.parts[0][0].dtype))
    merged = visual.config.spatial_merge_size**2
    hidden_states = hidden_states.view(-1, merged, hidden_states.shape[-1])[layout.order].flatten(0, 1)
    position_embeddings = visual.rotary_pos_emb(hidden_states, layout.positions)
    for block in weights.blocks:
        lengths = layout.frame_lengths if block.sees_whole_frame else layout.window_lengths
        qkv = block.qkv(rms_norm(block.norm1, hidden_states))
        queries, keys, values = qkv.view(len(qkv), 3, block.num_heads, -1).unbind(1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, *position_embeddings)
        attended = attend_windows(queries, keys, values, lengths, block.scaling)
        # The largest tensors of the block are not needed any more.
        del qkv, queries, keys, values
        hidden_states = hidden_states + block.output(attended)
        gate, up = block.gate_up(rms_norm(block.norm2, hidden_states)).chunk(2, dim=-1)
        hidden_states = hidden_states + block.down(block.activation(gate).mul_(up))
    merger = visual.merger
    hidden_states = rms_norm(merger.ln_q, hidden_states).view(-1, merger.hidden_size)
    return weights.project(merger.mlp[1](weights.merge(hidden_states)))[layout.inverse_order]


def encode_tokens(
    layers: list[LayerWeights],
    inputs_embeds: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor,
    last_output: bool,
) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """
    The language model's layers on a prompt.

    Nobody reads what the last layer makes of the prompt, except its final token if FAST tokens are to follow: the layer
    computes keys and values of all tokens and goes on with that one at most.

    Args:
        layers (`list[LayerWeights]`): Of [`read_layer`].
        inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`): Tokens with pictures in their places.
        position_embeddings (`tuple[torch.Tensor, torch.Tensor]`): Cosines and sines `(batch, length, head_dim)`.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
        last_output (`bool`): Whether the last layer's output is needed at the final token.

    Returns:
        The final token's hidden states `(batch, 1, hidden_size)`, before the final norm, or None, and each layer's rotated
        keys and values, `(batch, key/value heads, length, head_dim)`.
    """
    num_heads, num_key_heads = layers[0].num_heads, layers[0].num_key_value_heads
    length = inputs_embeds.shape[1]
    visible = torch.ones(length, length, dtype=torch.bool, device=inputs_embeds.device).tril()
    visible = visible & attention_mask.bool()[:, None]
    mask = grouped_mask(visible, num_heads // num_key_heads, inputs_embeds.dtype)
    tables = rotary_tables(*position_embeddings)
    all_keys, all_values = [], []
    hidden_states = inputs_embeds
    for number, layer in enumerate(layers):
        queries, key_value = project_heads(layer, hidden_states, tables)
        # A copy, since a view of them would keep the queries of all layers in memory.
        keys, values = key_value.transpose(1, 2).contiguous().chunk(2, dim=1)
        all_keys.append(keys)
        all_values.append(values)
        if number == len(layers) - 1:
            if not last_output:
                return None, tuple(all_keys), tuple(all_values)
            queries, hidden_states = queries[:, -1:], hidden_states[:, -1:]
            mask = grouped_mask(visible[:, -1:], num_heads // num_key_heads, hidden_states.dtype)
        attended = grouped_attention(queries, keys, values, mask, layer.scaling)
        del queries, key_value
        hidden_states = finish_layer(layer, hidden_states, attended)
    return hidden_states, tuple(all_keys), tuple(all_values)


__all__ = [
    "VisionLayout",
    "VisionWeights",
    "attend_windows",
    "encode_patches",
    "encode_tokens",
    "read_vision",
    "vision_layout",
]
