# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A FAST token with the weights of the backbone read: keys and values in buffers, only the head's rows that are scored."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..generation_nora15 import ActionHead, EncodedPrompt
from .compiled_parts import CompiledParts
from .layer_weights import (
    KeyValueBuffer,
    LayerWeights,
    finish_layer,
    grouped_attention,
    grouped_mask,
    project_heads,
    read_layer,
    rms_norm,
    rotary_tables,
)


class ReadActionHead(ActionHead):
    """[`ActionHead`] with the rows that it needs of a known LM head, instead of a call of it."""

    def __init__(self, lm_head: nn.Module, start: int, count: int, end_ids: Sequence[int], device: torch.device):
        super().__init__(lm_head, start, count, end_ids, device)
        weight, stop = lm_head.weight, start + count
        below, above = sorted(i for i in end_ids if i < start), sorted(i for i in end_ids if i >= stop)
        # The action tokens' rows lie together: no copy of them is needed.
        self.weights = [part for part in (weight[below], weight[start:stop], weight[above]) if len(part)]

    def __call__(self, hidden_states: torch.Tensor) -> torch.FloatTensor:
        """Scores `(batch, tokens)` of the tokens `ids`, from `(batch, 1, hidden_size)`."""
        return torch.cat([F.linear(hidden_states[:, -1], weight) for weight in self.weights], dim=-1).float()


class ReadDecoder:
    r"""
    The language model on one more token per row, its weights read, its keys and values in buffers of fixed length.

    Args:
        language_model (`Qwen2_5_VLTextModel`): The backbone without its LM head.
        prompt ([`EncodedPrompt`]): What the tokens follow.
        room (`int`): How many tokens may follow.
        compiled ([`CompiledParts`]): Where to look for compiled forms.
    """

    def __init__(self, language_model: nn.Module, prompt: EncodedPrompt, room: int, compiled: CompiledParts):
        self.language_model, self.compiled, self.position_ids = language_model, compiled, prompt.position_ids
        self.layers = [read_layer(layer) for layer in language_model.layers]
        self.buffers = [
            KeyValueBuffer(key, value, room) for key, value in zip(prompt.keys, prompt.values, strict=True)
        ]
        self.form = tuple(layer.form for layer in self.layers)
        self.dtype = prompt.hidden_states.dtype
        # Columns that are not written yet are hidden, and shown one by one.
        visible = F.pad(prompt.attention_mask.bool(), (0, room))[:, None]
        self.mask = grouped_mask(visible, self.layers[0].num_heads // self.layers[0].num_key_value_heads, self.dtype)
        self.column = prompt.attention_mask.shape[1]
        self.columns = torch.arange(self.mask.shape[-1], device=self.mask.device).split(1)

    def select(self, rows: torch.LongTensor) -> None:
        """Keeps those rows of the batch."""
        self.mask, self.position_ids = self.mask[rows], self.position_ids[:, rows]
        for buffer in self.buffers:
            buffer.select(rows)

    def __call__(self, tokens: torch.LongTensor) -> torch.Tensor:
        """Hidden states `(batch, 1, hidden_size)` after the final norm, of tokens `(batch,)`."""
        self.position_ids = self.position_ids + 1
        hidden_states = self.language_model.embed_tokens(tokens[:, None])
        tables = rotary_tables(*self.language_model.rotary_emb(hidden_states, self.position_ids))
        self.mask[..., self.column] = 0
        shape = len(tokens), self.mask.shape[-1]
        run = self.compiled.find(decode_token, *shape, self.dtype, self.mask.device, self.form)
        hidden_states = run(self.layers, self.buffers, hidden_states, tables, self.mask, self.columns[self.column])
        self.column += 1
        return rms_norm(self.language_model.norm, hidden_states)


def decode_token(
    layers: Sequence[LayerWeights],
    buffers: Sequence[KeyValueBuffer],
    hidden_states: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor,
    column: torch.LongTensor,
) -> torch.Tensor:
    """The language layers on one token per row, `(batch, 1, hidden_size)`, which goes into one column of the buffers."""
    for layer, buffer in zip(layers, buffers, strict=True):
        queries, key_value = project_heads(layer, hidden_states, tables)
        buffer.write_at(column, key_value)
        attended = grouped_attention(queries, buffer.keys, buffer.values, mask, layer.scaling)
        hidden_states = finish_layer(layer, hidden_states, attended)
    return hidden_states


__all__ = ["ReadActionHead", "ReadDecoder", "decode_token"]
