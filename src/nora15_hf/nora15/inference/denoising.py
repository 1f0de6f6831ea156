# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The action expert over a whole schedule: what does not depend on the sample is computed once."""

import torch
import torch.nn.functional as F
from torch import nn

from .compiled_parts import CompiledParts
from .joined_linear import joined_linear
from .layer_weights import (
    KeyValueBuffer,
    finish_layer,
    grouped_attention,
    grouped_mask,
    project_heads,
    read_layer,
    rms_norm,
    rotary_tables,
)


class Denoiser:
    r"""
    The velocity field of one call of `sample_actions`: `predict_velocity` at known times on a known prefix.

    The prefix is laid out once with room for the action tokens behind it; the time embeddings' part of the time MLP, the
    masks, the rotary tables and, where there is one, the state token's keys and values are computed here.

    Args:
        policy ([`Nora15ForActionPrediction`]): The policy. Its weights must not change while the denoiser is in use.
        prefix ([`PrefixCache`]): Of `encode_prefix`.
        time_embeddings (`torch.FloatTensor` of shape `(evaluations, hidden_size)`): Of all flow times.
        chunks (`int`): Chunks per row; they share the prefix and do not see one another.
        state_embeds (`torch.Tensor` of shape `(batch, 1, hidden_size)`, *optional*): The state's token.
        compiled ([`CompiledParts`]): Where to look for a compiled form.
    """

    def __init__(
        self,
        policy: nn.Module,
        prefix,
        time_embeddings: torch.Tensor,
        chunks: int,
        state_embeds: torch.Tensor | None,
        compiled: CompiledParts,
    ):
        self.policy = policy
        expert = policy.action_expert
        self.layers = [read_layer(layer) for layer in expert.layers]
        num_states = 0 if state_embeds is None else 1
        length = chunks * policy.config.chunk_size
        self.column = prefix.mask.shape[1] + num_states
        dtype, device = policy.action_in_proj.weight.dtype, prefix.mask.device
        self.buffers = [
            KeyValueBuffer(key.to(dtype), value.to(dtype), num_states + length)
            for key, value in zip(prefix.keys, prefix.values, strict=True)
        ]

        # action_time_mlp_in of [action | time] is the sum of two products, and the time is the same for all rows.
        hidden_size = policy.config.action_expert_config.hidden_size
        weight, bias = policy.action_time_mlp_in.weight, policy.action_time_mlp_in.bias
        self.action_weight = weight[:, :hidden_size]
        self.times = F.linear(time_embeddings.to(dtype), weight[:, hidden_size:], bias).unbind()

        layer = self.layers[0]
        group = layer.num_heads // layer.num_key_value_heads
        if state_embeds is not None:
            # The state's token sees no action, so that it is the same at every evaluation.
            visible = F.pad(prefix.mask, (0, 1), value=True)[:, None]
            tables = rotary_tables(*expert.rotary_embedding(torch.zeros(1, dtype=torch.long, device=device)))
            self.run(state_embeds, tables, grouped_mask(visible, group, dtype), self.column - 1, self.column)
        position = torch.arange(policy.config.chunk_size, device=device).repeat(chunks) + num_states
        self.tables = rotary_tables(*expert.rotary_embedding(position))
        chunk = torch.arange(chunks, device=device).repeat_interleave(policy.config.chunk_size)
        own = (chunk[:, None] == chunk).expand(len(prefix), -1, -1)
        seen = F.pad(prefix.mask, (0, num_states), value=True)[:, None].expand(-1, length, -1)
        self.mask = grouped_mask(torch.cat([seen, own], dim=-1), group, dtype)

        heads = (policy.action_in_proj, policy.action_time_mlp_in, policy.action_time_mlp_out, policy.action_out_proj)
        shape = len(prefix), chunks, self.column, num_states, dtype, device, expert.norm.variance_epsilon
        form = (part.form for part in (*self.layers, *(joined_linear([head]) for head in heads)))
        self.velocity_at = compiled.find(velocity_at, *shape, *form)

    def velocity(self, noisy_actions: torch.Tensor, evaluation: int) -> torch.FloatTensor:
        """
        Args:
            noisy_actions (`torch.Tensor` of shape `(batch, [chunks,] chunk_size, action_dim)`): The sample.
            evaluation (`int`): Which of the times.

        Returns:
            `torch.FloatTensor` of the shape of `noisy_actions`.
        """
        return self.velocity_at(self, noisy_actions, self.times[evaluation])

    def run(
        self,
        hidden_states: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        column: int,
        end: int,
    ) -> torch.Tensor:
        """The expert's layers on tokens that stand from `column` to `end` behind the prefix."""
        for weights, buffer in zip(self.layers, self.buffers, strict=True):
            queries, key_value = project_heads(weights, hidden_states, tables)
            buffer.write(column, key_value)
            keys, values = buffer.keys[:, :, :end], buffer.values[:, :, :end]
            attended = grouped_attention(queries, keys, values, mask, weights.scaling)
            hidden_states = finish_layer(weights, hidden_states, attended)
        return hidden_states


def velocity_at(denoiser: Denoiser, noisy_actions: torch.Tensor, time: torch.Tensor) -> torch.FloatTensor:
    """The velocity at one time, of which `time` is what the time MLP makes of the embedding."""
    policy = denoiser.policy
    embedding = policy.action_in_proj(noisy_actions.to(time.dtype)).flatten(1, -2)
    embedding = F.linear(embedding, denoiser.action_weight, time)
    embedding = policy.action_time_mlp_out(F.silu(embedding))
    hidden_states = denoiser.run(embedding, denoiser.tables, denoiser.mask, denoiser.column, denoiser.mask.shape[-1])
    hidden_states = rms_norm(policy.action_expert.norm, hidden_states)
    return policy.action_out_proj(hidden_states).float().view(noisy_actions.shape)


__all__ = ["Denoiser"]
