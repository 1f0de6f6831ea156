# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The door to this folder: what the policy may have computed by reading its weights instead of calling its modules."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..generation_nora15 import EncodedPrompt
from .compiled_parts import CompiledParts
from .denoising import Denoiser
from .generation import ReadActionHead, ReadDecoder
from .layer_weights import are_tensors, can_be_read, read_layer, rms_norm
from .prefill import encode_patches, encode_tokens, read_vision, vision_layout


class BackbonePass(NamedTuple):
    """
    What [`PolicyInference.run_backbone`] returns; `length` is that of the prompt with the padding that it added.

    Attributes:
        hidden_states (`torch.Tensor` of shape `(batch, 1, hidden_size)` or `None`):
            Of the last token, before the final norm, if it was asked for.
        keys, values (`tuple[torch.Tensor, ...]`): Per layer `(batch, key/value heads, length, head dimension)`.
        position_ids (`torch.LongTensor` of shape `(3, batch, length)`): Positions.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding.
    """

    hidden_states: torch.Tensor | None
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    position_ids: torch.LongTensor
    attention_mask: torch.Tensor


class PolicyInference:
    r"""
    A policy's computations without gradients: the numbers of its modules up to rounding, in fewer operations, compiled for
    the observations that it was warmed up with.

    The policy asks before each computation whether it can be done here, and calls its modules otherwise. Nothing of a
    policy is kept but compiled code, of which weights are arguments.

    Args:
        expert_class (`type`): Of the action expert, for whose layers the operations here stand. An expert of another class
            is called: one that is trained beside an adapter is wrapped, and the wrapper chooses which of the two runs.
    """

    def __init__(self, expert_class: type[nn.Module]):
        self.expert_class = expert_class
        self.compiled = CompiledParts()

    def can_run_backbone(self, policy: nn.Module) -> bool:
        """Whether the weights of the backbone can be read: nothing is hooked, sharded, offloaded or quantised."""
        visual, language_model = policy.vlm.model.visual, policy.vlm.model.language_model
        return (
            _may_read_weights(policy)
            and can_be_read(visual, visual.blocks, "norm1")
            and can_be_read(language_model, language_model.layers, "input_layernorm")
        )

    def can_run_expert(self, policy: nn.Module) -> bool:
        """Whether the weights of the action expert can be read."""
        expert = policy.action_expert
        return (
            _may_read_weights(policy)
            and type(expert) is self.expert_class
            and can_be_read(expert, expert.layers, "input_layernorm")
        )

    def run_backbone(
        self,
        policy: nn.Module,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.LongTensor | None,
        last_output: bool = False,
    ) -> BackbonePass:
        """
        The pass of `Nora15ForActionPrediction.run_backbone`; arguments as there.

        Prompts are padded on the left to the next length that has been warmed up, if there is one.

        Args:
            last_output (`bool`, *optional*, defaults to `False`): Whether FAST tokens are to follow the prompt.
        """
        batch, length = input_ids.shape
        room = self.compiled.padded_length(batch, length) - length
        pad_token = policy.config.get_text_config().pad_token_id or 0
        input_ids = F.pad(input_ids, (room, 0), value=pad_token)
        attention_mask = F.pad(attention_mask, (room, 0))

        language_model = policy.vlm.model.language_model
        position_ids = policy.position_ids(input_ids, attention_mask, image_grid_thw)
        image_embeds = None if pixel_values is None else self._embed_images(policy, pixel_values, image_grid_thw)
        hidden_states = policy.embed_prompt(input_ids, image_embeds)
        layers = [read_layer(layer) for layer in language_model.layers]
        run = encode_tokens
        if all(are_tensors(layer.projections) for layer in layers):
            shape, dtype, device = hidden_states.shape, hidden_states.dtype, hidden_states.device
            run = self.compiled.find(encode_tokens, *shape, last_output, attention_mask.dtype, dtype, device)
        position_embeddings = language_model.rotary_emb(hidden_states, position_ids)
        outputs = run(layers, hidden_states, position_embeddings, attention_mask, last_output)
        return BackbonePass(*outputs, position_ids, attention_mask)

    def _embed_images(
        self, policy: nn.Module, pixel_values: torch.Tensor, image_grid_thw: torch.LongTensor
    ) -> torch.Tensor:
        """Image tokens `(tokens, hidden_size)` as `encode_patches` computes them."""
        visual = policy.vlm.model.visual
        weights = read_vision(visual)
        layout = vision_layout(
            tuple(map(tuple, image_grid_thw.tolist())),
            visual.spatial_merge_size,
            visual.window_size,
            visual.patch_size,
            pixel_values.device,
        )
        run = encode_patches
        if are_tensors(weights.projections):
            lengths = layout.window_lengths, layout.frame_lengths
            dtypes = pixel_values.dtype, weights.kernel.dtype, weights.kernel.device
            run = self.compiled.find(encode_patches, *lengths, *dtypes)
        return run(weights, pixel_values, layout)

    def velocity_field(
        self,
        policy: nn.Module,
        prefix,
        time_embeddings: torch.Tensor,
        num_samples: int,
        state_embeds: torch.Tensor | None,
    ) -> Callable[[torch.Tensor, int], torch.FloatTensor]:
        """
        The velocity at known times, see `Nora15ForActionPrediction.velocity_field`; arguments as for [`Denoiser`].
        """
        return Denoiser(policy, prefix, time_embeddings, num_samples, state_embeds, self.compiled).velocity

    def start_generation(
        self, policy: nn.Module, inputs: tuple[torch.Tensor, ...], end_ids: list[int], max_new_tokens: int
    ) -> tuple[EncodedPrompt, ReadDecoder, ReadActionHead]:
        """
        What [`~nora15_hf.nora15.generation_nora15.generate_tokens`] needs.

        Args:
            policy ([`Nora15ForActionPrediction`]): The policy.
            inputs (`tuple[torch.Tensor, ...]`): The four tensors of `run_backbone`.
            end_ids (`list[int]`): End markers.
            max_new_tokens (`int`): Longest answer, end marker included.

        Returns:
            The encoded prompts, the decoder behind them, and the head.
        """
        language_model, config = policy.vlm.model.language_model, policy.config
        encoded = self.run_backbone(policy, *inputs, last_output=True)
        prompt = EncodedPrompt(
            rms_norm(language_model.norm, encoded.hidden_states),
            encoded.keys,
            encoded.values,
            encoded.position_ids[:, :, -1:],
            encoded.attention_mask,
        )
        head = ReadActionHead(policy.vlm.lm_head, config.action_token_start_id, config.num_action_tokens, end_ids)
        return prompt, ReadDecoder(language_model, prompt, max_new_tokens - 1, self.compiled), head

    def warm_up(self, shape: torch.Size, run: Callable[[], object]) -> None:
        """
        Compiles whatever a call computes here.

        Args:
            shape (`torch.Size`): Rows and length of the prompts; shorter ones are padded to it from then on.
            run (`Callable`): Calls the policy once.
        """
        self.compiled.is_warming_up = True
        try:
            run()
        finally:
            self.compiled.is_warming_up = False
        self.compiled.add_prompt_length(*shape)


def _may_read_weights(policy: nn.Module) -> bool:
    """Without gradients, without autocast's conversions, with the attention that the operations here stand for."""
    return (
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(policy.device.type)
        and policy.config._attn_implementation == "sdpa"
    )


__all__ = ["BackbonePass", "PolicyInference"]
