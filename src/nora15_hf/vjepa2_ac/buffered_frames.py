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
from transformers.activations import GELUActivation
from transformers.models.vjepa2.modeling_vjepa2 import (
    VJEPA2MLP,
    VJEPA2Embeddings,
    VJEPA2Encoder,
    VJEPA2Layer,
    VJEPA2PatchEmbeddings3D,
    VJEPA2RopeAttention,
)

from ..runtime.known_modules import LIBRARY_MODULES, KnownModules, uses_sdpa
from .attention_vjepa2_ac import (
    FrameCache,
    VJEPA2ACAttention,
    VJEPA2ACResidualLinear,
    axial_rotary_tables,
    rotary_tables,
)
from .predictor_vjepa2_ac import VJEPA2ACMLP, VJEPA2ACBlock, VJEPA2ACPredictor

# Frames of 258 tokens and width 256: two at once take 0.93 of the time that they take one by one, five gain nothing more, and
# every row needs memory for keys and values.
_TOKENS_AT_ONCE, _ROWS_AT_ONCE = 520, 4


KNOWN = KnownModules(
    LIBRARY_MODULES
    | {
        VJEPA2Encoder: {
            "embeddings": VJEPA2Embeddings,
            "layer": (VJEPA2Layer, ...),
            "layernorm": nn.LayerNorm,
        },
        VJEPA2Embeddings: {"patch_embeddings": VJEPA2PatchEmbeddings3D},
        VJEPA2PatchEmbeddings3D: {"proj": nn.Conv3d},
        VJEPA2Layer: {
            "norm1": nn.LayerNorm,
            "attention": VJEPA2RopeAttention,
            "drop_path": nn.Identity,
            "norm2": nn.LayerNorm,
            "mlp": VJEPA2MLP,
        },
        VJEPA2RopeAttention: {
            **dict.fromkeys(("query", "key", "value", "proj"), nn.Linear),
            "dropout": nn.Dropout,
        },
        VJEPA2MLP: {"fc1": nn.Linear, "activation": GELUActivation, "fc2": nn.Linear},
        GELUActivation: {},
        VJEPA2ACPredictor: {
            **dict.fromkeys(("predictor_embed", "action_encoder", "state_encoder", "extrinsics_encoder"), nn.Linear),
            "predictor_blocks": (VJEPA2ACBlock, ...),
            "predictor_norm": nn.LayerNorm,
            "predictor_proj": nn.Linear,
        },
        VJEPA2ACBlock: {
            "norm1": nn.LayerNorm,
            "attn": VJEPA2ACAttention,
            "norm2": nn.LayerNorm,
            "mlp": VJEPA2ACMLP,
        },
        VJEPA2ACAttention: {"qkv": nn.Linear, "proj": VJEPA2ACResidualLinear},
        VJEPA2ACMLP: {"fc1": nn.Linear, "fc2": VJEPA2ACResidualLinear},
        VJEPA2ACResidualLinear: {"weight": nn.Parameter, "bias": nn.Parameter},
    }
)
"""The modules that are computed here without calling them."""


@dataclass(frozen=True)
class FrameLayer:
    """What one layer computes with, biases and `(in, out)` matrices; see [`read_layer`]."""

    norm1: nn.LayerNorm
    qkv: tuple[torch.Tensor, torch.Tensor]
    proj: tuple[torch.Tensor, torch.Tensor]
    norm2: nn.LayerNorm
    fc1: tuple[torch.Tensor, torch.Tensor]
    fc2: tuple[torch.Tensor, torch.Tensor]
    scaling: float


def read_layer(layer: nn.Module, projections: Sequence[nn.Linear], proj: nn.Linear, scaling: float) -> FrameLayer:
    """
    The weights of a layer as they are now.

    Args:
        layer (`nn.Module`): With `norm1`, `norm2` and a feed-forward layer `mlp` of `fc1`, GELU and `fc2`.
        projections (`list[nn.Linear]`): One for queries, keys and values together, or one for each.
        proj (`nn.Linear`): Output projection of the attention.
        scaling (`float`): Of the products of queries and keys.
    """
    proj, fc1, fc2 = ((_bias(linear), linear.weight.t()) for linear in (proj, layer.mlp.fc1, layer.mlp.fc2))
    if len(projections) == 1:
        qkv = _bias(projections[0]), projections[0].weight.t()
    else:
        qkv = torch.cat(list(map(_bias, projections))), torch.cat([each.weight for each in projections]).t()
    return FrameLayer(layer.norm1, qkv, proj, layer.norm2, fc1, fc2, scaling)


def _bias(linear: nn.Linear) -> torch.Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias


def can_be_read(network: nn.Module, kind: type[VJEPA2Encoder] | type[VJEPA2ACPredictor]) -> bool:
    """
    Whether a network can be read instead of called: it consists of known modules of that kind, whose weights lie in the
    CPU's memory in float32 and whose sizes are those of its configuration, and nothing asks for gradients, dropout, autocast,
    compilation or another attention.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    weights = KNOWN.parameters(network, kind, evaluation=True)
    return (
        weights is not None
        and all(weight.dtype == torch.float32 and weight.is_cpu for weight in weights)
        and uses_sdpa(network.config)
        and _has_sizes_of_config(network)
    )


def _has_sizes_of_config(network: VJEPA2Encoder | VJEPA2ACPredictor) -> bool:
    """Whether the attention layers have the head and grid sizes of the configuration, which the code here reads."""
    config = network.config
    if isinstance(network, VJEPA2ACPredictor):
        return all(block.attn.head_dim == config.predictor_head_dim for block in network.predictor_blocks)
    side, head_dim = config.crop_size // config.patch_size, config.hidden_size // config.num_attention_heads
    expected = (side, head_dim, *[2 * (head_dim // 3 // 2)] * 3)
    attentions = (layer.attention for layer in network.layer)
    return all((a.grid_size, a.attention_head_size, a.d_dim, a.h_dim, a.w_dim) == expected for a in attentions)


def as_complex(hidden_states: torch.Tensor) -> torch.Tensor:
    """Adjacent pairs of `(..., head_dim)` as complex numbers, without a copy."""
    return torch.view_as_complex(hidden_states.unflatten(-1, (-1, 2)))


def rows_at_once(tokens: int) -> int:
    """How many frames of so many tokens to run at once."""
    return min(max(1, _TOKENS_AT_ONCE // tokens), _ROWS_AT_ONCE)


def _linear(weights: tuple[torch.Tensor, torch.Tensor], hidden_states: torch.Tensor, out: torch.Tensor) -> None:
    bias, weight = weights
    torch.addmm(bias, hidden_states, weight, out=out)


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
        width, device = layers[0].proj[1].shape[1], layers[0].proj[1].device
        self.num_heads = width // head_dim
        cache = (2, rows, frames * tokens, self.num_heads, head_dim)
        self.key_values = [torch.empty(cache, device=device) for _ in layers]
        self.projected = torch.empty(rows * tokens, 3 * width, device=device)
        self.widened = torch.empty(rows * tokens, layers[0].fc1[1].shape[1], device=device)
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
            _linear(layer.qkv, layer.norm1(stream), projected)
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
            heads_first = (x.transpose(1, 2) for x in (query_key[:, :, 0], keys[:, :end], values[:, :end]))
            attended = F.scaled_dot_product_attention(*heads_first, scale=layer.scaling)
            attended = attended.transpose(1, 2).reshape(stream.shape)
            _linear(layer.proj, attended, update)
            stream.add_(update)
            _linear(layer.fc1, layer.norm2(stream), widened)
            torch.ops.aten.gelu_(widened)
            _linear(layer.fc2, widened, update)
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
            layer.attention.scaling,
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
        layers = [
            read_layer(block, [block.attn.qkv], block.attn.proj, block.attn.head_dim**-0.5)
            for block in predictor.predictor_blocks
        ]
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
