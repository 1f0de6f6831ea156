# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The decoder layer of backbone and expert for inference: the same numbers as the modules', in fewer operations.

Both have Qwen2.5-VL's layer. Training runs the modules; here the values of their parameters are read, never changed (those
that share an input come to lie end to end in one storage), and nothing is kept from one call of the policy to the next.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .joined_linear import JoinedLinear, joined_linear


@dataclass(frozen=True)
class LayerWeights:
    """What one decoder layer computes with; see [`read_layer`]."""

    input_norm: nn.Module
    post_attention_norm: nn.Module
    qkv: JoinedLinear
    output: JoinedLinear
    gate_up: JoinedLinear
    down: JoinedLinear
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    scaling: float

    @property
    def form(self) -> tuple[Hashable, ...]:
        """All of it that compiled code takes for granted."""
        norms = self.input_norm.variance_epsilon, self.post_attention_norm.variance_epsilon
        return *norms, self.head_dim, self.scaling, self.qkv.form, self.output.form, self.gate_up.form, self.down.form


def read_layer(layer: nn.Module) -> LayerWeights:
    """The weights of a known backbone or expert layer as they are now; valid until a parameter is replaced."""
    attention, mlp = layer.self_attn, layer.mlp
    head_dim = attention.head_dim
    return LayerWeights(
        input_norm=layer.input_layernorm,
        post_attention_norm=layer.post_attention_layernorm,
        qkv=joined_linear([attention.q_proj, attention.k_proj, attention.v_proj]),
        output=joined_linear([attention.o_proj]),
        gate_up=joined_linear([mlp.gate_proj, mlp.up_proj]),
        down=joined_linear([mlp.down_proj]),
        num_heads=attention.q_proj.out_features // head_dim,
        num_key_value_heads=attention.k_proj.out_features // head_dim,
        head_dim=head_dim,
        scaling=attention.scaling,
    )


def rms_norm(norm: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """Qwen2.5-VL's RMSNorm in one call."""
    return F.rms_norm(hidden_states, norm.weight.shape, norm.weight, norm.variance_epsilon)


def rotary_tables(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tables of [`rotate_`].

    Args:
        cos, sin (`torch.Tensor` of shape `(batch, length, head_dim)`): Of half-split rotary embeddings.

    Returns:
        Two tensors of shape `(batch, length, 1, head_dim)`: the cosines, and the sines with the sign of `rotate_half`.
    """
    half = sin.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return cos[:, :, None], sin[:, :, None]


def rotate_(heads: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Rotary position embedding of `(batch, length, heads, head_dim)` in its own memory, computed in the tables' dtype."""
    cos, sin = tables
    turned = heads.to(cos.dtype)
    first, second = turned.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)
    turned.mul_(cos).addcmul_(swapped, sin)
    if turned is not heads:
        heads.copy_(turned)


class KeyValueBuffer:
    r"""
    One layer's keys and values in one tensor with room for more, so that nothing is concatenated.

    Args:
        keys, values (`torch.Tensor` of shape `(batch, key/value heads, length, head_dim)`): What is known.
        room (`int`): Columns behind them, to be [written][KeyValueBuffer.write].
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int):
        batch, num_heads, length, head_dim = keys.shape
        self.num_heads = num_heads
        self.data = keys.new_zeros(batch, 2 * num_heads, length + room, head_dim)
        self.data[:, :num_heads, :length] = keys
        self.data[:, num_heads:, :length] = values

    @property
    def keys(self) -> torch.Tensor:
        return self.data[:, : self.num_heads]

    @property
    def values(self) -> torch.Tensor:
        return self.data[:, self.num_heads :]

    def write(self, column: int, key_value: torch.Tensor) -> None:
        """Keys and values `(batch, length, 2 * key/value heads, head_dim)` of the tokens from `column` on."""
        self.data[:, :, column : column + key_value.shape[1]] = key_value.transpose(1, 2)

    def write_at(self, column: torch.LongTensor, key_value: torch.Tensor) -> None:
        """As `write`, for one token whose column `(1,)` is not known when the code is compiled."""
        self.data.index_copy_(2, column, key_value.transpose(1, 2))

    def select(self, rows: torch.LongTensor) -> None:
        """Keeps those rows of the batch."""
        self.data = self.data[rows]


def grouped_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """
    Grouped-query attention without repeating keys and values: the query heads that share a key head stand below one
    another, as more rows of one product.

    Args:
        queries (`torch.Tensor` of shape `(batch, length, heads, head_dim)`): Query head `j` belongs to key head
            `j // (heads / key_heads)`.
        keys, values (`torch.Tensor` of shape `(batch, key_heads, columns, head_dim)`).
        mask (`torch.Tensor` of shape `(batch, 1, group * length, columns)`): Additive, of [`grouped_mask`].
        scaling (`float`): Of the products of queries and keys.

    Returns:
        `torch.Tensor` of shape `(batch, length, heads * head_dim)`.
    """
    batch, length, num_heads, head_dim = queries.shape
    num_key_heads = keys.shape[1]
    group = num_heads // num_key_heads
    queries = queries.view(batch, length, num_key_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    queries = queries.reshape(batch, num_key_heads, group * length, head_dim).to(keys.dtype)
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling)
    attended = attended.view(batch, num_key_heads, group, length, head_dim).permute(0, 3, 1, 2, 4)
    return attended.reshape(batch, length, num_heads * head_dim)


def grouped_mask(visible: torch.Tensor, group: int, dtype: torch.dtype) -> torch.Tensor:
    """
    Additive mask of [`grouped_attention`].

    Args:
        visible (`torch.BoolTensor` of shape `(batch, length, columns)`): What a token may look at.
        group (`int`): Query heads for each key head.
        dtype (`torch.dtype`): Of the queries.

    Returns:
        `torch.Tensor` of shape `(batch, 1, group * length, columns)`.
    """
    # The smallest number, not minus infinity: a row of padding sees nothing and must not become NaN.
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    mask = mask.masked_fill_(~visible, torch.finfo(dtype).min)
    return mask.repeat(1, group, 1)[:, None]


def project_heads(
    weights: LayerWeights, hidden_states: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The first half of a decoder layer.

    Args:
        weights ([`LayerWeights`]): Of [`read_layer`].
        hidden_states (`torch.Tensor` of shape `(batch, length, hidden_size)`): Input of the layer.
        tables (`tuple[torch.Tensor, torch.Tensor]`): Of [`rotary_tables`].

    Returns:
        Queries `(batch, length, heads, head_dim)`, and keys and values `(batch, length, 2 * key_value_heads, head_dim)`.
    """
    heads = weights.qkv(rms_norm(weights.input_norm, hidden_states))
    heads = heads.view(*heads.shape[:2], -1, weights.head_dim)
    # Queries and keys stand in front of the values and are rotated in one pass.
    rotate_(heads[:, :, : weights.num_heads + weights.num_key_value_heads], tables)
    return heads.split([weights.num_heads, 2 * weights.num_key_value_heads], dim=2)


def finish_layer(weights: LayerWeights, hidden_states: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """
    The second half of a decoder layer.

    Args:
        weights ([`LayerWeights`]): Of [`read_layer`].
        hidden_states (`torch.Tensor` of shape `(batch, length, hidden_size)`): Input of the layer.
        attended (`torch.Tensor` of shape `(batch, length, heads * head_dim)`): Of [`grouped_attention`].

    Returns:
        `torch.Tensor` of the shape of `hidden_states`: output of the layer.
    """
    hidden_states = hidden_states + weights.output(attended)
    gate, up = weights.gate_up(rms_norm(weights.post_attention_norm, hidden_states)).chunk(2, dim=-1)
    activated = F.silu(gate).mul_(up)
    # The largest tensor of the pass is not needed any more.
    del gate, up
    return hidden_states + weights.down(activated)


__all__ = [
    "KeyValueBuffer",
    "LayerWeights",
    "finish_layer",
    "grouped_attention",
    "grouped_mask",
    "project_heads",
    "read_layer",
    "rms_norm",
    "rotary_tables",
    "rotate_",
]
