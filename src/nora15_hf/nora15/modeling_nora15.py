# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The NORA-1.5 policy: a Qwen2.5-VL backbone that emits FAST tokens and a flow-matching action expert on its KV cache.

The computation is that of `declare-lab/nora-1.5` (arXiv 2511.14659); parameter names are those of the released weights.
"""

import copy
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLRMSNorm,
    Qwen2_5_VLVisionAttention,
    Qwen2MLP,
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.utils import ModelOutput
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from ..actions.keyed_noise import NoiseKey
from ..repo_files.flat_code import write_code
from ..repo_files.one_commit import OneCommitPushMixin
from ..repo_files.stored_tensors import HUB_OPTIONS, StoredTensor, find_weights, read_checkpoint
from ..repo_files.verified_download import verified
from .alternative_answers import answer_attention_mask, answer_position_ids, predicting_columns
from .backbone_layer import Nora15BackboneLayer
from .configuration_nora15 import Nora15Config
from .flow_schedulers import SAMPLING_PRESETS, load_flow_scheduler
from .flow_solver import flow_solver
from .inference.compiled_parts import CompiledParts
from .inference.denoising import Denoiser
from .inference.generation import (
    ActionHead,
    CalledDecoder,
    EncodedPrompt,
    ReadDecoder,
    generate_tokens,
    is_simple,
    pick_token,
)
from .inference.layer_weights import are_tensors, can_be_read, read_layer, rms_norm
from .inference.prefill import encode_patches, encode_tokens, read_vision, vision_layout
from .quantization import backbone_quantization, refuse_repacked_weights
from .released_checkpoint import check_tensors, has_expert, is_native, native_name, released_config


@dataclass
class Nora15Output(ModelOutput):
    r"""
    Output of [`Nora15ForActionPrediction.forward`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*):
            `lm_loss + flow_loss_weight * flow_loss`, each part only when its inputs were given.
        lm_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
            Mean cross-entropy over the supervised tokens, 0 when there are none.
        flow_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `actions` is given):
            Mean squared velocity error over the unmasked action steps.
        logits (`torch.FloatTensor` of shape `(batch, length, vocabulary)`, *optional*, returned with `return_logits`):
            Next-token scores of the backbone.
        velocity (`torch.FloatTensor` of shape `(batch, chunk, action)` or `(batch, draws, chunk, action)`, *optional*):
            Predicted velocity `noise - action`.
        prefix ([`PrefixCache`]):
            The backbone's keys and values.
        token_log_probs (`torch.FloatTensor` of shape `(batch, length)`, *optional*, returned when `answer_index` is given):
            Log-probability of each supervised token, 0 elsewhere.
    """

    loss: torch.FloatTensor | None = None
    lm_loss: torch.FloatTensor | None = None
    flow_loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    velocity: torch.FloatTensor | None = None
    prefix: "PrefixCache | None" = None
    token_log_probs: torch.FloatTensor | None = None


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
        return PrefixCache(
            keys=tuple(key[rows] for key in self.keys),
            values=tuple(value[rows] for value in self.values),
            mask=self.mask[rows],
            state=None if self.state is None else self.state[rows],
        )

    def detach(self) -> "PrefixCache":
        """The same prefix without a way back for gradients."""
        return PrefixCache(
            keys=tuple(key.detach() for key in self.keys),
            values=tuple(value.detach() for value in self.values),
            mask=self.mask,
            state=self.state,
        )


def sinusoidal_time_embedding(
    timestep: torch.Tensor, dim: int, min_period: float, max_period: float
) -> torch.FloatTensor:
    """
    `[sin | cos]` features of flow time, always computed in float32.

    The order of the products is that of the released code: another order moves the embedding by 1e-4.

    Args:
        timestep (`torch.Tensor` of any shape): Flow time in [0, 1].
        dim (`int`): Even size of the embedding.
        min_period, max_period (`float`): Range of the geometric periods.

    Returns:
        `torch.FloatTensor` of shape `(*timestep.shape, dim)`.
    """
    fraction = torch.linspace(0.0, 1.0, dim // 2, dtype=torch.float32, device=timestep.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = 1.0 / period * 2 * math.pi * timestep.float()[..., None]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


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
            f"{int(tokens_per_image.sum())}. Make the prompt and the images in one call of the processor."
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


class Nora15ExpertAttention(nn.Module):
    """Grouped-query attention of the action tokens over the backbone's keys and values and their own."""

    def __init__(self, config: Nora15Config):
        super().__init__()
        text, expert = config.vlm_config.text_config, config.action_expert_config
        # The whole policy's configuration: transformers keeps the attention implementation only on that one.
        self.config = config
        self.head_dim = text.hidden_size // text.num_attention_heads
        self.num_key_value_groups = expert.num_attention_heads // text.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(expert.hidden_size, expert.num_attention_heads * self.head_dim, bias=True)
        self.k_proj = nn.Linear(expert.hidden_size, text.num_key_value_heads * self.head_dim, bias=True)
        self.v_proj = nn.Linear(expert.hidden_size, text.num_key_value_heads * self.head_dim, bias=True)
        self.o_proj = nn.Linear(expert.num_attention_heads * self.head_dim, expert.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        prefix_key: torch.Tensor,
        prefix_value: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        batch, length, _ = hidden_states.shape
        query = self.q_proj(hidden_states).view(batch, length, -1, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden_states).view(batch, length, -1, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden_states).view(batch, length, -1, self.head_dim).transpose(1, 2)
        # The rotation itself is in float32, whatever the dtype of the weights.
        query, key = (x.to(value.dtype) for x in apply_rotary_pos_emb(query, key, *position_embeddings))
        key = torch.cat([prefix_key.to(key.dtype), key], dim=2)
        value = torch.cat([prefix_value.to(value.dtype), value], dim=2)
        # Flash attention knows no mask that hides FAST tokens in the middle of a row.
        implementation = "sdpa" if is_flash_attention_requested(self.config) else self.config._attn_implementation
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, _ = attention(self, query, key, value, attention_mask, scaling=self.scaling, is_causal=False)
        return self.o_proj(output.reshape(batch, length, -1))


class Nora15ExpertLayer(GradientCheckpointingLayer):
    """One layer of the action expert: a Qwen2.5-VL decoder layer that also attends to the backbone's layer."""

    def __init__(self, config: Nora15Config):
        super().__init__()
        expert = config.action_expert_config
        self.self_attn = Nora15ExpertAttention(config)
        self.mlp = Qwen2MLP(expert)
        self.input_layernorm = Qwen2_5_VLRMSNorm(expert.hidden_size, eps=expert.rms_norm_eps)
        self.post_attention_layernorm = Qwen2_5_VLRMSNorm(expert.hidden_size, eps=expert.rms_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        prefix_key: torch.Tensor,
        prefix_value: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        attended = self.self_attn(
            self.input_layernorm(hidden_states), prefix_key, prefix_value, attention_mask, position_embeddings
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class Nora15PreTrainedModel(OneCommitPushMixin, PreTrainedModel):
    """Facts that transformers asks of every model class, and strict loading."""

    config_class = Nora15Config
    config: Nora15Config
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Nora15BackboneLayer", "Nora15ExpertLayer", "Qwen2_5_VLVisionBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        `PreTrainedModel.from_pretrained`, except that an incomplete checkpoint is an error instead of a log line.

        Raises:
            ValueError: When the checkpoint lacks a parameter, has one too many or one of another shape.
        """
        # Otherwise transformers falls back to a pickle when there is no safetensors file.
        kwargs["use_safetensors"] = True
        find_weights(pretrained_model_name_or_path, **{name: kwargs[name] for name in HUB_OPTIONS if name in kwargs})
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        problems = {name: sorted(map(str, info[f"{name}_keys"])) for name in ("missing", "unexpected", "mismatched")}
        if any(problems.values()):
            found = "; ".join(f"{len(keys)} {name}: {keys[:5]}" for name, keys in problems.items() if keys)
            raise ValueError(
                f"The weights in {pretrained_model_name_or_path!r} are not those of {cls.__name__}: {found}. "
                "Nothing was loaded by halves; check the checkpoint's version or convert it first."
            )
        return (model, info) if output_loading_info else model


class Nora15ActionExpert(Nora15PreTrainedModel):
    """
    The action expert: one decoder layer for each of the backbone's, all action tokens of a chunk seeing one another.

    Args:
        config ([`Nora15Config`]): The policy's configuration; depth, key/value heads and head dimension are the
            backbone's.
    """

    def __init__(self, config: Nora15Config):
        super().__init__(config)
        text, expert = config.vlm_config.text_config, config.action_expert_config
        self.head_dim = text.hidden_size // text.num_attention_heads
        self.layers = nn.ModuleList(Nora15ExpertLayer(config) for _ in range(text.num_hidden_layers))
        self.norm = Qwen2_5_VLRMSNorm(expert.hidden_size, eps=expert.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        prefix: PrefixCache,
        chunks: int = 1,
        state_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            inputs_embeds (`torch.Tensor` of shape `(batch, chunks * chunk_size, hidden_size)`): Action tokens.
            prefix ([`PrefixCache`]): The backbone's keys and values of the same batch.
            chunks (`int`): How many chunks lie side by side in a row; they do not see one another.
            state_embeds (`torch.Tensor` of shape `(batch, 1, hidden_size)`, *optional*):
                A token that every chunk of the row sees, and that sees none of them.

        Returns:
            `torch.Tensor` of the shape of `inputs_embeds`.
        """
        device, dtype = inputs_embeds.device, inputs_embeds.dtype
        chunk_size = inputs_embeds.shape[1] // chunks
        chunk = torch.arange(chunks, device=device).repeat_interleave(chunk_size)
        position = torch.arange(chunk_size, device=device).repeat(chunks)
        hidden_states = inputs_embeds
        if state_embeds is not None:
            hidden_states = torch.cat([state_embeds, hidden_states], dim=1)
            chunk = F.pad(chunk, (1, 0), value=-1)
            position = F.pad(position + 1, (1, 0))
        batch, length, _ = hidden_states.shape
        own = (chunk[:, None] == chunk) | (chunk == -1)
        visible = torch.cat([prefix.mask[:, None, :].expand(-1, length, -1), own.expand(batch, -1, -1)], dim=-1)
        # Additive: the eager path adds the mask to the scores, so that a bool mask would not hide anything there.
        attention_mask = torch.zeros(visible.shape, dtype=dtype, device=device)
        attention_mask = attention_mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
        position_embeddings = self.rotary_embedding(position)
        for layer, key, value in zip(self.layers, prefix.keys, prefix.values, strict=True):
            hidden_states = layer(hidden_states, key, value, attention_mask, position_embeddings)
        return self.norm(hidden_states[:, -inputs_embeds.shape[1] :])

    def rotary_embedding(self, position: torch.LongTensor) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Cosines and sines `(1, length, head_dim)` of the expert's own positions `(length,)`; the prefix counts none."""
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=position.device) / self.head_dim
        inverse_frequency = 1.0 / (self.config.action_expert_config.rope_theta**exponent)
        angle = position.float()[:, None] * inverse_frequency
        angle = torch.cat([angle, angle], dim=-1)[None]
        return angle.cos(), angle.sin()


class Nora15ForActionPrediction(Nora15PreTrainedModel):
    """
    NORA-1.5: predicts a chunk of robot actions from images and an instruction, by FAST tokens or by flow matching.

    Args:
        config ([`Nora15Config`]): The configuration.

    Attributes:
        scheduler: The diffusers flow scheduler that `sample_actions` integrates with; saved in `scheduler/` and
            replaceable, for example `model.scheduler = FlowMatchHeunDiscreteScheduler.from_config(...)`.

    Example:

    ```python
    >>> from nora15_hf.nora15.presets import tiny_policy

    >>> model, processor = tiny_policy(seed=0)
    >>> image = np.zeros((84, 84, 3), dtype=np.uint8)
    >>> inputs = processor(images=image, text="open the faucet", return_tensors="pt")
    >>> model.sample_actions(**inputs).shape
    torch.Size([1, 5, 4])
    ```
    """

    _tied_weights_keys = {"vlm.lm_head.weight": "vlm.model.language_model.embed_tokens.weight"}
    # The mean over a batch's supervised tokens is taken here, as in the released code.
    accepts_loss_kwargs = False

    def __init__(self, config: Nora15Config):
        super().__init__(config)
        self.vlm = Qwen2_5_VLForConditionalGeneration(config.vlm_config)
        for block in self.vlm.model.visual.blocks:
            block.attn = Nora15VisionAttention(config.vlm_config.vision_config)
        for layer in self.vlm.model.language_model.layers:
            # The parameters stay as they are; only the outputs differ.
            layer.__class__ = Nora15BackboneLayer
        hidden_size = config.action_expert_config.hidden_size
        self.action_expert = Nora15ActionExpert(config)
        self.action_in_proj = nn.Linear(config.action_dim, hidden_size)
        self.action_out_proj = nn.Linear(hidden_size, config.action_dim)
        self.action_time_mlp_in = nn.Linear(2 * hidden_size, hidden_size)
        self.action_time_mlp_out = nn.Linear(hidden_size, hidden_size)
        if config.state_dim is not None:
            self.state_proj = nn.Linear(config.state_dim, hidden_size)
        self.generation_config = self.vlm.generation_config
        self.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        self._compiled = CompiledParts()
        self.post_init()

    @classmethod
    @verified
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        See [`Nora15PreTrainedModel.from_pretrained`]; also loads the repo's flow scheduler.

        With `quantization_config=BitsAndBytesConfig(...)` only the backbone's language layers are quantised, see
        [`backbone_quantization`].

        A repo as the authors publish it (`declare-lab/nora-1.5`), which has weights but no configuration, is recognised:
        it gets the released configuration, or the `config` passed, and the default scheduler. Every tensor's name and
        shape is compared with the safetensors header before memory is allocated. The values of every checkpoint are
        searched for NaN and infinity, which costs one pass over the weights. What is downloaded is compared with its
        checksums, see [`load_verified`].

        Raises:
            ValueError: The weights are damaged, not finite, or not exactly those of the configuration.
            OSError: The repo has no safetensors files, or a download arrived damaged twice.
        """
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = backbone_quantization(kwargs["quantization_config"])
        hub_options = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        native = is_native(pretrained_model_name_or_path, **hub_options)
        if not native:
            tensors = read_checkpoint(pretrained_model_name_or_path, **hub_options)
            kwargs["config"] = cls._checked_config(pretrained_model_name_or_path, tensors, kwargs.get("config"))
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if native:
            model.scheduler = load_flow_scheduler(
                pretrained_model_name_or_path,
                **{key: value for key, value in hub_options.items() if key != "subfolder"},
            )
        model._check_values(pretrained_model_name_or_path)
        return (model, info) if output_loading_info else model

    @classmethod
    def expected_shapes(cls, config: Nora15Config) -> dict[str, torch.Size]:
        """Shapes of all weights by name, without allocating any."""
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in cls(config).state_dict().items()}

    @classmethod
    def _checked_config(cls, source, tensors: dict[str, StoredTensor], config: Nora15Config | None) -> Nora15Config:
        """The configuration of a released checkpoint, after comparing all names and shapes with it."""
        if not has_expert(tensors):
            raise ValueError(
                f"{str(source)!r} has no action expert, none of its {len(tensors)} tensors is called action_expert.*: it "
                "is a backbone or another model. To start a policy from a backbone, convert it: "
                f"nora15 convert {source} --init-expert 0 --output my-policy"
            )
        config = released_config(tensors) if config is None else config
        found = {native_name(name): tensor.shape for name, tensor in tensors.items()}
        check_tensors(found, cls.expected_shapes(config), str(source), config.tie_word_embeddings)
        return config

    def _check_values(self, source) -> None:
        """Refuses what only the values show: NaN, infinity, an LM head that is not the embedding it is tied to."""
        embedding, head = self.get_input_embeddings().weight, self.vlm.lm_head.weight
        if self.config.tie_word_embeddings and head is not embedding:
            raise ValueError(
                f"vlm.lm_head.weight in {str(source)!r} differs from the embedding that it should be tied to: the "
                "checkpoint mixes two versions. Drop vlm.lm_head.weight from it if the embedding is the right one."
            )
        # The extremes are NaN when any value is, and need no temporary copy of the tensor.
        broken = [
            name
            for name, parameter in self.named_parameters()
            if parameter.is_floating_point()
            # Weights that live on disk or, with ZeRO-3, on another process.
            and parameter.device.type != "meta"
            and parameter.numel()
            and not all(extreme.isfinite() for extreme in parameter.detach().aminmax())
        ]
        if broken:
            raise ValueError(
                f"{len(broken)} tensor(s) in {str(source)!r} hold NaN or infinity: {broken[:5]}. The checkpoint is "
                "damaged or its training diverged; take another one."
            )

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        with_code: bool = False,
        **kwargs,
    ) -> None:
        """
        `PreTrainedModel.save_pretrained`, with the flow scheduler in `scheduler/`.

        Args:
            save_directory (`str` or `os.PathLike`): Made if missing.
            with_code (`bool`, *optional*, defaults to `False`):
                Also write the modules that define the model, and `auto_map`, so that
                `AutoModel.from_pretrained(..., trust_remote_code=True)` works without this package.
        """
        if push_to_hub:
            raise ValueError(
                "save_pretrained(push_to_hub=True) would leave out scheduler/: call push_to_hub(repo_id)."
            )
        refuse_repacked_weights(self)
        if is_main_process:
            self.scheduler.save_pretrained(Path(save_directory) / "scheduler")
            vars(self.config).pop("auto_map", None)
        # By default transformers writes the backbone under the key names of Qwen2.5-VL's first release. Those are not the
        # released policy's, and Trainer, which resumes with strict=False, would silently keep a random backbone.
        super().save_pretrained(save_directory, is_main_process=is_main_process, save_original_format=False, **kwargs)
        if with_code and is_main_process:
            write_code(
                Path(save_directory), {"config.json": {"AutoConfig": type(self.config), "AutoModel": type(self)}}
            )

    def get_input_embeddings(self) -> nn.Module:
        return self.vlm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.vlm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.vlm.lm_head

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        prefix_mask: torch.BoolTensor | None = None,
        actions: torch.Tensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        noise: torch.Tensor | None = None,
        timestep: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        detach_prefix: bool = False,
        answer_index: torch.LongTensor | None = None,
        prefix: PrefixCache | None = None,
        return_logits: bool = False,
    ) -> Nora15Output:
        r"""
        The training pass: FAST-token cross-entropy when `labels` is given, flow matching when `actions` is given.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): Prompt, followed by FAST tokens in training.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 0 on padding; default: no padding.
            pixel_values (`torch.Tensor` of shape `(patches, 3 * 2 * 14 * 14)`, *optional*): Flattened patches.
            image_grid_thw (`torch.LongTensor` of shape `(images, 3)`, *optional*): Patch grid of each image.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): Targets; -100 is not supervised.
            prefix_mask (`torch.BoolTensor` of shape `(batch, length)`, *optional*):
                What the expert may look at; default: everything real in front of the first FAST token.
            actions (`torch.Tensor` of shape `(batch, [chunks,] chunk_size, action_dim)`, *optional*):
                Normalised targets. Several chunks of a row share its prefix and do not see one another.
            action_mask (`torch.BoolTensor` of shape `(batch, chunk_size)`, *optional*): False on padded steps.
            noise (`torch.Tensor` of shape `(batch, [draws,] chunk_size, action_dim)`, *optional*):
                Drawn when absent; of the shape of `actions` when that has several chunks.
            timestep (`torch.Tensor` of shape `(batch, [draws])`, *optional*):
                Flow time, 1 = noise, 0 = data; drawn when absent.
            state (`torch.Tensor` of shape `(batch, state_dim)`, *optional*): Normalised robot state.
            detach_prefix (`bool`): Keep the flow loss's gradient out of the backbone (knowledge insulation).
            answer_index (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                For several answers to one prompt in one row: 0 on the prompt and on padding, k on answer k. Answers do
                not see one another, and each is scored as if it alone followed the prompt (`token_log_probs`).
            prefix ([`PrefixCache`], *optional*):
                Of `encode_prefix`, instead of the processor's tensors; the backbone is then not run.
            return_logits (`bool`): Also compute the scores of the whole vocabulary at every position.

        Returns:
            [`Nora15Output`]
        """
        if labels is None and actions is None and not return_logits:
            raise ValueError(
                "forward() has nothing to compute: labels, actions and return_logits are all absent. For actions from "
                "observations call sample_actions() or generate_actions()."
            )
        if (input_ids is None) == (prefix is None):
            raise ValueError("Give either the processor's tensors (input_ids, ...) or prefix=encode_prefix(...).")
        if prefix is not None:
            if labels is not None or return_logits:
                raise ValueError(
                    "labels and return_logits need a backbone pass, which prefix replaces: give input_ids."
                )
            if prefix_mask is not None or state is not None:
                raise ValueError("prefix_mask and state are part of prefix: give them to encode_prefix().")
            flow_loss, velocity = self.compute_flow_loss(
                prefix.detach() if detach_prefix else prefix, actions, action_mask, noise, timestep
            )
            return Nora15Output(
                loss=self.config.flow_loss_weight * flow_loss, flow_loss=flow_loss, velocity=velocity, prefix=prefix
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if prefix_mask is None:
            prefix_mask = self.default_prefix_mask(input_ids, attention_mask)
        targets = None
        output_index = input_ids.new_empty(0)
        if labels is not None:
            supervised = labels != -100
            columns = torch.arange(labels.shape[1], device=labels.device).expand_as(labels) - 1
            if answer_index is not None:
                columns = predicting_columns(attention_mask, answer_index)
            else:
                # Nothing stands in front of a row's first token that could predict it.
                supervised[:, 0] = False
            targets = labels[supervised]
            # Scores only where a token is supervised: most of the prompt is not.
            first_token = torch.arange(len(labels), device=labels.device)[:, None] * labels.shape[1]
            output_index = (first_token + columns)[supervised]
        hidden_states, keys, values = self.run_backbone(
            input_ids,
            attention_mask,
            pixel_values,
            image_grid_thw,
            answer_index,
            output_index=None if return_logits else output_index,
        )
        prefix = PrefixCache(keys, values, prefix_mask, state)

        logits = self.vlm.lm_head(hidden_states) if return_logits else None
        loss = lm_loss = flow_loss = velocity = token_log_probs = None
        if targets is not None:
            if return_logits:
                scores = logits.flatten(0, 1)[output_index].float()
            else:
                scores = self.vlm.lm_head(hidden_states).float()
            if answer_index is None:
                # A batch of padded chunks supervises no token: its part is a zero with a gradient, not the mean of nothing.
                lm_loss = F.cross_entropy(scores, targets, reduction="sum") / max(len(targets), 1)
            else:
                log_probs = -F.cross_entropy(scores, targets, reduction="none")
                token_log_probs = torch.zeros(labels.shape, device=labels.device)
                token_log_probs = token_log_probs.masked_scatter(supervised, log_probs)
                lm_loss = -log_probs.sum() / max(len(targets), 1)
            loss = lm_loss
        if actions is not None:
            flow_loss, velocity = self.compute_flow_loss(
                prefix.detach() if detach_prefix else prefix, actions, action_mask, noise, timestep
            )
            weighted = self.config.flow_loss_weight * flow_loss
            loss = weighted if loss is None else loss + weighted
        return Nora15Output(
            loss=loss,
            lm_loss=lm_loss,
            flow_loss=flow_loss,
            logits=logits,
            velocity=velocity,
            prefix=prefix,
            token_log_probs=token_log_probs,
        )

    def run_backbone(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.LongTensor | None,
        answer_index: torch.LongTensor | None = None,
        output_index: torch.LongTensor | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """
        One pass of the backbone without its LM head, as `Qwen2_5_VLModel.forward`; arguments as in `forward`.

        Args:
            output_index (`torch.LongTensor` of shape `(tokens,)`, *optional*):
                The tokens, counted through the whole batch, whose hidden states are wanted; default: all. The last layer
                computes keys and values of all of them, and the rest for these.

        Returns:
            The last hidden states `(batch, length, hidden_size)`, or `(tokens, hidden_size)` of `output_index`, and each
            layer's keys and values `(batch, key/value heads, length, head dimension)`.
        """
        language_model = self.vlm.model.language_model
        hidden_states, position_ids = self._embed_prompt(
            input_ids,
            attention_mask,
            pixel_values,
            image_grid_thw,
            lambda pixels: self._embed_images(pixels, image_grid_thw),
        )
        if answer_index is not None:
            if is_flash_attention_requested(self.config):
                raise ValueError(
                    "answer_index needs a mask that flash attention does not know: load the policy with "
                    'attn_implementation="sdpa".'
                )
            position_ids = answer_position_ids(position_ids, attention_mask, answer_index)
            attention_mask = answer_attention_mask(attention_mask, answer_index, hidden_states.dtype)
        causal_mask = create_causal_mask(
            config=language_model.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            past_key_values=None,
        )
        position_embeddings = language_model.rotary_emb(hidden_states, position_ids)
        keys, values = [], []
        for number, layer in enumerate(language_model.layers):
            is_last = number == len(language_model.layers) - 1
            hidden_states, key, value = layer(
                hidden_states,
                return_key_values=True,
                output_index=output_index if is_last else None,
                attention_mask=causal_mask,
                position_embeddings=position_embeddings,
            )
            keys.append(key)
            values.append(value)
        return language_model.norm(hidden_states), tuple(keys), tuple(values)

    def _embed_images(self, pixel_values: torch.Tensor, image_grid_thw: torch.LongTensor) -> torch.Tensor:
        """Image tokens `(tokens, hidden_size)` of the vision tower."""
        visual, vision_config = self.vlm.model.visual, self.config.vlm_config.vision_config
        # The tower builds its windows from plain numbers, and each of its blocks reads their bounds: with the grid on the
        # CPU the device is waited for once, and not in every block.
        grid = image_grid_thw.cpu()
        position_ids = get_vision_position_ids(grid, visual.spatial_merge_size)
        bounds = get_vision_cu_seqlens(grid)
        window_index, window_bounds = get_vision_window_index(
            grid, visual.spatial_merge_size, visual.window_size, visual.patch_size
        )
        if is_flash_attention_requested(vision_config):
            bounds, window_bounds = bounds.to(pixel_values.device), window_bounds.to(pixel_values.device)
        return visual(
            pixel_values.to(visual.dtype),
            grid_thw=grid,
            position_ids=position_ids.to(pixel_values.device),
            cu_seqlens=bounds,
            window_index=window_index.to(pixel_values.device),
            cu_window_seqlens=window_bounds,
        ).pooler_output

    def _embed_prompt(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.LongTensor | None,
        encode: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.LongTensor]:
        """Tokens with pictures in their places, `(batch, length, hidden_size)`, and positions `(3, batch, length)`."""
        position_ids = self._position_ids(input_ids, attention_mask, image_grid_thw)
        hidden_states = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            image_embeds = encode(pixel_values)
            # Their number was compared with the grid's above.
            is_image = (input_ids == self.config.vlm_config.image_token_id)[..., None].expand_as(hidden_states)
            hidden_states = hidden_states.masked_scatter(is_image, image_embeds.to(hidden_states.dtype))
        return hidden_states, position_ids

    def _position_ids(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor, image_grid_thw: torch.LongTensor | None
    ) -> torch.LongTensor:
        return multimodal_position_ids(
            input_ids,
            attention_mask,
            image_grid_thw,
            self.config.vlm_config.image_token_id,
            self.config.vlm_config.vision_config.spatial_merge_size,
        )

    @torch.no_grad()
    def prefill(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        state: torch.Tensor | None = None,
    ) -> PrefixCache:
        """
        `encode_prefix` for inference: the same numbers up to rounding, in fewer operations and without gradients;
        arguments as in `forward`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if self._can_read_backbone():
            input_ids, attention_mask = self._pad_prompt(input_ids, attention_mask)
            _, keys, values, _ = self._read_backbone(
                input_ids, attention_mask, pixel_values, image_grid_thw, last_output=False
            )
        else:
            _, keys, values = self.run_backbone(input_ids, attention_mask, pixel_values, image_grid_thw)
        return PrefixCache(keys, values, self.default_prefix_mask(input_ids, attention_mask), state)

    def _pad_prompt(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor
    ) -> tuple[torch.LongTensor, torch.Tensor]:
        """Prompts with padding on the left, up to the next length that has been [warmed up][warm_up], if there is one."""
        batch, length = input_ids.shape
        room = self._compiled.padded_length(batch, length) - length
        pad_token = self.config.get_text_config().pad_token_id
        return F.pad(input_ids, (room, 0), value=pad_token or 0), F.pad(attention_mask, (room, 0))

    def _read_backbone(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.LongTensor | None,
        last_output: bool,
    ) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...], torch.LongTensor]:
        """`run_backbone` as `encode_tokens` does it; also returns the positions `(3, batch, length)`."""
        language_model = self.vlm.model.language_model
        hidden_states, position_ids = self._embed_prompt(
            input_ids,
            attention_mask,
            pixel_values,
            image_grid_thw,
            lambda pixels: self._read_images(pixels, image_grid_thw),
        )
        layers = [read_layer(layer) for layer in language_model.layers]
        run = encode_tokens
        if all(are_tensors(layer.projections) for layer in layers):
            shape, dtype, device = hidden_states.shape, hidden_states.dtype, hidden_states.device
            run = self._compiled.find(encode_tokens, *shape, last_output, attention_mask.dtype, dtype, device)
        position_embeddings = language_model.rotary_emb(hidden_states, position_ids)
        return *run(layers, hidden_states, position_embeddings, attention_mask, last_output), position_ids

    def _read_images(self, pixel_values: torch.Tensor, image_grid_thw: torch.LongTensor) -> torch.Tensor:
        """Image tokens `(tokens, hidden_size)` as `encode_patches` computes them."""
        visual = self.vlm.model.visual
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
            run = self._compiled.find(encode_patches, *lengths, *dtypes)
        return run(weights, pixel_values, layout)

    def _can_read_backbone(self) -> bool:
        visual, language_model = self.vlm.model.visual, self.vlm.model.language_model
        return (
            self._may_read_weights()
            and can_be_read(visual, visual.blocks, "norm1")
            and can_be_read(language_model, language_model.layers, "input_layernorm")
        )

    def _can_read_expert(self) -> bool:
        expert = self.action_expert
        return (
            self._may_read_weights()
            # An expert that is trained beside an adapter is wrapped, and the wrapper chooses which of the two runs.
            and type(expert) is Nora15ActionExpert
            and can_be_read(expert, expert.layers, "input_layernorm")
        )

    def _may_read_weights(self) -> bool:
        """
        Whether layers may be run by reading their weights, in fewer operations, instead of by calling them: without
        gradients, without autocast's conversions, with the attention that those operations stand for.
        """
        return (
            not torch.is_grad_enabled()
            and not torch.is_autocast_enabled(self.device.type)
            and self.config._attn_implementation == "sdpa"
        )

    def default_prefix_mask(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.BoolTensor:
        """True on real tokens in front of the first FAST token of each row, `(batch, length)`."""
        start = self.config.action_token_start_id
        is_action = (input_ids >= start) & (input_ids < start + self.config.num_action_tokens)
        return attention_mask.bool() & (is_action.cumsum(-1) == 0)

    def encode_prefix(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        prefix_mask: torch.BoolTensor | None = None,
        state: torch.Tensor | None = None,
    ) -> PrefixCache:
        """One backbone pass over the prompt, for any number of `predict_velocity` calls; arguments as in `forward`."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if prefix_mask is None:
            prefix_mask = self.default_prefix_mask(input_ids, attention_mask)
        _, keys, values = self.run_backbone(
            input_ids, attention_mask, pixel_values, image_grid_thw, output_index=input_ids.new_empty(0)
        )
        return PrefixCache(keys, values, prefix_mask, state)

    def predict_velocity(
        self, noisy_actions: torch.Tensor, timestep: torch.Tensor, prefix: PrefixCache
    ) -> torch.FloatTensor:
        r"""
        One pass of the action expert.

        Args:
            noisy_actions (`torch.Tensor` of shape `(batch, [chunks,] chunk_size, action_dim)`):
                `t * noise + (1 - t) * action`. Several chunks of one row share its prefix and do not see one another.
            timestep (`torch.Tensor` of shape `(batch, [chunks])`): Flow time, 1 = noise, 0 = data.
            prefix ([`PrefixCache`]): Of the same batch.

        Returns:
            `torch.FloatTensor` of the shape of `noisy_actions`: the velocity `noise - action`.
        """
        if noisy_actions.ndim not in (3, 4) or noisy_actions.shape[-1] != self.config.action_dim:
            raise ValueError(
                f"noisy_actions has shape {tuple(noisy_actions.shape)}; expected (batch, [chunks,] chunk_size, "
                f"action_dim={self.config.action_dim})."
            )
        if timestep.shape != noisy_actions.shape[:-2] or noisy_actions.shape[0] != len(prefix):
            raise ValueError(
                f"noisy_actions {tuple(noisy_actions.shape)}, timestep {tuple(timestep.shape)} and the prefix of "
                f"{len(prefix)} rows do not belong together: timestep must have shape "
                f"{tuple(noisy_actions.shape[:-2])}, one flow time per chunk."
            )
        dtype = self.action_in_proj.weight.dtype
        embedding = self.action_in_proj(noisy_actions.to(dtype))
        time = sinusoidal_time_embedding(timestep, embedding.shape[-1], self.config.min_period, self.config.max_period)
        time = time.to(dtype)[..., None, :].expand_as(embedding)
        embedding = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(torch.cat([embedding, time], dim=-1))))
        chunks = 1 if noisy_actions.ndim == 3 else noisy_actions.shape[1]
        hidden_states = self.action_expert(
            embedding.reshape(embedding.shape[0], -1, embedding.shape[-1]), prefix, chunks, self._embed_state(prefix)
        )
        return self.action_out_proj(hidden_states).float().view(noisy_actions.shape)

    def _embed_state(self, prefix: PrefixCache) -> torch.Tensor | None:
        """The state's token `(batch, 1, hidden_size)`, or None for a policy without a state input."""
        expected, found = self.config.state_dim, None if prefix.state is None else tuple(prefix.state.shape)
        if expected is None and found is None:
            return None
        if expected is None:
            raise ValueError(
                f"state has shape {found}, but this policy has no state input (config.state_dim is None) and would ignore "
                "it. Leave state out, or give the policy one: model.add_state_input(state_dim)."
            )
        if found != (len(prefix), expected):
            raise ValueError(
                f"state is {'missing' if found is None else f'of shape {found}'}; this policy reads a normalised robot "
                f"state of shape (batch, state_dim) = {(len(prefix), expected)}. Pass state=... to the processor."
            )
        return self.state_proj(prefix.state.to(self.state_proj.weight.dtype))[:, None]

    def add_state_input(self, state_dim: int) -> None:
        """
        Gives a policy without a state input one, for further training: a new projection with random weights.

        Args:
            state_dim (`int`): Width of the robot state.

        Raises:
            ValueError: The policy has a state input already.
        """
        if self.config.state_dim is not None:
            raise ValueError(f"state_dim={state_dim}: the policy already reads a state of {self.config.state_dim}.")
        if state_dim < 1:
            raise ValueError(f"state_dim={state_dim} must be at least 1.")
        self.config.state_dim = state_dim
        self.state_proj = nn.Linear(state_dim, self.config.action_expert_config.hidden_size)
        self._init_weights(self.state_proj)
        self.state_proj.to(self.action_in_proj.weight)

    def draw_flow_samples(
        self, actions: torch.Tensor, num_samples: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """
        Noise and times for flow matching, `t = offset + scale * Beta(alpha, beta)`.

        Args:
            actions (`torch.Tensor` of shape `(batch, chunk_size, action_dim)`): Gives batch, shape and device.
            num_samples (`int`, *optional*): Draws per row; without it the axis of draws is left out.
            generator (`torch.Generator`, *optional*): On the CPU, so that draws do not depend on the device.

        Returns:
            noise `(batch, [draws,] chunk_size, action_dim)` and timestep `(batch, [draws])`, float32.
        """
        batch, *chunk = actions.shape
        leading = (batch,) if num_samples is None else (batch, num_samples)
        noise = torch.randn(*leading, *chunk, generator=generator)
        config = self.config
        # A Beta variable as a ratio of Gamma variables: unlike torch.distributions it takes a generator.
        gamma = [
            torch._standard_gamma(torch.full(leading, concentration, dtype=torch.float64), generator=generator)
            for concentration in (config.time_sampling_beta_alpha, config.time_sampling_beta_beta)
        ]
        timestep = config.time_sampling_offset + config.time_sampling_scale * gamma[0] / (gamma[0] + gamma[1])
        return noise.to(actions.device), timestep.float().to(actions.device)

    def compute_flow_loss(
        self,
        prefix: PrefixCache,
        actions: torch.Tensor,
        action_mask: torch.BoolTensor | None = None,
        noise: torch.Tensor | None = None,
        timestep: torch.Tensor | None = None,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """The flow-matching loss on an encoded prefix and the predicted velocity; arguments as in `forward`."""
        expected = (len(prefix), self.config.chunk_size, self.config.action_dim)
        if actions.ndim not in (3, 4) or (len(actions), *actions.shape[-2:]) != expected:
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, expected (batch, [chunks,] chunk_size, action_dim) with "
                f"(batch, chunk_size, action_dim) = {expected}."
            )
        if (noise is None) != (timestep is None):
            raise ValueError("noise and timestep are drawn together: give both or neither.")
        if noise is None and actions.ndim == 4:
            noise, timestep = self.draw_flow_samples(actions.flatten(0, 1))
            noise, timestep = noise.view(actions.shape), timestep.view(actions.shape[:2])
        elif noise is None:
            noise, timestep = self.draw_flow_samples(actions, self.config.num_flow_samples)
        if actions.ndim == 4 and noise.shape != actions.shape:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, but actions {tuple(actions.shape)} has several chunks per row: "
                "both must have the same shape."
            )
        actions = actions.float()
        if noise.ndim == 4:
            actions = actions if actions.ndim == 4 else actions[:, None]
            action_mask = None if action_mask is None else action_mask[:, None]
        time = timestep[..., None, None]
        velocity = self.predict_velocity(time * noise + (1 - time) * actions, timestep, prefix)
        error = (velocity - (noise - actions)).pow(2)
        if action_mask is None:
            return error.mean(), velocity
        weight = action_mask[..., None].expand_as(error)
        return (error * weight).sum() / weight.sum(), velocity

    def use_sampling_preset(self, name: str) -> None:
        """
        Chooses the solver and its number of steps for `sample_actions`; both are saved with the policy.

        Args:
            name (`str`):
                `"released"`: 10 Euler steps, as in the released code. `"fast"`: 5, half the evaluations of the expert.

        Raises:
            ValueError: There is no such preset.
        """
        if name not in SAMPLING_PRESETS:
            raise ValueError(f"name={name!r} is no sampling preset. Known: {', '.join(SAMPLING_PRESETS)}.")
        self.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        self.config.num_inference_steps = SAMPLING_PRESETS[name]

    @torch.no_grad()
    def sample_actions(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        noise: torch.Tensor | None = None,
        num_steps: int | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: PrefixCache | None = None,
        state: torch.Tensor | None = None,
    ) -> torch.FloatTensor:
        r"""
        Actions by flow matching: the scheduler integrates the velocity from noise (t = 1) to data (t = 0).

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw, state: What the processor returned.
            noise (`torch.Tensor` of shape `(batch, [num_samples,] chunk_size, action_dim)`, *optional*):
                Start of the integration; drawn when absent.
            num_steps (`int`, *optional*): Solver steps; default `config.num_inference_steps`.
            num_samples (`int`, *optional*, defaults to 1): Chunks per row, sampled from one backbone pass.
            generator (`torch.Generator`, *optional*): On the CPU, for reproducible noise.
            prefix ([`PrefixCache`], *optional*): Of `encode_prefix`, instead of the processor's tensors.

        Returns:
            `torch.FloatTensor` of shape `(batch, chunk_size, action_dim)`, or `(batch, num_samples, chunk_size,
            action_dim)` when `num_samples > 1`: normalised actions.
        """
        if (input_ids is None) == (prefix is None):
            raise ValueError("Give either the processor's tensors (input_ids, ...) or prefix=encode_prefix(...).")
        num_steps = self.config.num_inference_steps if num_steps is None else num_steps
        for name, count in (("num_samples", num_samples), ("num_steps", num_steps)):
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"{name}={count} must be an integer of at least 1.")
        if prefix is None:
            prefix = self.prefill(input_ids, attention_mask, pixel_values, image_grid_thw, state)
        leading = (len(prefix),) if num_samples == 1 else (len(prefix), num_samples)
        shape = (*leading, self.config.chunk_size, self.config.action_dim)
        if noise is None:
            noise = torch.randn(shape, generator=generator)
        elif tuple(noise.shape) != shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {shape} for num_samples={num_samples}.")
        elif not noise.isfinite().all():
            raise ValueError("noise holds NaN or infinity, which every action would become: draw it from N(0, 1).")

        solver = flow_solver(self.scheduler, int(num_steps))
        velocity = self.velocity_field(prefix, solver.times.to(prefix.mask.device), num_samples)
        return solver.integrate(velocity, noise.to(prefix.mask.device, torch.float32))

    @torch.no_grad()
    def warm_up(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        state: torch.Tensor | None = None,
        num_samples: int = 1,
        decoder: str = "flow",
        max_new_tokens: int | None = None,
    ) -> None:
        """
        Compiles inference for observations like the given one, so that a robot waits less: the same batch size, pictures of
        the same number and size, a prompt as long or shorter (shorter ones are padded to it).

        Call it once per kind of observation; what does not fit any runs as before, uncompiled. It takes about a minute on a
        CPU and needs a C++ compiler there. The numbers stay the same up to rounding; weights may change afterwards.

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw, state: What the processor returned.
            num_samples (`int`, *optional*, defaults to 1): Chunks per row, as in `sample_actions`.
            decoder (`str`, *optional*, defaults to `"flow"`): `"flow"` for `sample_actions`, `"fast"` for `generate_actions`.
            max_new_tokens (`int`, *optional*): As in `generate_actions`.

        Raises:
            ValueError: Another decoder, or layers of this policy have to be called (adapters, quantisation, hooks, sharded or offloaded
                weights, another attention implementation than `"sdpa"`), so that there is nothing to compile.
        """
        if decoder not in ("flow", "fast"):
            raise ValueError(f'decoder={decoder!r} must be "flow" (sample_actions) or "fast" (generate_actions).')
        if not (self._can_read_backbone() and self._can_read_expert()):
            raise ValueError(
                "warm_up() compiles plain weights, but layers of this policy are hooked, sharded, offloaded, or run with "
                f"attn_implementation={self.config._attn_implementation!r} instead of 'sdpa'. Merge adapters and load the "
                "policy whole, or do without warm_up(): sample_actions() works all the same."
            )
        inputs = (input_ids, attention_mask, pixel_values, image_grid_thw)
        self._compiled.is_warming_up = True
        try:
            if decoder == "flow":
                leading = (len(input_ids),) if num_samples == 1 else (len(input_ids), num_samples)
                # Not drawn, so that the random numbers of what follows are the same with and without a warm-up.
                noise = torch.zeros(*leading, self.config.chunk_size, self.config.action_dim)
                self.sample_actions(*inputs, noise, num_steps=1, num_samples=num_samples, state=state)
            else:
                self.generate_actions(*inputs, max_new_tokens)
        finally:
            self._compiled.is_warming_up = False
        self._compiled.add_prompt_length(*input_ids.shape)

    def velocity_field(
        self, prefix: PrefixCache, times: torch.FloatTensor, num_samples: int = 1
    ) -> Callable[[torch.Tensor, int], torch.FloatTensor]:
        """
        The velocity at known flow times, without gradients, for a solver that asks for them in turn.

        Args:
            prefix ([`PrefixCache`]): Of `encode_prefix`.
            times (`torch.FloatTensor` of shape `(evaluations,)`): Flow times, 1 = noise, 0 = data.
            num_samples (`int`, *optional*, defaults to 1): Chunks per row; more than one have an axis of their own.

        Returns:
            `Callable`: from a sample `(batch, [num_samples,] chunk_size, action_dim)` and an index into `times` to what
            `predict_velocity` gives there. Valid until the weights change.
        """
        if self._can_read_expert():
            config = self.config
            time_embeddings = sinusoidal_time_embedding(
                times, config.action_expert_config.hidden_size, config.min_period, config.max_period
            )
            return Denoiser(
                self, prefix, time_embeddings, num_samples, self._embed_state(prefix), self._compiled
            ).velocity
        leading = (len(prefix),) if num_samples == 1 else (len(prefix), num_samples)
        return lambda sample, evaluation: self.predict_velocity(sample, times[evaluation].expand(leading), prefix)

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
        position_ids = self._position_ids(input_ids, attention_mask, image_grid_thw)
        return EncodedPrompt(hidden_states[:, None], keys, values, position_ids[:, :, -1:], attention_mask)

    def _read_prompt(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.LongTensor | None,
    ) -> EncodedPrompt:
        """`encode_prompt` as `encode_tokens` does it."""
        input_ids, attention_mask = self._pad_prompt(input_ids, attention_mask)
        hidden_states, keys, values, position_ids = self._read_backbone(
            input_ids, attention_mask, pixel_values, image_grid_thw, last_output=True
        )
        hidden_states = rms_norm(self.vlm.model.language_model.norm, hidden_states)
        return EncodedPrompt(hidden_states, keys, values, position_ids[:, :, -1:], attention_mask)

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
                with temperature, `top_k` and `top_p` are fast; anything else is left to `generate` itself.

        Returns:
            `list[list[int]]`: FAST ids (0 = `<robot_action_0>`) of each row up to the end marker.
        """
        if (input_ids is None) == (prompt is None):
            raise ValueError("Give either the processor's tensors (input_ids, ...) or prompt=encode_prompt(...).")
        if max_new_tokens is None:
            max_new_tokens = self.config.chunk_size * self.config.action_dim + 1
        if not isinstance(max_new_tokens, Integral) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be an integer of at least 1.")
        start, count = self.config.action_token_start_id, self.config.num_action_tokens
        end_ids = self.generation_config.eos_token_id
        if end_ids is None:
            raise ValueError(
                "The policy does not know where an answer ends: set generation_config.eos_token_id, or "
                "vlm_config.text_config.eos_token_id before the model is made, to the id of <|im_end|>."
            )
        end_ids = [end_ids] if isinstance(end_ids, int) else list(end_ids)
        config = copy.deepcopy(self.generation_config)
        unknown = config.update(**generation_options)
        is_ours = is_simple(config) and not unknown
        if not is_ours and (prompt is not None or noise_keys is not None):
            raise ValueError(
                f"generation_options={generation_options} are left to transformers' `generate`, which knows neither prompt "
                "nor noise_keys. Drop these two, or use do_sample, temperature, top_k and top_p only."
            )
        num_rows = len(input_ids if prompt is None else prompt)
        if noise_keys is not None and not (config.do_sample and len(noise_keys) == num_rows):
            raise ValueError(
                f"noise_keys has {len(noise_keys)} entries for {num_rows} rows and do_sample={config.do_sample}; expected "
                "one key per row, and do_sample=True: greedy decoding draws nothing."
            )
        language_model, decoder = self.vlm.model.language_model, None
        if prompt is None:
            attention_mask = self._left_padded(input_ids, attention_mask)
            inputs = (input_ids, attention_mask, pixel_values, image_grid_thw)
            # What a key gives must neither depend on a warm-up nor on whether weights can be read.
            if noise_keys is not None:
                prompt = self.encode_prompt(*inputs)
            elif is_ours and self._can_read_backbone():
                prompt = self._read_prompt(*inputs)
                decoder = ReadDecoder(language_model, prompt, max_new_tokens - 1, self._compiled)
        if prompt is not None:
            head = ActionHead(self.vlm.lm_head, start, count, end_ids)
            decoder = decoder or CalledDecoder(language_model, prompt)
            pick = pick_token(config, head, noise_keys)
            rows = generate_tokens(decoder, head, pick, prompt, max_new_tokens, self._compiled.is_warming_up)
            return [[token - start for token in row] for row in rows]
        sequences = self.vlm.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            # Without it transformers falls back to one-axis positions without a word.
            mm_token_type_ids=(input_ids == self.config.vlm_config.image_token_id).int(),
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([ActionTokensOnly(start, count, end_ids)]),
            pad_token_id=self.config.get_text_config().pad_token_id,
            **generation_options,
        )
        rows = sequences[:, input_ids.shape[1] :].tolist()
        return [[token - start for token in row if start <= token < start + count] for row in rows]


class ActionTokensOnly(LogitsProcessor):
    """Leaves only FAST tokens and the end markers to generate from."""

    def __init__(self, start: int, count: int, end_ids: list[int]):
        self.start, self.count, self.end_ids = start, count, end_ids

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        restricted = torch.full_like(scores, -torch.inf)
        restricted[:, self.start : self.start + self.count] = scores[:, self.start : self.start + self.count]
        restricted[:, self.end_ids] = scores[:, self.end_ids]
        return restricted


__all__ = [
    "Nora15ActionExpert",
    "Nora15ForActionPrediction",
    "Nora15Output",
    "Nora15PreTrainedModel",
    "PrefixCache",
    "multimodal_position_ids",
    "sinusoidal_time_embedding",
]
