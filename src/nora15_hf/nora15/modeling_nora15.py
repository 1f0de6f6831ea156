# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The NORA-1.5 policy: a Qwen2.5-VL backbone that emits FAST tokens and a flow-matching action expert on its KV cache.

The computation is that of `declare-lab/nora-1.5` (arXiv 2511.14659); parameter names are those of the released weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import nn
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLRMSNorm,
    Qwen2MLP,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import is_flash_attention_requested

from ..repo_files.one_commit import OneCommitPushMixin
from ..repo_files.strict_loading import StrictLoadingMixin
from ..runtime.recorded_outputs import Recorded, record, recorded_outputs
from .alternative_answers import answer_attention_mask, answer_position_ids, predicting_columns
from .backbone_parts import (
    Nora15BackboneLayer,
    Nora15VisionAttention,
    PrefixCache,
    embed_images,
    multimodal_position_ids,
)
from .checkpoint_nora15 import PolicyCheckpointMixin
from .configuration_nora15 import Nora15Config
from .flow_matching import draw_times, flow_loss, sinusoidal_time_embedding
from .flow_schedulers import SAMPLING_PRESETS, flow_solver
from .generation_nora15 import FastTokensMixin

if TYPE_CHECKING:
    from .inference.policy_inference import PolicyInference


@dataclass
class Nora15Output(ModelOutput):
    r"""
    Output of [`Nora15ForActionPrediction.forward`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `loss_reduction="mean"`):
            `lm_loss + flow_loss_weight * flow_loss`, each part only when its inputs were given.
        lm_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
            Mean cross-entropy over the supervised tokens, 0 when there are none.
        flow_loss (`torch.FloatTensor` of shape `()` or `(batch, [chunks])`, *optional*, returned when `actions` is given):
            Squared velocity error, reduced as `loss_reduction` says, see [`flow_loss`].
        logits (`torch.FloatTensor` of shape `(batch, length, vocabulary)`, *optional*, returned with `return_logits`):
            Next-token scores of the backbone.
        velocity (`torch.FloatTensor` of shape `(batch, [chunks,] [draws,] chunk_size, action_dim)`, *optional*):
            Predicted velocity `noise - action`.
        prefix ([`PrefixCache`]):
            The backbone's keys and values.
        token_log_probs (`torch.FloatTensor` of shape `(batch, length)`, *optional*, returned when `answer_index` is given):
            Log-probability of each supervised token, 0 elsewhere.
        vlm_hidden_states (`tuple[torch.Tensor, ...]`, *optional*, returned with `output_hidden_states` when the backbone runs):
            The backbone's: the embedded prompt and the output of every layer, the last one normalised; `(batch, length,
            hidden_size)` each.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*, returned with `output_hidden_states` when `actions` is given):
            The action expert's in the same order, `(batch, tokens, hidden_size)` each. Tokens are the state, where the
            policy reads one, and the actions of all chunks and draws of a row.
        attentions (`tuple[torch.Tensor, ...]`, *optional*, returned with `output_attentions`):
            The action expert's weights of each layer, `(batch, heads, tokens, length + tokens)`: on the prefix, then on the
            expert's own tokens.
    """

    loss: torch.FloatTensor | None = None
    lm_loss: torch.FloatTensor | None = None
    flow_loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    velocity: torch.FloatTensor | None = None
    prefix: "PrefixCache | None" = None
    token_log_probs: torch.FloatTensor | None = None
    vlm_hidden_states: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


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
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
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
        if output_attentions:
            # No other one knows its weights.
            implementation = "eager"
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, weights = attention(self, query, key, value, attention_mask, scaling=self.scaling, is_causal=False)
        return self.o_proj(output.reshape(batch, length, -1)), weights


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
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.self_attn(
            self.input_layernorm(hidden_states),
            prefix_key,
            prefix_value,
            attention_mask,
            position_embeddings,
            output_attentions,
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)), weights


class Nora15PreTrainedModel(StrictLoadingMixin, OneCommitPushMixin, PreTrainedModel):
    """The attributes that transformers expects of every model class, and strict loading."""

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
        recorded: Recorded | None = None,
    ) -> torch.Tensor:
        """
        Args:
            inputs_embeds (`torch.Tensor` of shape `(batch, chunks * chunk_size, hidden_size)`): Action tokens.
            prefix ([`PrefixCache`]): The backbone's keys and values of the same batch.
            chunks (`int`): How many chunks lie side by side in a row; they do not see one another.
            state_embeds (`torch.Tensor` of shape `(batch, 1, hidden_size)`, *optional*):
                A token that every chunk of the row sees, and that sees none of them.
            recorded (`Recorded`, *optional*):
                Lists to fill, `"hidden_states"` and `"attentions"` or one of them, see [`Nora15Output`].

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
        output_attentions = recorded is not None and "attentions" in recorded
        for layer, key, value in zip(self.layers, prefix.keys, prefix.values, strict=True):
            record(recorded, "hidden_states", hidden_states)
            hidden_states, weights = layer(
                hidden_states, key, value, attention_mask, position_embeddings, output_attentions
            )
            record(recorded, "attentions", weights)
        hidden_states = self.norm(hidden_states)
        record(recorded, "hidden_states", hidden_states)
        return hidden_states[:, -inputs_embeds.shape[1] :]

    def rotary_embedding(self, position: torch.LongTensor) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Cosines and sines `(1, length, head_dim)` of the expert's own positions `(length,)`; the prefix counts none."""
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=position.device) / self.head_dim
        inverse_frequency = 1.0 / (self.config.action_expert_config.rope_theta**exponent)
        angle = position.float()[:, None] * inverse_frequency
        angle = torch.cat([angle, angle], dim=-1)[None]
        return angle.cos(), angle.sin()


class Nora15ForActionPrediction(PolicyCheckpointMixin, FastTokensMixin, Nora15PreTrainedModel):
    """
    NORA-1.5: predicts a chunk of robot actions from images and an instruction, by FAST tokens or by flow matching.

    Args:
        config ([`Nora15Config`]): The configuration.

    Attributes:
        scheduler: The diffusers flow scheduler that `sample_actions` integrates with; saved in `scheduler/` and
            replaceable, for example `model.scheduler = FlowMatchHeunDiscreteScheduler()`.
        use_inference_path (`bool`, defaults to `True`): Whether, without gradients, `encode_prefix`, `sample_actions` and
            `generate_actions` may read weights instead of calling modules (the folder `inference/`), which gives the same
            numbers up to rounding in fewer operations. Modules are called anyway where one of them is not exactly as
            known (subclasses, wrappers, adapters, quantisation, parametrisation, hooks, sharded or offloaded weights), under
            autocast, and with another attention implementation than `"sdpa"`.

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
        # Not measured here, where a policy may be made without memory for its numbers.
        self._scheduler: SchedulerMixin = FlowMatchEulerDiscreteScheduler(shift=1.0)
        self.use_inference_path = True
        self._inference_path: PolicyInference | None = None
        self.post_init()

    @property
    def scheduler(self) -> SchedulerMixin:
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: SchedulerMixin) -> None:
        flow_solver(scheduler, self.config.num_inference_steps)
        self._scheduler = scheduler

    def get_input_embeddings(self) -> nn.Module:
        return self.vlm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.vlm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.vlm.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module):
        self.vlm.lm_head = new_embeddings

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Embedding:
        """
        As [`~transformers.PreTrainedModel.resize_token_embeddings`].

        Raises:
            ValueError: FAST tokens would be cut off.
        """
        needed = self.config.action_token_start_id + self.config.num_action_tokens
        if new_num_tokens is not None and new_num_tokens < needed:
            raise ValueError(
                f"new_num_tokens={new_num_tokens} would cut off FAST tokens, which end at id {needed - 1} "
                "(config.action_token_start_id, config.num_action_tokens). Keep at least as many tokens as the tokenizer has."
            )
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    @can_return_tuple
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
        loss_reduction: str = "mean",
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
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
            noise (`torch.Tensor` of shape `(batch, [chunks or 1,] [draws,] chunk_size, action_dim)`, *optional*):
                Drawn when absent. With one axis more than `actions` it holds several draws for each chunk; an axis of
                chunks of length 1 is shared by all of them.
            timestep (`torch.Tensor` of the shape of `noise` without its last two axes, *optional*):
                Flow time, 1 = noise, 0 = data; drawn when absent.
            state (`torch.Tensor` of shape `(batch, state_dim)`, *optional*): Normalised robot state.
            detach_prefix (`bool`): Keep the flow loss's gradient out of the backbone (knowledge insulation).
            answer_index (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                For several answers to one prompt in one row: 0 on the prompt and on padding, k on answer k. Answers do
                not see one another, and each is scored as if it alone followed the prompt (`token_log_probs`).
            prefix ([`PrefixCache`], *optional*):
                Of `encode_prefix`, instead of the processor's tensors; the backbone is then not run.
            return_logits (`bool`): Also compute the scores of the whole vocabulary at every position.
            loss_reduction (`str`, *optional*, defaults to `"mean"`):
                Of the flow loss; `"chunk_mean"` or `"chunk_sum"` give one value for each chunk, see [`flow_loss`].
            inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`, *optional*):
                The embedded prompt instead of `input_ids`. Pictures are put where it holds the embedding of the image token,
                and FAST tokens are those from the first supervised label on.
            output_hidden_states (`bool`, `int` or `list[int]`, *optional*), output_attentions (`bool`, *optional*):
                What else to return, see [`Nora15Output`]; default: as the configuration says. With numbers, only those hidden
                states are kept, and None stands for the others. With `output_attentions` the action expert's attention is
                computed eagerly.
            return_dict (`bool`, *optional*): False for a tuple of what is not None.

        Returns:
            [`Nora15Output`]
        """
        if labels is None and actions is None and not return_logits:
            raise ValueError(
                "forward() has nothing to compute: labels, actions and return_logits are all absent. For actions from "
                "observations call sample_actions() or generate_actions()."
            )
        if sum(given is not None for given in (input_ids, inputs_embeds, prefix)) != 1:
            raise ValueError(
                "Pass either the processor's tensors (input_ids, ...), inputs_embeds in place of input_ids, or "
                "prefix=encode_prefix(...)."
            )
        if prefix is not None and (labels is not None or return_logits):
            raise ValueError("labels and return_logits need a backbone pass, which prefix replaces: pass input_ids.")
        if prefix is not None and (prefix_mask is not None or state is not None):
            raise ValueError("prefix_mask and state are part of prefix: pass them to encode_prefix().")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_attentions and actions is None:
            raise ValueError(
                "output_attentions=True returns the weights of the action expert, which runs on actions only: pass actions. "
                "Those of the backbone alone come from model.vlm(...)."
            )
        recorded = {}
        if output_hidden_states and prefix is None:
            recorded["vlm_hidden_states"] = []
        if output_hidden_states and actions is not None:
            recorded["hidden_states"] = []
        if output_attentions:
            recorded["attentions"] = []

        # 1. The backbone, whose last layer is finished only for the tokens that predict a supervised one
        logits = lm_loss = token_log_probs = flow_loss = velocity = None
        if prefix is None:
            if inputs_embeds is not None:
                input_ids = self._known_ids(inputs_embeds, labels)
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            if prefix_mask is None:
                prefix_mask = self.default_prefix_mask(input_ids, attention_mask)
            supervised, predicting = None, input_ids.new_empty(0)
            if labels is not None:
                supervised, predicting = self._supervised_tokens(labels, attention_mask, answer_index)
            hidden_states, keys, values = self.run_backbone(
                input_ids,
                attention_mask,
                pixel_values,
                image_grid_thw,
                answer_index,
                output_index=None if return_logits or output_hidden_states else predicting,
                inputs_embeds=inputs_embeds,
                recorded=recorded,
            )
            prefix = PrefixCache(keys, values, prefix_mask, state)

            # 2. FAST tokens: cross-entropy
            if return_logits:
                logits = self.vlm.lm_head(hidden_states)
            if labels is not None:
                if return_logits:
                    scores = logits.flatten(0, 1)[predicting]
                else:
                    scores = self.vlm.lm_head(
                        hidden_states.flatten(0, 1)[predicting] if output_hidden_states else hidden_states
                    )
                lm_loss, token_log_probs = self.compute_token_loss(scores, labels, supervised, answer_index)

        # 3. Flow matching
        if actions is not None:
            flow_loss, velocity = self.compute_flow_loss(
                prefix.detach() if detach_prefix else prefix,
                actions,
                action_mask,
                noise,
                timestep,
                loss_reduction,
                recorded,
            )

        # 4. The weighted sum of the two
        loss = None
        if loss_reduction == "mean":
            weighted = None if flow_loss is None else self.config.flow_loss_weight * flow_loss
            parts = [part for part in (lm_loss, weighted) if part is not None]
            loss = sum(parts) if parts else None
        return Nora15Output(
            loss=loss,
            lm_loss=lm_loss,
            flow_loss=flow_loss,
            logits=logits,
            velocity=velocity,
            prefix=prefix,
            token_log_probs=token_log_probs,
            **recorded_outputs(recorded, output_hidden_states),
        )

    def _known_ids(self, inputs_embeds: torch.Tensor, labels: torch.LongTensor | None) -> torch.LongTensor:
        """Ids `(batch, length)` of the tokens that the policy has to know: image tokens and FAST tokens; -1 on others."""
        image_token = self.config.vlm_config.image_token_id
        (placeholder,) = self.get_input_embeddings()(torch.tensor([image_token], device=inputs_embeds.device))
        input_ids = torch.where((inputs_embeds == placeholder).all(-1), image_token, -1)
        return (
            input_ids if labels is None else torch.where(labels != -100, self.config.action_token_start_id, input_ids)
        )

    def run_backbone(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.LongTensor | None,
        answer_index: torch.LongTensor | None = None,
        output_index: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        recorded: Recorded | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """
        One pass of the backbone without its LM head, as `Qwen2_5_VLModel.forward`; arguments as in `forward`.

        Args:
            output_index (`torch.LongTensor` of shape `(tokens,)`, *optional*):
                The tokens, counted through the whole batch, whose hidden states are wanted; default: all. The last layer
                computes keys and values of all of them, and the rest for these.
            inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`, *optional*):
                What to embed in place of `input_ids`, which then only tell where the pictures belong.
            recorded (`Recorded`, *optional*):
                `"vlm_hidden_states"`: a list to fill, see [`Nora15Output`].

        Returns:
            The last hidden states `(batch, length, hidden_size)`, or `(tokens, hidden_size)` of `output_index`, and each
            layer's keys and values `(batch, key/value heads, length, head dimension)`.
        """
        language_model = self.vlm.model.language_model
        position_ids = self.position_ids(input_ids, attention_mask, image_grid_thw)
        # Tokens before images: the backward pass then makes the gradient of the embeddings, as large as they are, when the activations of
        # the images are gone.
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        visual = self.vlm.model.visual
        image_embeds = None if pixel_values is None else embed_images(visual, pixel_values, image_grid_thw)
        hidden_states = self.embed_prompt(input_ids, image_embeds, inputs_embeds)
        if answer_index is not None:
            if is_flash_attention_requested(self.config):
                raise ValueError(
                    "answer_index needs a mask that flash attention does not support: load the policy with "
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
            record(recorded, "vlm_hidden_states", hidden_states)
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
        hidden_states = language_model.norm(hidden_states)
        record(recorded, "vlm_hidden_states", hidden_states)
        return hidden_states, tuple(keys), tuple(values)

    def position_ids(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor, image_grid_thw: torch.LongTensor | None
    ) -> torch.LongTensor:
        """Positions `(3, batch, length)` of a prompt; refuses pictures that are not those of its placeholders."""
        vlm_config = self.config.vlm_config
        merge_size = vlm_config.vision_config.spatial_merge_size
        return multimodal_position_ids(
            input_ids, attention_mask, image_grid_thw, vlm_config.image_token_id, merge_size
        )

    def embed_prompt(
        self,
        input_ids: torch.LongTensor,
        image_embeds: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens `(batch, length, hidden_size)`, with image tokens `(tokens, hidden_size)` in their places."""
        hidden_states = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        if image_embeds is None:
            return hidden_states
        is_image = (input_ids == self.config.vlm_config.image_token_id)[..., None].expand_as(hidden_states)
        return hidden_states.masked_scatter(is_image, image_embeds.to(hidden_states.dtype))

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
        """
        One backbone pass over the prompt, for any number of `predict_velocity` calls; arguments as in `forward`.

        Without gradients it takes fewer operations, see `use_inference_path`. After `warm_up` the prefix may then
        be padded on the left.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if prefix_mask is None:
            prefix_mask = self.default_prefix_mask(input_ids, attention_mask)
        inputs = (input_ids, attention_mask, pixel_values, image_grid_thw)
        inference = self._inference
        if inference is not None and inference.can_run_backbone(self):
            prompt = inference.run_backbone(self, *inputs)
            keys, values = prompt.keys, prompt.values
            prefix_mask = F.pad(prefix_mask, (prompt.attention_mask.shape[1] - input_ids.shape[1], 0))
        else:
            _, keys, values = self.run_backbone(*inputs, output_index=input_ids.new_empty(0))
        return PrefixCache(keys, values, prefix_mask, state)

    @property
    def _inference(self) -> "PolicyInference | None":
        """What computes without gradients by reading weights, None where that is turned off."""
        if not self.use_inference_path:
            return None
        if self._inference_path is None:
            # Not before it is used: turned off, the policy does without that folder.
            from .inference.policy_inference import PolicyInference

            self._inference_path = PolicyInference()
        return self._inference_path

    def predict_velocity(
        self,
        noisy_actions: torch.Tensor,
        timestep: torch.Tensor,
        prefix: PrefixCache,
        recorded: Recorded | None = None,
    ) -> torch.FloatTensor:
        r"""
        One pass of the action expert.

        Args:
            noisy_actions (`torch.Tensor` of shape `(batch, [chunks,] [draws,] chunk_size, action_dim)`):
                `t * noise + (1 - t) * action`. All that belongs to one row shares its prefix; chunks and draws do not see
                one another.
            timestep (`torch.Tensor` of shape `(batch, [chunks,] [draws])`): Flow time, 1 = noise, 0 = data.
            prefix ([`PrefixCache`]): Of the same batch.
            recorded: As in [`Nora15ActionExpert.forward`].

        Returns:
            `torch.FloatTensor` of the shape of `noisy_actions`: the velocity `noise - action`.
        """
        if noisy_actions.ndim not in (3, 4, 5) or noisy_actions.shape[-1] != self.config.action_dim:
            raise ValueError(
                f"noisy_actions has shape {tuple(noisy_actions.shape)}; expected (batch, [chunks,] [draws,] "
                f"chunk_size, action_dim={self.config.action_dim})."
            )
        if timestep.shape != noisy_actions.shape[:-2] or noisy_actions.shape[0] != len(prefix):
            raise ValueError(
                f"noisy_actions {tuple(noisy_actions.shape)}, timestep {tuple(timestep.shape)} and the prefix of "
                f"{len(prefix)} rows do not match: timestep must have shape "
                f"{tuple(noisy_actions.shape[:-2])}, one flow time per chunk."
            )
        dtype = self.action_in_proj.weight.dtype
        embedding = self.action_in_proj(noisy_actions.to(dtype))
        time = self._embed_time(timestep).to(dtype)[..., None, :].expand_as(embedding)
        embedding = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(torch.cat([embedding, time], dim=-1))))
        chunks = timestep[0].numel()
        hidden_states = self.action_expert(
            embedding.flatten(1, -2), prefix, chunks, self._embed_state(prefix), recorded
        )
        return self.action_out_proj(hidden_states).float().view(noisy_actions.shape)

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
        inference = self._inference
        if inference is not None and inference.can_run_expert(self):
            return inference.velocity_field(
                self, prefix, self._embed_time(times), num_samples, self._embed_state(prefix)
            )
        leading = (len(prefix),) if num_samples == 1 else (len(prefix), num_samples)
        return lambda sample, evaluation: self.predict_velocity(sample, times[evaluation].expand(leading), prefix)

    def _embed_time(self, timestep: torch.Tensor) -> torch.FloatTensor:
        """Features `(*timestep.shape, hidden_size)` of flow times."""
        config = self.config
        return sinusoidal_time_embedding(
            timestep, config.action_expert_config.hidden_size, config.min_period, config.max_period
        )

    def _embed_state(self, prefix: PrefixCache) -> torch.Tensor | None:
        """The state's token `(batch, 1, hidden_size)`, or None for a policy without a state input."""
        expected, found = self.config.state_dim, None if prefix.state is None else tuple(prefix.state.shape)
        if expected is None and found is None:
            return None
        if expected is None:
            raise ValueError(
                f"state has shape {found}, but this policy has no state input (config.state_dim is None) and would ignore "
                "it. Omit state, or add a state input: model.add_state_input(state_dim)."
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

    def _supervised_tokens(
        self, labels: torch.LongTensor, attention_mask: torch.Tensor, answer_index: torch.LongTensor | None
    ) -> tuple[torch.BoolTensor, torch.LongTensor]:
        """Which labels count, `(batch, length)`, and the tokens that predict them, counted through the whole batch."""
        supervised = labels != -100
        columns = torch.arange(labels.shape[1], device=labels.device).expand_as(labels) - 1
        if answer_index is not None:
            columns = predicting_columns(attention_mask, answer_index)
        else:
            # Nothing stands in front of a row's first token that could predict it.
            supervised[:, 0] = False
        first_token = torch.arange(len(labels), device=labels.device)[:, None] * labels.shape[1]
        return supervised, (first_token + columns)[supervised]

    def compute_token_loss(
        self,
        scores: torch.Tensor,
        labels: torch.LongTensor,
        supervised: torch.BoolTensor,
        answer_index: torch.LongTensor | None = None,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor | None]:
        """
        Cross-entropy of FAST tokens.

        Args:
            scores (`torch.Tensor` of shape `(tokens, vocabulary)`): Of the supervised tokens.
            labels (`torch.LongTensor` of shape `(batch, length)`): Targets.
            supervised (`torch.BoolTensor` of shape `(batch, length)`): Which of them count.
            answer_index: As in `forward`.

        Returns:
            The mean over the tokens, 0 when there are none; and with `answer_index` each token's log-probability `(batch,
            length)`, 0 where none is supervised.
        """
        # A batch of padded chunks supervises no token: its part is a zero with a gradient, not the mean of nothing.
        count = max(len(scores), 1)
        if answer_index is None:
            return F.cross_entropy(scores.float(), labels[supervised], reduction="sum") / count, None
        log_probs = -F.cross_entropy(scores.float(), labels[supervised], reduction="none")
        token_log_probs = torch.zeros(labels.shape, device=labels.device).masked_scatter(supervised, log_probs)
        return -log_probs.sum() / count, token_log_probs

    def compute_flow_loss(
        self,
        prefix: PrefixCache,
        actions: torch.Tensor,
        action_mask: torch.BoolTensor | None = None,
        noise: torch.Tensor | None = None,
        timestep: torch.Tensor | None = None,
        loss_reduction: str = "mean",
        recorded: Recorded | None = None,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """The flow-matching loss on an encoded prefix and the predicted velocity; arguments as in `forward`."""
        expected = (len(prefix), self.config.chunk_size, self.config.action_dim)
        if actions.ndim not in (3, 4) or (len(actions), *actions.shape[-2:]) != expected:
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, expected (batch, [chunks,] chunk_size, action_dim) with "
                f"(batch, chunk_size, action_dim) = {expected}."
            )
        # 1. Noise and times, of one chunk as many as the configuration says, of several chunks one each
        if noise is not None:
            shape = noise.shape[:-2]
        elif timestep is not None:
            shape = timestep.shape
        else:
            shape = (len(prefix), self.config.num_flow_samples) if actions.ndim == 3 else actions.shape[:2]
        if noise is None:
            noise = torch.randn(*shape, *expected[1:]).to(actions.device)
        if timestep is None:
            timestep = draw_times(self.config, shape).to(actions.device)
        fitting = [actions.shape]
        if noise.ndim == actions.ndim + 1:
            chunk_axis, draws = actions.shape[1:-2], noise.shape[-3]
            fitting = [(len(prefix), *axis, draws, *expected[1:]) for axis in (chunk_axis, (1,) * len(chunk_axis))]
        if noise.shape not in fitting or timestep.shape != noise.shape[:-2]:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, timestep {tuple(timestep.shape)} and actions "
                f"{tuple(actions.shape)}: noise and actions both must have the same shape, or noise one axis more, of "
                "draws, in front of its last two (its axis of chunks may then be 1); timestep that of noise without its "
                "last two axes."
            )

        # 2. The velocity between the noise and the actions
        actions = actions.float()
        time = timestep[..., None, None]
        noisy = time * noise + (1 - time) * (actions if noise.ndim == actions.ndim else actions.unsqueeze(-3))
        velocity = self.predict_velocity(noisy, timestep.expand(noisy.shape[:-2]), prefix, recorded)
        return flow_loss(velocity, actions, noise, action_mask, loss_reduction), velocity

    def use_sampling_preset(self, name: str) -> None:
        """
        Chooses the solver and its number of steps for `sample_actions`; both are saved with the policy.

        Args:
            name (`str`):
                `"released"`: 10 Euler steps, as in the released code. `"few_steps"`: 5, half the evaluations of the expert.

        Raises:
            ValueError: There is no such preset.
        """
        if name not in SAMPLING_PRESETS:
            raise ValueError(f"name={name!r} is not a sampling preset. Known presets: {', '.join(SAMPLING_PRESETS)}.")
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
            raise ValueError("Pass either the processor's tensors (input_ids, ...) or prefix=encode_prefix(...).")
        num_steps = self.config.num_inference_steps if num_steps is None else num_steps
        for name, count in (("num_samples", num_samples), ("num_steps", num_steps)):
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"{name}={count} must be an integer of at least 1.")
        if prefix is None:
            prefix = self.encode_prefix(input_ids, attention_mask, pixel_values, image_grid_thw, state=state)
        leading = (len(prefix),) if num_samples == 1 else (len(prefix), num_samples)
        shape = (*leading, self.config.chunk_size, self.config.action_dim)
        if noise is None:
            noise = torch.randn(shape, generator=generator)
        elif tuple(noise.shape) != shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {shape} for num_samples={num_samples}.")
        elif not noise.isfinite().all():
            raise ValueError("noise holds NaN or infinity, and so would every action: draw it from N(0, 1).")

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
            ValueError: Another decoder, or layers of this policy have to be called, see `use_inference_path`, so that there
                is nothing to compile.
        """
        if decoder not in ("flow", "fast"):
            raise ValueError(f'decoder={decoder!r} must be "flow" (sample_actions) or "fast" (generate_actions).')
        inference = self._inference
        if decoder == "fast":
            can_be_read = inference is not None and inference.can_generate(self)
        else:
            can_be_read = inference is not None and inference.can_run_backbone(self) and inference.can_run_expert(self)
        if not can_be_read:
            raise ValueError(
                "warm_up() compiles plain weights, but modules of this policy are hooked, adapted, wrapped, quantised, sharded "
                f"or offloaded, or run with attn_implementation={self.config._attn_implementation!r} instead of 'sdpa', or "
                f"use_inference_path={self.use_inference_path}. Merge adapters, remove hooks and load the whole policy, or do "
                "without warm_up(): sample_actions() works without it."
            )
        inputs = (input_ids, attention_mask, pixel_values, image_grid_thw)
        if decoder == "flow":
            leading = (len(input_ids),) if num_samples == 1 else (len(input_ids), num_samples)
            # Not drawn, so that the random numbers of what follows are the same with and without a warm-up.
            noise = torch.zeros(*leading, self.config.chunk_size, self.config.action_dim)
            run = partial(self.sample_actions, *inputs, noise, num_steps=1, num_samples=num_samples, state=state)
        else:
            run = partial(self.generate_actions, *inputs, max_new_tokens)
        inference.warm_up(input_ids.shape, run)


__all__ = [
    "Nora15ActionExpert",
    "Nora15ForActionPrediction",
    "Nora15Output",
    "Nora15PreTrainedModel",
]
