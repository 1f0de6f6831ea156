# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The backbone's pass over a prompt, for inference: vision tower and language layers, no LM head, no wait for the device."""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from .fused_linear import joined_linear, linear
from .inference_layers import (
    finish_layer,
    grouped_attention,
    grouped_mask,
    project_heads,
    read_layer,
    rms_norm,
    rotary_tables,
)


@functools.lru_cache(maxsize=32)
def vision_layout(
    grids: tuple[tuple[int, int, int], ...], merge_size: int, window_size: int, patch_size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...], tuple[int, ...]]:
    """
    Where the patches of pictures stand, which depends on the pictures' sizes only.

    Returns:
        The order of merged tokens that puts windows side by side, its inverse, the patches' positions `(patches, 2)` in that
        order, and the lengths in patches of all windows and of all frames.
    """
    grid = torch.tensor(grids)
    window_index, boundaries = get_vision_window_index(grid, merge_size, window_size, patch_size)
    position = get_vision_position_ids(grid, merge_size).view(len(window_index), merge_size**2, 2)
    return (
        window_index.to(device),
        window_index.argsort().to(device),
        position[window_index].flatten(0, 1).to(device),
        tuple(boundaries.diff().tolist()),
        tuple(height * width for frames, height, width in grids for _ in range(frames)),
    )


def attend_windows(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: tuple[int, ...]
) -> torch.Tensor:
    """
    Attention inside each of the windows that lie end to end in `(patches, heads, head_dim)`.

    Windows of equal length, which all pictures of one suitable size have, are a batch; others go one by one.
    """
    if len(set(lengths)) == 1:
        batched = (x.view(len(lengths), lengths[0], *x.shape[1:]).transpose(1, 2) for x in (queries, keys, values))
        return F.scaled_dot_product_attention(*batched).transpose(1, 2).reshape(len(queries), -1)
    windows = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (queries, keys, values)), strict=True)
    attended = [F.scaled_dot_product_attention(*(x[None] for x in window))[0] for window in windows]
    return torch.cat(attended, dim=1).transpose(0, 1).reshape(len(queries), -1)


def encode_images(visual: nn.Module, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
    """
    The pooled output of Qwen2.5-VL's vision tower.

    Args:
        visual (`Qwen2_5_VisionTransformerPretrainedModel`): The tower.
        pixel_values (`torch.Tensor` of shape `(patches, channels * temporal_patch * patch * patch)`): Flattened patches.
        image_grid_thw (`torch.LongTensor` of shape `(images, 3)`): Patch grids.

    Returns:
        `torch.Tensor` of shape `(merged tokens, out_hidden_size)`.
    """
    config = visual.config
    window_index, reverse_index, position, window_lengths, frame_lengths = vision_layout(
        tuple(map(tuple, image_grid_thw.tolist())),
        config.spatial_merge_size,
        config.window_size,
        config.patch_size,
        pixel_values.device,
    )
    # A convolution whose stride is its kernel is a product.
    kernel = visual.patch_embed.proj.weight
    hidden_states = linear(pixel_values.to(kernel.dtype), kernel.flatten(1))
    merged = config.spatial_merge_size**2
    hidden_states = hidden_states.view(-1, merged, hidden_states.shape[-1])[window_index].flatten(0, 1)
    position_embeddings = visual.rotary_pos_emb(hidden_states, position)
    for number, block in enumerate(visual.blocks):
        attention, mlp = block.attn, block.mlp
        lengths = frame_lengths if number in visual.fullatt_block_indexes else window_lengths
        qkv = joined_linear([attention.qkv])(rms_norm(block.norm1, hidden_states))
        queries, keys, values = qkv.view(len(qkv), 3, attention.num_heads, -1).unbind(1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, *position_embeddings)
        hidden_states = hidden_states + joined_linear([attention.proj])(attend_windows(queries, keys, values, lengths))
        gate, up = joined_linear([mlp.gate_proj, mlp.up_proj])(rms_norm(block.norm2, hidden_states)).chunk(2, dim=-1)
        hidden_states = hidden_states + joined_linear([mlp.down_proj])(mlp.act_fn(gate) * up)
    merger = visual.merger
    hidden_states = rms_norm(merger.ln_q, hidden_states).view(-1, merger.hidden_size)
    hidden_states = merger.mlp[1](joined_linear([merger.mlp[0]])(hidden_states))
    return joined_linear([merger.mlp[2]])(hidden_states)[reverse_index]


def encode_tokens(
    language_model: nn.Module,
    inputs_embeds: torch.Tensor,
    position_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    last_output: bool,
) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """
    The language model's layers on a prompt.

    Nobody reads what the last layer makes of the prompt, except its final token if FAST tokens are to follow: the layer
    computes keys and values of all tokens and goes on with that one at most.

    Args:
        language_model (`Qwen2_5_VLTextModel`): The backbone without its LM head.
        inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`): Tokens with pictures in their places.
        position_ids (`torch.LongTensor` of shape `(3, batch, length)`): Of `multimodal_position_ids`.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
        last_output (`bool`): Whether the last layer's output is needed at the final token.

    Returns:
        The final token's hidden states `(batch, 1, hidden_size)`, before the final norm, or None, and each layer's rotated
        keys and values, `(batch, key/value heads, length, head_dim)`.
    """
    layers = [read_layer(layer) for layer in language_model.layers]
    num_heads, num_key_heads = layers[0].num_heads, layers[0].num_key_value_heads
    length = inputs_embeds.shape[1]
    visible = torch.ones(length, length, dtype=torch.bool, device=inputs_embeds.device).tril()
    visible = visible & attention_mask.bool()[:, None]
    mask = grouped_mask(visible, num_heads // num_key_heads, inputs_embeds.dtype)
    tables = rotary_tables(
        *language_model.rotary_emb(inputs_embeds, position_ids), num_heads + num_key_heads, num_key_heads
    )
    all_keys, all_values = [], []
    hidden_states = inputs_embeds
    for number, layer in enumerate(layers):
        queries, key_value = project_heads(layer, hidden_states, tables)
        keys, values = key_value.transpose(1, 2).chunk(2, dim=1)
        all_keys.append(keys)
        all_values.append(values)
        if number == len(layers) - 1:
            if not last_output:
                return None, tuple(all_keys), tuple(all_values)
            queries, hidden_states = queries[:, -1:], hidden_states[:, -1:]
            mask = grouped_mask(visible[:, -1:], num_heads // num_key_heads, hidden_states.dtype)
        hidden_states = finish_layer(layer, hidden_states, grouped_attention(queries, keys, values, mask))
    return hidden_states, tuple(all_keys), tuple(all_values)


__all__ = ["attend_windows", "encode_images", "encode_tokens", "vision_layout"]
