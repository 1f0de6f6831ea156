# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST tokens by the backbone, one after the other: scores of action tokens only, no row runs longer than its answer."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from .compiled_parts import CompiledParts
from .joined_linear import is_plain_linear
from .layer_weights import (
    KeyValueBuffer,
    LayerWeights,
    are_tensors,
    finish_layer,
    grouped_attention,
    grouped_mask,
    project_heads,
    read_layer,
    rms_norm,
    rotary_tables,
)

# What `pick_token` heeds of a generation configuration, and what does not change the tokens.
SUPPORTED_OPTIONS = {"do_sample", "temperature", "top_k", "top_p"}
NEUTRAL_OPTIONS = {
    "_from_model_config",
    "bos_token_id",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "pad_token_id",
    "transformers_version",
    "use_cache",
}


def is_simple(config: GenerationConfig) -> bool:
    """Whether a configuration asks for greedy decoding or sampling with temperature, top-k and top-p, and nothing else."""
    asked = {name for name, value in config.to_diff_dict().items() if value is not False}
    return asked <= SUPPORTED_OPTIONS | NEUTRAL_OPTIONS


def pick_token(config: GenerationConfig) -> Callable[[torch.Tensor], torch.LongTensor]:
    """
    How the next token is chosen: from float32 scores `(batch, tokens)` to positions `(batch,)` among them.

    The order of the restrictions and their defaults are those of transformers' `generate`.
    """
    if not config.do_sample:
        return lambda scores: scores.argmax(-1)
    top_k = 50 if config.top_k is None else config.top_k
    warpers = LogitsProcessorList()
    if config.temperature is not None:
        warpers.append(TemperatureLogitsWarper(float(config.temperature)))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if config.top_p is not None and config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    return lambda scores: torch.multinomial(warpers(None, scores).softmax(-1), 1)[:, 0]


class ActionHead:
    r"""
    The rows of the LM head that belong to action tokens and end markers.

    Args:
        lm_head (`nn.Module`): Head over the whole vocabulary; read where it [is plain][is_plain_linear], else called.
        start, count (`int`): First id and number of the action tokens.
        end_ids (`list[int]`): End markers.
    """

    def __init__(self, lm_head: nn.Module, start: int, count: int, end_ids: Sequence[int]):
        self.lm_head = lm_head
        device = lm_head.weight.device
        stop = start + count
        # In ascending order, as in the vocabulary, so that a tie goes to the same token.
        below, above = sorted(i for i in end_ids if i < start), sorted(i for i in end_ids if i >= stop)
        self.ids = torch.tensor([*below, *range(start, stop), *above], device=device)
        self.is_end = torch.isin(self.ids, torch.tensor(list(end_ids), device=device))
        self.weights = None
        if is_plain_linear(lm_head):
            weight = lm_head.weight
            # The action tokens' rows lie together: no copy of them is needed.
            parts = weight[below], weight[start:stop], weight[above]
            self.weights = [part for part in parts if len(part)]

    def __call__(self, hidden_states: torch.Tensor) -> torch.FloatTensor:
        """Scores `(batch, tokens)` of the tokens `ids`, from `(batch, 1, hidden_size)`."""
        if self.weights is None:
            return self.lm_head(hidden_states)[:, -1, self.ids].float()
        return torch.cat([F.linear(hidden_states[:, -1], weight) for weight in self.weights], dim=-1).float()


@torch.no_grad()
def generate_tokens(
    language_model: nn.Module,
    head: ActionHead,
    pick: Callable[[torch.Tensor], torch.LongTensor],
    hidden_states: torch.Tensor,
    keys: tuple[torch.Tensor, ...],
    values: tuple[torch.Tensor, ...],
    position_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    max_new_tokens: int,
    compiled: CompiledParts,
) -> list[list[int]]:
    """
    Continues left-padded prompts.

    Args:
        language_model (`Qwen2_5_VLTextModel`): The backbone without its LM head.
        head ([`ActionHead`]): Gives scores.
        pick (`Callable`): Chooses by them, see [`pick_token`].
        hidden_states (`torch.Tensor` of shape `(batch, 1, hidden_size)`): Of each prompt's last token, before the final norm.
        keys, values (`tuple[torch.Tensor, ...]`): Per layer, of the prompt.
        position_ids (`torch.LongTensor` of shape `(3, batch, length)`): Of the prompt.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
        max_new_tokens (`int`): Longest answer, end marker included.
        compiled ([`CompiledParts`]): Where to look for compiled forms.

    Returns:
        `list[list[int]]`: Vocabulary ids of each row, without the end marker.
    """
    layers = [read_layer(layer) for layer in language_model.layers]
    buffers = [KeyValueBuffer(key, value, max_new_tokens - 1) for key, value in zip(keys, values, strict=True)]
    group = layers[0].num_heads // layers[0].num_key_value_heads
    compilable = all(are_tensors(layer.projections) for layer in layers)
    prompt_length, dtype, device = attention_mask.shape[1], hidden_states.dtype, hidden_states.device
    # Columns that are not written yet are hidden, and shown one by one.
    visible = F.pad(attention_mask.bool(), (0, max_new_tokens - 1))[:, None]
    mask = grouped_mask(visible, group, dtype)
    columns = torch.arange(prompt_length, mask.shape[-1], device=device).split(1)
    position_ids = position_ids[:, :, -1:]
    rows: list[list[int]] = [[] for _ in attention_mask]
    running = list(range(len(rows)))
    for step in range(max_new_tokens):
        choice = pick(head(rms_norm(language_model.norm, hidden_states)))
        tokens, is_end = head.ids[choice], (head.is_end[choice] & (not compiled.is_warming_up)).tolist()
        for row, token, end in zip(running, tokens.tolist(), is_end, strict=True):
            if not end:
                rows[row].append(token)
        if all(is_end) or step == max_new_tokens - 1:
            break
        if any(is_end):
            kept = [number for number, end in enumerate(is_end) if not end]
            running = [running[number] for number in kept]
            kept = torch.tensor(kept, device=device)
            tokens, mask, position_ids = tokens[kept], mask[kept], position_ids[:, kept]
            for buffer in buffers:
                buffer.select(kept)
        position_ids = position_ids + 1
        hidden_states = language_model.embed_tokens(tokens[:, None])
        tables = rotary_tables(*language_model.rotary_emb(hidden_states, position_ids))
        mask[..., prompt_length + step] = 0
        run = decode_token
        if compilable:
            run = compiled.find(decode_token, len(running), mask.shape[-1], len(layers), dtype, device)
        hidden_states = run(layers, buffers, hidden_states, tables, mask, columns[step])
    return rows


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
        attended = grouped_attention(queries, buffer.keys, buffer.values, mask)
        hidden_states = finish_layer(layer, hidden_states, attended)
    return hidden_states


__all__ = ["ActionHead", "generate_tokens", "is_simple", "pick_token"]
