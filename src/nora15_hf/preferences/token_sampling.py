# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST tokens sampled several times per prompt, each from random numbers of its own.

transformers' `generate` draws from the global generator, so that a sample depends on the rest of its batch, and runs the
prompt once per sample. Here the prompt runs once, and random numbers are added to the scores (the largest sum of score
and Gumbel noise is a draw from the softmax), which makes every sample a function of its own key.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from transformers import DynamicCache

from ..nora15.modeling_nora15 import Nora15ForActionPrediction, multimodal_position_ids


@torch.no_grad()
def sample_action_tokens(
    policy: Nora15ForActionPrediction,
    inputs: Mapping[str, torch.Tensor],
    keys: Sequence[Sequence[tuple[int, ...]]],
    *,
    temperature: float = 1.0,
) -> Iterator[list[list[list[int]]]]:
    """
    Samples FAST tokens, again and again from other random numbers, with one pass over the prompts for all of it.

    Args:
        policy ([`Nora15ForActionPrediction`]): the policy.
        inputs (`Mapping[str, torch.Tensor]`): what the processor returned for B prompts, left-padded.
        keys (sequence of B sequences of N tuples of `int`): what the random numbers of each sample depend on, besides
            how many times it was drawn.
        temperature (`float`, *optional*, defaults to 1.0): divides the scores.

    Yields:
        FAST ids (0 = `<robot_action_0>`) up to the end marker, one list per prompt and sample.
    """
    config = policy.config
    num_samples = len(keys[0])
    input_ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
    hidden_states, layer_keys, layer_values = policy.run_backbone(
        input_ids, attention_mask, inputs["pixel_values"], inputs["image_grid_thw"]
    )
    positions = multimodal_position_ids(
        input_ids,
        attention_mask,
        inputs["image_grid_thw"],
        config.vlm_config.image_token_id,
        config.vlm_config.vision_config.spatial_merge_size,
    )
    first_position = positions[:, :, -1:].repeat_interleave(num_samples, dim=1) + 1
    prompt_mask = attention_mask.repeat_interleave(num_samples, dim=0)
    end_ids = np.atleast_1d(policy.generation_config.eos_token_id).tolist()
    actions = range(config.action_token_start_id, config.action_token_start_id + config.num_action_tokens)
    allowed = torch.tensor([*actions, *end_ids], device=input_ids.device)
    # One token for every entry of the chunk, more than FAST ever needs, and the end marker.
    max_tokens = config.chunk_size * config.action_dim + 1
    attempt = 0
    while True:
        generators = [np.random.default_rng([*key, attempt]) for state in keys for key in state]
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(layer_keys, layer_values, strict=True)):
            cache.update(key.repeat_interleave(num_samples, dim=0), value.repeat_interleave(num_samples, dim=0), layer)
        hidden = hidden_states[:, -1].repeat_interleave(num_samples, dim=0)
        mask = prompt_mask
        rows: list[list[int]] = [[] for _ in generators]
        is_running = np.ones(len(rows), dtype=bool)
        for step in range(max_tokens):
            scores = policy.vlm.lm_head(hidden)[:, allowed].float().cpu().numpy() / temperature
            choices = np.array(
                [
                    np.argmax(row + generator.gumbel(size=len(row)))
                    for row, generator in zip(scores, generators, strict=True)
                ]
            )
            is_running &= choices < config.num_action_tokens
            for row in np.flatnonzero(is_running):
                rows[row].append(int(choices[row]))
            if not is_running.any():
                break
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            hidden = policy.vlm.model.language_model(
                input_ids=allowed[torch.from_numpy(choices).to(allowed.device)][:, None],
                attention_mask=mask,
                position_ids=first_position + step,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        yield [rows[start : start + num_samples] for start in range(0, len(rows), num_samples)]
        attempt += 1


__all__ = ["sample_action_tokens"]
