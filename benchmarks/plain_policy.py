# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The policy as the released code (`declare-lab/nora-1.5`) runs it: the reference of the speed benchmarks.

It has the weights of a policy of this package, without a copy, and its own code: transformers' stock backbone with the
scores of the whole vocabulary at every position of the prompt, the expert's layers with the prefix concatenated in front
of their own keys and values at every step, masks, rotary tables and time embeddings made at every step; one candidate of
one observation at a time.
"""

import torch
import torch.nn.functional as F
from transformers import LogitsProcessorList, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb, repeat_kv

from nora15_hf import Nora15ForActionPrediction
from nora15_hf.nora15.flow_matching import sinusoidal_time_embedding
from nora15_hf.nora15.generation_nora15 import ActionTokensOnly


class PlainPolicy:
    """
    Args:
        policy ([`Nora15ForActionPrediction`]): Whose weights to use.
    """

    def __init__(self, policy: Nora15ForActionPrediction):
        self.policy, self.config = policy, policy.config
        with torch.device("meta"):
            self.vlm = Qwen2_5_VLForConditionalGeneration(self.config.vlm_config)
        self.vlm.load_state_dict(policy.vlm.state_dict(), assign=True)
        # Buffers outside the state dict: tables of inverse frequencies.
        for name, buffer in policy.vlm.named_buffers():
            module, _, attribute = name.rpartition(".")
            setattr(self.vlm.get_submodule(module), attribute, buffer)
        self.vlm.tie_weights()
        self.vlm.eval()

    @torch.no_grad()
    def sample_actions(self, inputs: dict[str, torch.Tensor], noise: torch.Tensor, num_steps: int) -> torch.Tensor:
        """Noise `(batch, candidates, chunk, action)` to actions of that shape, each in a pass of its own."""
        rows = [
            [self._sample_one(row_inputs(inputs, row), candidate[None], num_steps) for candidate in candidates]
            for row, candidates in enumerate(noise)
        ]
        return torch.stack([torch.cat(row) for row in rows])

    @torch.no_grad()
    def generate_actions(self, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
        """Greedy FAST tokens by transformers' `generate`, one observation at a time."""
        config = self.config
        start, count = config.action_token_start_id, config.num_action_tokens
        end_ids = [self.policy.generation_config.eos_token_id]
        rows = []
        for row in range(len(inputs["input_ids"])):
            prompt = row_inputs(inputs, row)
            sequence = self.vlm.generate(
                **prompt,
                mm_token_type_ids=(prompt["input_ids"] == config.vlm_config.image_token_id).int(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([ActionTokensOnly(start, count, end_ids)]),
            )
            tokens = sequence[0, prompt["input_ids"].shape[1] :].tolist()
            rows.append([token - start for token in tokens if start <= token < start + count])
        return rows

    def training_loss(
        self,
        inputs: dict[str, torch.Tensor],
        labels: torch.Tensor,
        actions: torch.Tensor,
        noise: torch.Tensor,
        time: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy from the scores of the whole vocabulary at every position, and the flow loss of one draw."""
        output = self.prefill(inputs)
        targets = F.pad(labels[:, 1:], (0, 1), value=-100)
        lm_loss = F.cross_entropy(output.logits.float().flatten(0, 1), targets.flatten())
        prefix_mask = self.policy.default_prefix_mask(inputs["input_ids"], inputs["attention_mask"])
        moment = time[:, None, None]
        velocity = self._velocity(moment * noise + (1 - moment) * actions, time, output.past_key_values, prefix_mask)
        flow_loss = F.mse_loss(velocity, noise - actions)
        return lm_loss + self.config.flow_loss_weight * flow_loss

    def prefill(self, inputs: dict[str, torch.Tensor]):
        """The stock model's output on a prompt: logits of all positions and a cache."""
        is_image = inputs["input_ids"] == self.config.vlm_config.image_token_id
        return self.vlm(**inputs, mm_token_type_ids=is_image.int(), use_cache=True)

    def _sample_one(self, inputs: dict[str, torch.Tensor], noise: torch.Tensor, num_steps: int) -> torch.Tensor:
        cache = self.prefill(inputs).past_key_values
        sample, step = noise, 1 / num_steps
        for number in range(num_steps):
            time = torch.full((len(noise),), 1 - number * step, device=noise.device)
            sample = sample - self._velocity(sample, time, cache, inputs["attention_mask"]) * step
        return sample

    def _velocity(self, sample: torch.Tensor, time: torch.Tensor, cache, prefix_mask: torch.Tensor) -> torch.Tensor:
        policy, config = self.policy, self.config
        expert = policy.action_expert
        dtype = policy.action_in_proj.weight.dtype
        hidden_states = policy.action_in_proj(sample.to(dtype))
        batch, length, width = hidden_states.shape
        embedding = sinusoidal_time_embedding(time, width, config.min_period, config.max_period).to(dtype)
        embedding = embedding[:, None].expand_as(hidden_states)
        hidden_states = F.silu(policy.action_time_mlp_in(torch.cat([hidden_states, embedding], dim=-1)))
        hidden_states = policy.action_time_mlp_out(hidden_states)
        own = torch.ones(batch, length, dtype=torch.bool, device=sample.device)
        visible = torch.cat([prefix_mask.bool(), own], dim=-1)[:, None, None].expand(-1, 1, length, -1)
        mask = torch.zeros(visible.shape, dtype=dtype, device=sample.device)
        mask = mask.masked_fill(~visible, torch.finfo(dtype).min)
        cos, sin = expert.rotary_embedding(torch.arange(length, device=sample.device))
        for layer, cached in zip(expert.layers, cache.layers, strict=True):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden_states)
            query, key, value = (
                project(normed).view(batch, length, -1, attention.head_dim).transpose(1, 2)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = (x.to(value.dtype) for x in apply_rotary_pos_emb(query, key, cos, sin))
            key = repeat_kv(torch.cat([cached.keys, key], dim=2), attention.num_key_value_groups)
            value = repeat_kv(torch.cat([cached.values, value], dim=2), attention.num_key_value_groups)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            attended = attended.transpose(1, 2).reshape(batch, length, -1)
            hidden_states = hidden_states + attention.o_proj(attended)
            hidden_states = hidden_states + layer.mlp(layer.post_attention_layernorm(hidden_states))
        return policy.action_out_proj(expert.norm(hidden_states)).float()


def row_inputs(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """Model inputs of one observation with one picture."""
    patches = len(inputs["pixel_values"]) // len(inputs["input_ids"])
    return {
        "input_ids": inputs["input_ids"][row : row + 1],
        "attention_mask": inputs["attention_mask"][row : row + 1],
        "pixel_values": inputs["pixel_values"][row * patches : (row + 1) * patches],
        "image_grid_thw": inputs["image_grid_thw"][row : row + 1],
    }


__all__ = ["PlainPolicy", "row_inputs"]
