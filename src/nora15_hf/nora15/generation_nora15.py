# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST tokens by the backbone, one after the other: scores of action tokens only, each row up to its end marker."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..actions.keyed_noise import NoiseKey, keyed_rng

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
    """Whether a configuration only uses greedy decoding, or sampling with temperature, top-k and top-p."""
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
    Scores of action tokens and end markers.

    Args:
        lm_head (`nn.Module`): Head over the whole vocabulary.
        start, count (`int`): First id and number of the action tokens.
        end_ids (`list[int]`): End markers.
        device (`torch.device`): Of the hidden states; the head's weights may be offloaded.

    Attributes:
        ids (`torch.LongTensor` of shape `(tokens,)`): The tokens that are scored.
        is_end (`torch.BoolTensor` of shape `(tokens,)`): Which of them are end markers.
        actions_first (`torch.LongTensor` of shape `(tokens,)`):
            Their positions in the order in which random numbers of a key are drawn, wherever the vocabulary has the end
            markers: action tokens, then `end_ids`.
    """

    def __init__(self, lm_head: nn.Module, start: int, count: int, end_ids: Sequence[int], device: torch.device):
        self.lm_head = lm_head
        actions = range(start, start + count)
        # In ascending order, as in the vocabulary, so that a tie goes to the same token.
        ids = sorted({*actions, *end_ids})
        self.ids = torch.tensor(ids, device=device)
        self.is_end = torch.isin(self.ids, torch.tensor(list(end_ids), device=device))
        position = {token: number for number, token in enumerate(ids)}
        self.actions_first = torch.tensor([position[token] for token in (*actions, *end_ids)], device=device)

    def __call__(self, hidden_states: torch.Tensor) -> torch.FloatTensor:
        """Scores `(batch, tokens)` of the tokens `ids`, from `(batch, 1, hidden_size)`."""
        return self.lm_head(hidden_states)[:, -1, self.ids].float()


@dataclass(frozen=True)
class EncodedPrompt:
    r"""
    What answers to B prompts are generated from; see [`FastTokensMixin.encode_prompt`].

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


class CalledDecoder:
    """
    The language model on one more token per row, by calling it.

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
        """Hidden states `(batch, 1, hidden_size)` after the final norm, of tokens `(batch,)`."""
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
    decoder: Callable[[torch.LongTensor], torch.Tensor],
    head: ActionHead,
    pick: Callable[[torch.Tensor, Sequence[int]], torch.LongTensor],
    prompt: EncodedPrompt,
    max_new_tokens: int,
    ignore_end: bool = False,
) -> list[list[int]]:
    """
    Continues left-padded prompts.

    Args:
        decoder ([`CalledDecoder`] or what stands in for it): Made of `prompt`, with room for `max_new_tokens - 1` tokens.
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


class ActionTokensOnly(LogitsProcessor):
    """Leaves only FAST tokens and the end markers to generate from."""

    def __init__(self, start: int, count: int, end_ids: list[int]):
        self.start, self.count, self.end_ids = start, count, end_ids

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        restricted = torch.full_like(scores, -torch.inf)
        restricted[:, self.start : self.start + self.count] = scores[:, self.start : self.start + self.count]
        restricted[:, self.end_ids] = scores[:, self.end_ids]
        return restricted


class FastTokensMixin:
    """
    `generate_actions` of [`Nora15ForActionPrediction`], and the prompt that several answers can share; `generate` and what
    else transformers and PEFT ask of a model that generates tokens.
    """

    @classmethod
    def can_generate(cls) -> bool:
        """True: `generate` is there, and the generation configuration is saved and loaded with the policy."""
        return True

    def prepare_inputs_for_generation(self, *args, **kwargs) -> dict[str, Any]:
        """The backbone's, which `generate` runs."""
        return self.vlm.prepare_inputs_for_generation(*args, **kwargs)

    def generate(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        state: torch.Tensor | None = None,
        **generation_options,
    ) -> Any:
        """
        transformers' `generate` of the backbone, any token included; `generate_actions` gives FAST tokens only.

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw: What the processor returned, left-padded.
            state: What the processor returned; tokens do not depend on it.
            generation_options: Of transformers' `generate`; defaults come from `generation_config`.

        Returns:
            `torch.LongTensor` of shape `(batch, length + new tokens)` of vocabulary ids, or what the options ask for.
        """
        # The policy's is the one that is stored, and that users change or replace.
        self.vlm.generation_config = self.generation_config
        return self.vlm.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            # Without it transformers falls back to one-axis positions without a word.
            mm_token_type_ids=(input_ids == self.config.vlm_config.image_token_id).int(),
            **generation_options,
        )

    @torch.no_grad()
    def encode_prompt(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        state: torch.Tensor | None = None,
    ) -> EncodedPrompt:
        """
        One backbone pass over the prompt, for any number of `generate_actions` calls.

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw: What the processor returned, left-padded.
            state: What the processor returned; only the flow depends on it, FAST tokens do not.

        Raises:
            ValueError: A prompt ends with padding.
        """
        attention_mask = self._left_padded(input_ids, attention_mask)
        batch, length = input_ids.shape
        last = torch.arange(1, batch + 1, device=input_ids.device) * length - 1
        hidden_states, keys, values = self.run_backbone(
            input_ids, attention_mask, pixel_values, image_grid_thw, output_index=last
        )
        position_ids = self.position_ids(input_ids, attention_mask, image_grid_thw)
        return EncodedPrompt(hidden_states[:, None], keys, values, position_ids[:, :, -1:], attention_mask)

    @staticmethod
    def _left_padded(input_ids: torch.LongTensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """The attention mask of prompts that end where generation has to begin."""
        if attention_mask is None:
            return torch.ones_like(input_ids)
        if not attention_mask[:, -1].all():
            raise ValueError(
                "attention_mask ends with padding in some rows, where generation has to begin: prompts must be "
                "left-padded, as the processor returns them."
            )
        return attention_mask

    @torch.no_grad()
    def generate_actions(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        max_new_tokens: int | None = None,
        state: torch.Tensor | None = None,
        prompt: EncodedPrompt | None = None,
        noise_keys: Sequence[NoiseKey] | None = None,
        **generation_options,
    ) -> list[list[int]]:
        r"""
        Actions as FAST tokens, autoregressively; `processor.decode_action_tokens` turns them into actions.

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw: What the processor returned, left-padded.
            max_new_tokens (`int`, *optional*):
                Longest sequence; default: one token for every entry of the chunk, more than FAST ever needs, and the
                end marker.
            state: What the processor returned; only the flow depends on it, FAST tokens do not.
            prompt ([`EncodedPrompt`], *optional*): Of `encode_prompt`, instead of the processor's tensors.
            noise_keys (`Sequence[tuple[int, ...]]`, *optional*):
                With `do_sample=True`, what the random numbers of each row depend on: a row then gives the same tokens up to
                rounding in any batch. By default all rows share the global generator.
            generation_options:
                Of transformers' `generate`, for example `do_sample=True, temperature=0.7`. Greedy decoding and sampling
                with temperature, `top_k` and `top_p` take fewer operations, see `use_inference_path`; anything else is
                left to `generate` itself.

        Returns:
            `list[list[int]]`: FAST ids (0 = `<robot_action_0>`) of each row up to the end marker.
        """
        if (input_ids is None) == (prompt is None):
            raise ValueError("Pass either the processor's tensors (input_ids, ...) or prompt=encode_prompt(...).")
        if max_new_tokens is None:
            max_new_tokens = self.config.chunk_size * self.config.action_dim + 1
        if not isinstance(max_new_tokens, Integral) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be an integer of at least 1.")
        start, count = self.config.action_token_start_id, self.config.num_action_tokens
        end_ids = self.generation_config.eos_token_id
        if end_ids is None:
            raise ValueError(
                "The policy has no token that ends an answer: set generation_config.eos_token_id, or "
                "vlm_config.text_config.eos_token_id before the model is created, to the id of <|im_end|>."
            )
        end_ids = [end_ids] if isinstance(end_ids, int) else list(end_ids)
        config = copy.deepcopy(self.generation_config)
        unknown = config.update(**generation_options)
        is_ours = is_simple(config) and not unknown
        if not is_ours and (prompt is not None or noise_keys is not None):
            raise ValueError(
                f"generation_options={generation_options} are passed to transformers' `generate`, which accepts neither prompt "
                "nor noise_keys. Drop these two, or use do_sample, temperature, top_k and top_p only."
            )
        num_rows = len(input_ids if prompt is None else prompt)
        if noise_keys is not None and not (config.do_sample and len(noise_keys) == num_rows):
            raise ValueError(
                f"noise_keys has {len(noise_keys)} entries for {num_rows} rows and do_sample={config.do_sample}; expected "
                "one key per row, and do_sample=True: greedy decoding draws no random numbers."
            )
        inference, decoder, ignore_end = self._inference, None, False
        if prompt is None:
            attention_mask = self._left_padded(input_ids, attention_mask)
            inputs = (input_ids, attention_mask, pixel_values, image_grid_thw)
            # What a key gives must neither depend on a warm-up nor on whether weights can be read.
            if noise_keys is not None:
                prompt = self.encode_prompt(*inputs)
            elif is_ours and inference is not None and inference.can_generate(self):
                prompt, decoder, head = inference.start_generation(self, inputs, end_ids, max_new_tokens)
                ignore_end = inference.compiled.is_warming_up
        if prompt is not None:
            if decoder is None:
                decoder = CalledDecoder(self.vlm.model.language_model, prompt)
                head = ActionHead(self.vlm.lm_head, start, count, end_ids, prompt.hidden_states.device)
            pick = pick_token(config, head, noise_keys)
            rows = generate_tokens(decoder, head, pick, prompt, max_new_tokens, ignore_end)
            return [[token - start for token in row] for row in rows]
        sequences = self.generate(
            *inputs,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([ActionTokensOnly(start, count, end_ids)]),
            pad_token_id=self.config.get_text_config().pad_token_id,
            **generation_options,
        )
        rows = sequences[:, input_ids.shape[1] :].tolist()
        return [[token - start for token in row if start <= token < start + count] for row in rows]


__all__ = [
    "ActionHead",
    "ActionTokensOnly",
    "CalledDecoder",
    "EncodedPrompt",
    "FastTokensMixin",
    "generate_tokens",
    "is_simple",
    "pick_token",
]
