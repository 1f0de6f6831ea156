# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST tokens by the backbone, one after the other: scores of action tokens only, no row runs longer than its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ...actions.keyed_noise import NoiseKey, keyed_rng
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


def pick_token(
    config: GenerationConfig, head: "ActionHead", noise_keys: Sequence[NoiseKey] | None = None
) -> Callable[[torch.Tensor, Sequence[int]], torch.LongTensor]:
    """
    How the next token is chosen: from float32 scores `(n, tokens)` of n rows, and the rows' numbers, to positions `(n,)`
    among them.

    The order of the restrictions and their defaults are those of transformers' `generate`. With keys, one per row, random
    numbers are added to the scores: the largest sum of a score and Gumbel noise is a draw from the softmax. So an answer
    is a function of its own key, where `torch.multinomial` would make it depend on the rest of the batch.
    """
    if not config.do_sample:
        return lambda scores, rows: scores.argmax(-1)
    top_k = 50 if config.top_k is None else config.top_k
    warpers = LogitsProcessorList()
    if config.temperature is not None:
        warpers.append(TemperatureLogitsWarper(float(config.temperature)))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if config.top_p is not None and config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    if noise_keys is None:
        return lambda scores, rows: torch.multinomial(warpers(None, scores).softmax(-1), 1)[:, 0]
    generators = [keyed_rng(key) for key in noise_keys]

    def pick(scores: torch.Tensor, rows: Sequence[int]) -> torch.LongTensor:
        scores = warpers(None, scores)[:, head.actions_first].cpu().numpy()
        noise = np.stack([generators[row].gumbel(size=scores.shape[1]) for row in rows])
        return head.actions_first[torch.from_numpy((scores + noise).argmax(1)).to(head.actions_first.device)]

    return pick


class ActionHead:
    r"""
    The rows of the LM head that belong to action tokens and end markers.

    Args:
        lm_head (`nn.Module`): Head over the whole vocabulary; read where it [is plain][is_plain_linear], else called.
        start, count (`int`): First id and number of the action tokens.
        end_ids (`list[int]`): End markers.

    Attributes:
        ids (`torch.LongTensor` of shape `(tokens,)`): The tokens that are scored.
        is_end (`torch.BoolTensor` of shape `(tokens,)`): Which of them are end markers.
        actions_first (`torch.LongTensor` of shape `(tokens,)`):
            Their positions in the order in which random numbers of a key are drawn, wherever the vocabulary has the end
            markers: action tokens, then `end_ids`.
    """

    def __init__(self, lm_head: nn.Module, start: int, count: int, end_ids: Sequence[int]):
        self.lm_head = lm_head
        device = lm_head.weight.device
        stop = start + count
        # In ascending order, as in the vocabulary, so that a tie goes to the same token.
        below, above = sorted(i for i in end_ids if i < start), sorted(i for i in end_ids if i >= stop)
        self.ids = torch.tensor([*below, *range(start, stop), *above], device=device)
        self.is_end = torch.isin(self.ids, torch.tensor(list(end_ids), device=device))
        position = {token: number for number, token in enumerate(self.ids.tolist())}
        self.actions_first = torch.tensor(
            [position[token] for token in (*range(start, stop), *end_ids)], device=device
        )
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


@dataclass(frozen=True)
class EncodedPrompt:
    r"""
    What answers to B prompts are generated from; see [`Nora15ForActionPrediction.encode_prompt`].

    Args:
        hidden_states (`torch.Tensor` of shape `(batch, 1, hidden_size)`): Of each prompt's last token, after the final norm.
        keys, values (`tuple[torch.Tensor, ...]`): Per layer `(batch, key/value heads, length, head dimension)`.
        position_ids (`torch.LongTensor` of shape `(3, batch, 1)`): Of the last token.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding, which stands on the left.
    """

    hidden_states: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    position_ids: torch.LongTensor
    attention_mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.attention_mask)

    def select(self, rows: torch.Tensor) -> "EncodedPrompt":
        """The prompts of the given rows (`(n,)` indices, which may repeat), in their order."""
        return EncodedPrompt(
            hidden_states=self.hidden_states[rows],
            keys=tuple(key[rows] for key in self.keys),
            values=tuple(value[rows] for value in self.values),
            position_ids=self.position_ids[:, rows],
            attention_mask=self.attention_mask[rows],
        )


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
        self.can_be_compiled = all(are_tensors(layer.projections) for layer in self.layers)
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
        run = decode_token
        if self.can_be_compiled:
            shape = len(tokens), self.mask.shape[-1], len(self.layers)
            run = self.compiled.find(decode_token, *shape, self.dtype, self.mask.device)
        hidden_states = run(self.layers, self.buffers, hidden_states, tables, self.mask, self.columns[self.column])
        self.column += 1
        return rms_norm(self.language_model.norm, hidden_states)


class CalledDecoder:
    """
    As [`ReadDecoder`], by calling the language model.

    Rows that have ended stay in the batch, so that the rounding of a row does not depend on the length of the others.
    """

    def __init__(self, language_model: nn.Module, prompt: EncodedPrompt):
        self.language_model, self.mask, self.position_ids = language_model, prompt.attention_mask, prompt.position_ids
        self.rows = torch.arange(len(prompt), device=self.mask.device)
        self.tokens = torch.zeros_like(self.rows)
        self.cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(prompt.keys, prompt.values, strict=True)):
            self.cache.update(key, value, layer)

    def select(self, rows: torch.LongTensor) -> None:
        """Goes on with those rows of the batch."""
        self.rows = self.rows[rows]

    def __call__(self, tokens: torch.LongTensor) -> torch.Tensor:
        """As [`ReadDecoder`]'s."""
        self.tokens[self.rows] = tokens
        self.mask = F.pad(self.mask, (0, 1), value=1)
        self.position_ids = self.position_ids + 1
        hidden_states = self.language_model(
            input_ids=self.tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.position_ids,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden_states[self.rows]


@torch.no_grad()
def generate_tokens(
    decoder: ReadDecoder | CalledDecoder,
    head: ActionHead,
    pick: Callable[[torch.Tensor, Sequence[int]], torch.LongTensor],
    prompt: EncodedPrompt,
    max_new_tokens: int,
    ignore_end: bool = False,
) -> list[list[int]]:
    """
    Continues left-padded prompts.

    Args:
        decoder ([`ReadDecoder`] or [`CalledDecoder`]): Made of `prompt`, with room for `max_new_tokens - 1` tokens.
        head ([`ActionHead`]): Gives scores.
        pick (`Callable`): Chooses by them, see [`pick_token`].
        prompt ([`EncodedPrompt`]): The prompts.
        max_new_tokens (`int`): Longest answer, end marker included.
        ignore_end (`bool`, *optional*, defaults to `False`): Go on behind end markers, to compile all lengths.

    Returns:
        `list[list[int]]`: Vocabulary ids of each row, without the end marker.
    """
    hidden_states = prompt.hidden_states
    answers: list[list[int]] = [[] for _ in range(len(prompt))]
    running = list(range(len(prompt)))
    for step in range(max_new_tokens):
        choice = pick(head(hidden_states), running)
        tokens, is_end = head.ids[choice], (head.is_end[choice] & (not ignore_end)).tolist()
        for row, token, end in zip(running, tokens.tolist(), is_end, strict=True):
            if not end:
                answers[row].append(token)
        if all(is_end) or step == max_new_tokens - 1:
            break
        if any(is_end):
            kept = [number for number, end in enumerate(is_end) if not end]
            running = [running[number] for number in kept]
            kept = torch.tensor(kept, device=tokens.device)
            tokens = tokens[kept]
            decoder.select(kept)
        hidden_states = decoder(tokens)
    return answers


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


__all__ = [
    "ActionHead",
    "CalledDecoder",
    "EncodedPrompt",
    "ReadDecoder",
    "generate_tokens",
    "is_simple",
    "pick_token",
]
