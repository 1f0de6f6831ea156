# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The backbone's decoder layer, which also returns the keys and values that the action expert reads."""

import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer


class KeyValueRecorder:
    """Takes the place of a cache in one pass of one layer, and keeps what its attention would have stored."""

    def __init__(self):
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = keys, values
        return keys, values


class Nora15BackboneLayer(Qwen2_5_VLDecoderLayer):
    """
    Qwen2.5-VL's decoder layer with its keys and values among the outputs.

    A cache is a side effect: under gradient checkpointing transformers drops it, and FSDP2, which gathers a layer's
    weights for the backward pass when the gradient of one of its outputs arrives, would not see gradients that come
    through it. As outputs, keys and values survive both. They are small: 512 numbers per token and layer of the 3 B
    model, against 2048 of its hidden state.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        return_key_values: bool = False,
        output_index: torch.LongTensor | None = None,
        **kwargs,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, length, hidden_size)`): Input of the layer.
            return_key_values (`bool`, *optional*, defaults to `False`): False is the parent's forward.
            output_index (`torch.LongTensor` of shape `(tokens,)`, *optional*):
                With `return_key_values`: the tokens, counted through the whole batch, whose hidden states are wanted,
                possibly none. The MLP, most of a layer's work, is left out for the others.
            kwargs: As in `Qwen2_5_VLDecoderLayer`.

        Returns:
            The hidden states; with `return_key_values` also rotated keys and values, `(batch, key/value heads, length,
            head dimension)` each. With `output_index` the hidden states are `(tokens, hidden_size)`.
        """
        if not return_key_values:
            return super().forward(hidden_states, **kwargs)
        recorder = KeyValueRecorder()
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), past_key_values=recorder, **kwargs)
        hidden_states = hidden_states + attended
        if output_index is not None:
            hidden_states = hidden_states.flatten(0, 1)[output_index]
            # With a gradient the MLP is called even so: data parallelism waits for one of every parameter. Without one
            # it must not be: bitsandbytes' kernels for CPUs divide by the number of tokens.
            if not (len(output_index) or hidden_states.requires_grad):
                return hidden_states, recorder.keys, recorder.values
        hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states, recorder.keys, recorder.values


__all__ = ["KeyValueRecorder", "Nora15BackboneLayer"]
