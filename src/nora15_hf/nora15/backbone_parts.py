# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Parts of the backbone that are computed otherwise than in Qwen2.5-VL, with the same numbers: positions of a whole batch,
windows of patches in one call, and a decoder layer that also returns the keys and values that the action expert reads, which a
[`PrefixCache`] holds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLDecoderLayer,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index


@dataclass
class PrefixCache:
    r"""
    What the action expert reads of the backbone: its keys and values of one prompt per row.

    Args:
        keys, values (`tuple[torch.Tensor, ...]`):
            Per layer `(batch, key/value heads, length, head dimension)`; keys are rotated already.
        mask (`torch.BoolTensor` of shape `(batch, length)`):
            True where the expert may look.
        state (`torch.Tensor` of shape `(batch, state_dim)`, *optional*):
            Normalised robot state, for policies with a state input.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    mask: torch.Tensor
    state: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.mask.shape[0]

    def select(self, rows: torch.Tensor) -> "PrefixCache":
        """The prefixes of the given rows (`(n,)` indices or a bool mask), in their order."""
        return self._map(lambda tensor: tensor[rows])

    def detach(self) -> "PrefixCache":
        """The same prefix without a way back for gradients."""
        return self._map(torch.Tensor.detach)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PrefixCache":
        state = None if self.state is None else function(self.state)
        return PrefixCache(
            tuple(map(function, self.keys)), tuple(map(function, self.values)), function(self.mask), state
        )


# How many tokens an image has is a matter of the data: a graph of PyTorch's compiler could not contain it.
@torch.compiler.disable
def multimodal_position_ids(
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    image_grid_thw: torch.LongTensor | None,
    image_token_id: int,
    spatial_merge_size: int,
) -> torch.LongTensor:
    """
    Qwen2.5-VL's three-axis positions for prompts of text and still images, for a whole batch at once.

    Equal to `Qwen2_5_VLModel.get_rope_index` where `attention_mask` is 1, but without its loop over samples and
    without state left on the module.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, length)`): Token ids.
        attention_mask (`torch.Tensor` of shape `(batch, length)`): 0 on padding, which may stand on either side.
        image_grid_thw (`torch.LongTensor` of shape `(images, 3)`, *optional*): Patch grids in order of appearance.
        image_token_id (`int`): Id of the image placeholder.
        spatial_merge_size (`int`): Patches merged along each side into one token.

    Returns:
        `torch.LongTensor` of shape `(3, batch, length)`: temporal, height and width positions.
    """
    real = attention_mask.bool()
    advance = real.long()
    is_image = (input_ids == image_token_id) & real
    num_image_tokens = int(is_image.sum())
    if image_grid_thw is None:
        if num_image_tokens:
            raise ValueError(
                f"input_ids holds {num_image_tokens} image tokens but image_grid_thw is missing. Pass everything that "
                "the processor returned."
            )
        return ((advance.cumsum(-1) - 1).clamp(min=0)).expand(3, -1, -1)

    height, width = (image_grid_thw[:, 1:] // spatial_merge_size).unbind(-1)
    tokens_per_image = height * width
    if num_image_tokens != int(tokens_per_image.sum()):
        raise ValueError(
            f"input_ids holds {num_image_tokens} image tokens, but image_grid_thw={image_grid_thw.tolist()} stands for "
            f"{int(tokens_per_image.sum())}. Create the prompt and the images in one call of the processor."
        )
    image_index = torch.repeat_interleave(tokens_per_image)
    first_token = tokens_per_image.cumsum(0) - tokens_per_image
    rank = torch.arange(num_image_tokens, device=input_ids.device) - first_token[image_index]
    # All tokens of an image share one start; what follows resumes behind the longer side of its grid.
    is_last = rank == tokens_per_image[image_index] - 1
    advance[is_image] = torch.where(is_last, torch.maximum(height, width)[image_index], 0)
    positions = (advance.cumsum(-1) - advance).expand(3, -1, -1).clone()
    positions[1][is_image] += rank // width[image_index]
    positions[2][is_image] += rank % width[image_index]
    return positions


def embed_images(
    visual: Qwen2_5_VisionTransformerPretrainedModel, pixel_values: torch.Tensor, image_grid_thw: torch.LongTensor
) -> torch.Tensor:
    """Image tokens `(tokens, hidden_size)` of the vision tower; arguments as in [`Nora15ForActionPrediction.forward`]."""
    # The tower builds its windows from plain numbers, and each of its blocks reads their bounds: with the grid on the
    # CPU the device is waited for once, and not in every block.
    grid = image_grid_thw.cpu()
    position_ids = get_vision_position_ids(grid, visual.spatial_merge_size)
    bounds = get_vision_cu_seqlens(grid)
    window_index, window_bounds = get_vision_window_index(
        grid, visual.spatial_merge_size, visual.window_size, visual.patch_size
    )
    if is_flash_attention_requested(visual.config):
        bounds, window_bounds = bounds.to(pixel_values.device), window_bounds.to(pixel_values.device)
    return visual(
        pixel_values.to(visual.dtype),
        grid_thw=grid,
        position_ids=position_ids.to(pixel_values.device),
        cu_seqlens=bounds,
        window_index=window_index.to(pixel_values.device),
        cu_window_seqlens=window_bounds,
    ).pooler_output


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


class Nora15VisionAttention(Qwen2_5_VLVisionAttention):
    """Qwen2.5-VL's vision attention, with all windows of equal length in one call instead of a loop over them."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs,
    ) -> torch.Tensor:
        lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
        if is_flash_attention_requested(self.config) or len(set(lengths)) != 1:
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)

        windows, length = len(lengths), lengths[0]
        query, key, value = self.qkv(hidden_states).view(windows * length, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (x.view(windows, length, self.num_heads, -1).transpose(1, 2) for x in (query, key, value))
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention(
            self, query, key, value, attention_mask=None, scaling=self.scaling, is_causal=False, **kwargs
        )
        return self.proj(output.reshape(windows * length, -1))


__all__ = [
    "KeyValueRecorder",
    "Nora15BackboneLayer",
    "Nora15VisionAttention",
    "PrefixCache",
    "embed_images",
    "multimodal_position_ids",
]
