# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST tokens sampled several times per prompt, each from random numbers of its own.

transformers' `generate` draws from the global generator, so that a sample depends on the rest of its batch, and runs the
prompt once per sample. Here the prompt runs once, and random numbers are added to the scores (the largest sum of score
and Gumbel noise is a draw from the softmax), which makes every sample a function of its own key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from ..actions.keyed_noise import NoiseKey, keyed_rng
from ..nora15.modeling_nora15 import Nora15ForActionPrediction


@dataclass(frozen=True)
class EncodedPrompts:
    """
    What sampling needs of B prompts.

    Attributes:
        keys, values (`tuple[torch.Tensor, ...]`): per layer `(B, key/value heads, length, head dimension)`.
        mask (`torch.Tensor`): `(B, length)`, 0 on padding, which stands on the left.
        hidden_state (`torch.Tensor`): `(B, hidden_size)`, of the last token.
        position (`torch.LongTensor`): `(3, B, 1)`, of the token to come.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    mask: torch.Tensor
    hidden_state: torch.Tensor
    position: torch.LongTensor


@torch.no_grad()
def encode_prompts(policy: Nora15ForActionPrediction, inputs: Mapping[str, torch.Tensor]) -> EncodedPrompts:
    """One backbone pass over what the processor returned for B prompts."""
    vision = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    hidden_states, keys, values = policy.run_backbone(inputs["input_ids"], inputs["attention_mask"], **vision)
    positions = policy.position_ids(inputs["input_ids"], inputs["attention_mask"], inputs["image_grid_thw"])
    return EncodedPrompts(keys, values, inputs["attention_mask"], hidden_states[:, -1], positions[:, :, -1:] + 1)


@torch.no_grad()
def sample_action_tokens(
    policy: Nora15ForActionPrediction,
    prompts: EncodedPrompts,
    rows: Sequence[int],
    keys: Sequence[NoiseKey],
    *,
    temperature: float = 1.0,
) -> list[list[int]]:
    """
    Samples FAST tokens behind encoded prompts.

    Args:
        policy ([`Nora15ForActionPrediction`]): the policy.
        prompts ([`EncodedPrompts`]): of [`encode_prompts`].
        rows (`Sequence[int]`): the prompt of each sample, S of them.
        keys (`Sequence[tuple[int, ...]]`): what the random numbers of each sample depend on.
        temperature (`float`, *optional*, defaults to 1.0): divides the scores.

    Returns:
        `list[list[int]]`: FAST ids (0 = `<robot_action_0>`) of each sample up to the end marker.
    """
    config = policy.config
    select = torch.tensor(rows, device=prompts.mask.device)
    generators = [keyed_rng(key) for key in keys]
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(prompts.keys, prompts.values, strict=True)):
        cache.update(key[select], value[select], layer)
    hidden, mask, position = prompts.hidden_state[select], prompts.mask[select], prompts.position[:, select]
    end_ids = np.atleast_1d(policy.generation_config.eos_token_id).tolist()
    actions = range(config.action_token_start_id, config.action_token_start_id + config.num_action_tokens)
    allowed = torch.tensor([*actions, *end_ids], device=mask.device)
    tokens: list[list[int]] = [[] for _ in rows]
    is_running = np.ones(len(rows), dtype=bool)
    # One token for every entry of the chunk, more than FAST ever needs, and the end marker.
    for step in range(config.chunk_size * config.action_dim + 1):
        scores = policy.vlm.lm_head(hidden)[:, allowed].float().cpu().numpy() / temperature
        noise = np.stack([generator.gumbel(size=scores.shape[1]) for generator in generators])
        choices = (scores + noise).argmax(1)
        is_running &= choices < config.num_action_tokens
        for sample in np.flatnonzero(is_running):
            tokens[sample].append(int(choices[sample]))
        if not is_running.any():
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        hidden = policy.vlm.model.language_model(
            input_ids=allowed[torch.from_numpy(choices).to(allowed.device)][:, None],
            attention_mask=mask,
            position_ids=position + step,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
    return tokens


__all__ = ["EncodedPrompts", "encode_prompts", "sample_action_tokens"]
