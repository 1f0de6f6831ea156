# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Transformer layers over one frame at a time, for inference on a CPU: the modules' numbers, in fewer passes over memory.

Encoder and predictor are the same pre-norm transformer. Training runs their modules; here their weights are read, and what
a layer makes lies in buffers that the next layer uses again, so that it stays in the processor's caches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder

from .attention_vjepa2_ac import FrameCache, VJEPA2ACResidualLinear, axial_rotary_tables, rotary_tables
from .predictor_vjepa2_ac import VJEPA2ACPredictor

# Frames of 258 tokens and width 256: two at once take 0.93 of the time that they take one by one, five gain nothing more, and
# every row needs memory for keys and values.
_TOKENS_AT_ONCE, _ROWS_AT_ONCE = 520, 4


@dataclass(frozen=True)
class FrameLayer:
    """What one layer computes with; see [`read_layer`]. Matrices are `(in, out)`."""

    norm1: nn.LayerNorm
    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    proj: nn.Linear
    norm2: nn.LayerNorm
    fc1: nn.Linear
    fc2: nn.Linear


def read_layer(layer: nn.Module, projections: Sequence[nn.Linear], proj: nn.Linear) -> FrameLayer:
    """
    The weights of a layer as they are now.

    Args:
        layer (`nn.Module`): With `norm1`, `norm2` and a feed-forward layer `mlp` of `fc1`, GELU and `fc2`.
        projections (`list[nn.Linear]`): One for queries, keys and values together, or one for each.
        proj (`nn.Linear`): Output projection of the attention.
    """
    weights, biases = [each.weight for each in projections], [each.bias for each in projections]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    if biases[0] is None:
        bias = weight.new_zeros(len(weight))
    else:
        bias = biases[0] if len(biases) == 1 else torch.cat(biases)
    return FrameLayer(layer.norm1, weight.t(), bias, proj, layer.norm2, layer.mlp.fc1, layer.mlp.fc2)


def can_be_read(network: VJEPA2Encoder | VJEPA2ACPredictor) -> bool:
    """
    Whether a network's layers can be read instead of called: they lie in the CPU's memory in float32, have GELU in
    between, and nothing is hooked to them or stands in their place.
    """
    if isinstance(network, VJEPA2ACPredictor):
        layers, has_gelu = network.predictor_blocks, not network.config.predictor_use_swiglu
        linears = [linear for layer in layers for linear in (layer.attn.qkv, layer.attn.proj)]
    else:
        layers, has_gelu = network.layer, network.config.hidden_act == "gelu"
        attentions = [layer.attention for layer in layers]
        linears = [linear for each in attentions for linear in (each.query, each.key, each.value, each.proj)]
    linears += [linear for layer in layers for linear in (layer.mlp.fc1, layer.mlp.fc2)]
    return (
        has_gelu
        # An adapter takes the place of the layer that it changes.
        and all(type(linear) in (nn.Linear, VJEPA2ACResidualLinear) for linear in linears)
        and all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in network.parameters())
        # accelerate's hooks replace the method on the instance.
        and not any(
            module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
            for module in network.modules()
        )
    )


def as_complex(hidden_states: torch.Tensor) -> torch.Tensor:
    """Adjacent pairs of `(..., head_dim)` as complex numbers, without a copy."""
    return torch.view_as_complex(hidden_states.unflatten(-1, (-1, 2)))


def rows_at_once(tokens: int) -> int:
    """How many frames of so many tokens to run at once."""
    return min(max(1, _TOKENS_AT_ONCE // tokens), _ROWS_AT_ONCE)


class FrameTransformer:
    r"""
    Runs rows of frames through layers, in place, keeping keys and values of all frames so far.

    Args:
        layers (`list[FrameLayer]`): Of [`read_layer`]. Their weights must not change while this is in use.
        head_dim (`int`): Width of an attention head.
        tables (`tuple[torch.Tensor, torch.Tensor]`, *optional*): Cosines and sines of `rotary_tables`, `(frames * tokens,
            head_dim)`; None for layers without rotary positions.
        rows (`int`): Most rows of a call.
        frames, tokens (`int`): Most frames of a row, and tokens of a frame.
    """

    def __init__(
        self,
        layers: Sequence[FrameLayer],
        head_dim: int,
        tables: tuple[torch.Tensor, torch.Tensor] | None,
        rows: int,
        frames: int,
        tokens: int,
    ):
        self.layers, self.head_dim, self.tokens = layers, head_dim, tokens
        width, device = layers[0].proj.out_features, layers[0].qkv.device
        self.num_heads = width // head_dim
        cache = (2, rows, frames * tokens, self.num_heads, head_dim)
        self.key_values = [torch.empty(cache, device=device) for _ in layers]
        self.projected = torch.empty(rows * tokens, 3 * width, device=device)
        self.widened = torch.empty(rows * tokens, layers[0].fc1.out_features, device=device)
        self.update = torch.empty(rows * tokens, width, device=device)
        # Queries and keys lie side by side, since they are rotated together.
        self.query_key = torch.empty(rows, tokens, 2, self.num_heads, head_dim, device=device)
        self.turned = torch.empty_like(self.query_key)
        self.tables = None
        if tables is not None:
            self.tables = [
                table.view(frames, tokens, 1, 1, head_dim).repeat(1, 1, 2, self.num_heads, 1) for table in tables
            ]

    def load(self, past: FrameCache) -> None:
        """Starts from keys and values of earlier frames that the modules made, `(rows, heads, length, head_dim)` per layer."""
        for key_value, buffer in zip(past, self.key_values, strict=True):
            for part, kept in zip(key_value, buffer, strict=True):
                kept[: len(part), : part.shape[2]] = part.transpose(1, 2)

    def run(self, hidden_states: torch.Tensor, frame: int) -> None:
        """
        Replaces the tokens of one frame, the input of the first layer, by the output of the last.

        Args:
            hidden_states (`torch.Tensor` of shape `(rows, tokens, width)`): Contiguous.
            frame (`int`): Which frame it is; those before it have been run or [loaded][FrameTransformer.load].
        """
        rows, tokens, width = hidden_states.shape
        stream = hidden_states.view(-1, width)
        projected, widened, update = (x[: len(stream)] for x in (self.projected, self.widened, self.update))
        first, end = frame * tokens, (frame + 1) * tokens
        heads = projected.view(rows, tokens, 3, self.num_heads, self.head_dim)
        query_key, turned = self.query_key[:rows], self.turned[:rows]
        for layer, key_values in zip(self.layers, self.key_values, strict=True):
            torch.addmm(layer.qkv_bias, layer.norm1(stream), layer.qkv, out=projected)
            keys, values = key_values[:, :rows]
            if self.tables is None:
                query_key.copy_(heads[:, :, :2])
            else:
                cos, sin = (table[frame] for table in self.tables)
                # The pair (even, odd) times i is (-odd, even), in one pass.
                torch.mul(as_complex(heads[:, :, :2]), 1j, out=as_complex(turned))
                torch.mul(heads[:, :, :2], cos, out=query_key).add_(turned.mul_(sin))
            keys[:, first:end] = query_key[:, :, 1]
            values[:, first:end] = heads[:, :, 2]
            attended = F.scaled_dot_product_attention(
                query_key[:, :, 0].transpose(1, 2), keys[:, :end].transpose(1, 2), values[:, :end].transpose(1, 2)
            )
            attended = attended.transpose(1, 2).reshape(stream.shape)
            torch.addmm(layer.proj.bias, attended, layer.proj.weight.t(), out=update)
            stream.add_(update)
            torch.addmm(layer.fc1.bias, layer.norm2(stream), layer.fc1.weight.t(), out=widened)
            torch.ops.aten.gelu_(widened)
            torch.addmm(layer.fc2.bias, widened, layer.fc2.weight.t(), out=update)
            stream.add_(update)


def encode_frames(encoder: VJEPA2Encoder, images: torch.Tensor) -> torch.Tensor:
    """
    The encoder's output on images, each alone.

    Args:
        encoder (`VJEPA2Encoder`): One that [can be read][can_be_read].
        images (`torch.Tensor` of shape `(R, 1, 3, crop_size, crop_size)`): Pixel values.

    Returns:
        `torch.Tensor` of shape `(R, P, D)`.
    """
    config = encoder.config
    head_dim = config.hidden_size // config.num_attention_heads
    layers = [
        read_layer(
            layer,
            [layer.attention.query, layer.attention.key, layer.attention.value],
            layer.attention.proj,
        )
        for layer in encoder.layer
    ]
    hidden = encoder.embeddings(images).contiguous()
    side = config.crop_size // config.patch_size
    tokens = hidden.shape[1]
    rows = min(rows_at_once(tokens), len(hidden))
    tables = axial_rotary_tables((side, side), 0, head_dim, 0, 1, hidden.device)
    transformer = FrameTransformer(layers, head_dim, tables, rows, 1, tokens)
    for part in hidden.split(rows):
        transformer.run(part, 0)
    return encoder.layernorm(hidden)


class BufferedFramePredictor:
    r"""
    [`FramePredictor`] for inference.

    Args:
        predictor ([`VJEPA2ACPredictor`]): One that [can be read][can_be_read]; its weights must not change meanwhile.
        rows (`int`): Most futures at once.
        frames (`int`): Frames of a future, those before it included.
    """

    def __init__(self, predictor: VJEPA2ACPredictor, rows: int, frames: int):
        self.predictor, self.config = predictor, predictor.config
        config, device = predictor.config, predictor.predictor_embed.weight.device
        layers = [read_layer(block, [block.attn.qkv], block.attn.proj) for block in predictor.predictor_blocks]
        tables = rotary_tables(config, 0, frames, device) if config.predictor_use_rope else None
        tokens = config.tokens_per_frame
        self.transformer = FrameTransformer(layers, config.predictor_head_dim, tables, rows, frames, tokens)
        self.hidden = torch.empty(rows, tokens, config.predictor_hidden_size, device=device)
        self.frame = 0

    def start(self, past: FrameCache | None) -> None:
        """Begins new futures behind frames of which `past` is the cache."""
        self.frame = 0
        if past is not None:
            self.transformer.load(past)
            self.frame = past[0][0].shape[2] // self.config.tokens_per_frame

    def __call__(
        self, latents: torch.Tensor, actions: torch.Tensor, states: torch.Tensor, extrinsics: torch.Tensor | None
    ) -> torch.Tensor:
        """The prediction `(R, 1, P, D)` that follows one more frame; arguments as in [`VJEPA2ACPredictor`], with T = 1."""
        predictor, conditions = self.predictor, self.config.num_condition_tokens
        hidden = self.hidden[: len(latents)]
        hidden[:, :conditions] = predictor.embed_conditions(actions, states, extrinsics)[:, 0]
        hidden[:, conditions:] = predictor.predictor_embed(latents[:, 0])
        self.transformer.run(hidden, self.frame)
        self.frame += 1
        return predictor.predictor_proj(predictor.predictor_norm(hidden[:, conditions:]))[:, None]


__all__ = [
    "BufferedFramePredictor",
    "FrameLayer",
    "FrameTransformer",
    "can_be_read",
    "encode_frames",
    "read_layer",
    "rows_at_once",
]
