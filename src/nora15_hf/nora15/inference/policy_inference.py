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
from .known_policy import is_known_backbone, is_known_expert, is_known_generator
from .layer_weights import read_layer, rms_norm
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
    """

    def __init__(self):
        self.compiled = CompiledParts()

    def can_run_backbone(self, policy: nn.Module) -> bool:
        """Whether the weights of the backbone can be read, that is, whether all its modules are known to [`KnownModules`]."""
        return _may_read(policy, is_known_backbone, policy.get_input_embeddings())

    def can_generate(self, policy: nn.Module) -> bool:
        """Whether the weights of backbone and LM head can be read to generate tokens."""
        return _may_read(policy, is_known_generator, policy.get_input_embeddings())

    def can_run_expert(self, policy: nn.Module) -> bool:
        """Whether the weights of the action expert, and of the layers around it, can be read."""
        return _may_read(policy, is_known_expert, policy.action_out_proj)

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
        shape, dtype, device = hidden_states.shape, hidden_states.dtype, hidden_states.device
        form = (layer.form for layer in layers)
        run = self.compiled.find(encode_tokens, *shape, last_output, attention_mask.dtype, dtype, device, *form)
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
        lengths = layout.window_lengths, layout.frame_lengths
        run = self.compiled.find(encode_patches, *lengths, pixel_values.dtype, weights.form)
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
        tokens = config.action_token_start_id, config.num_action_tokens, end_ids
        head = ReadActionHead(policy.vlm.lm_head, *tokens, prompt.hidden_states.device)
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


def _may_read(policy: nn.Module, is_known: Callable[[nn.Module], bool], layer: nn.Module) -> bool:
    """Without gradients, outside of a graph that is being compiled, of known modules, without autocast on `layer`'s device."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and is_known(policy)
        and not torch.is_autocast_enabled(layer.weight.device.type)
    )


__all__ = ["BackbonePass", "PolicyInference"]
