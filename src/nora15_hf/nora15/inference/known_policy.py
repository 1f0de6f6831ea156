# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The modules that this folder computes without calling them. Any other is called, and what is below it too."""

from types import FunctionType

from torch import nn
from transformers.activations import SiLUActivation
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLAttention,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMLP,
    Qwen2_5_VLModel,
    Qwen2_5_VLPatchMerger,
    Qwen2_5_VLRMSNorm,
    Qwen2_5_VLRotaryEmbedding,
    Qwen2_5_VLTextModel,
    Qwen2_5_VLVisionBlock,
    Qwen2_5_VLVisionRotaryEmbedding,
    Qwen2MLP,
)

from ...runtime.known_modules import LIBRARY_MODULES, KnownModules, uses_sdpa
from ..backbone_parts import Nora15BackboneLayer, Nora15VisionAttention
from ..modeling_nora15 import (
    Nora15ActionExpert,
    Nora15ExpertAttention,
    Nora15ExpertLayer,
    Nora15ForActionPrediction,
)

_ATTENTION = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), nn.Linear)
_MLP = dict.fromkeys(("gate_proj", "up_proj", "down_proj"), nn.Linear) | {"act_fn": SiLUActivation}
_NORMS = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), Qwen2_5_VLRMSNorm)

KNOWN = KnownModules(
    LIBRARY_MODULES
    | {
        Qwen2_5_VLRMSNorm: {"weight": nn.Parameter},
        SiLUActivation: {},
        Qwen2_5_VLRotaryEmbedding: {},
        Qwen2_5_VLVisionRotaryEmbedding: {},
        Qwen2MLP: _MLP,
        Qwen2_5_VLMLP: _MLP,
        Qwen2_5_VLForConditionalGeneration: {"model": Qwen2_5_VLModel, "lm_head": nn.Linear},
        Qwen2_5_VLModel: {
            "visual": Qwen2_5_VisionTransformerPretrainedModel,
            "language_model": Qwen2_5_VLTextModel,
        },
        # Vision tower
        Qwen2_5_VisionTransformerPretrainedModel: {
            "patch_embed": Qwen2_5_VisionPatchEmbed,
            "rotary_pos_emb": Qwen2_5_VLVisionRotaryEmbedding,
            "blocks": (Qwen2_5_VLVisionBlock, ...),
            "merger": Qwen2_5_VLPatchMerger,
        },
        Qwen2_5_VisionPatchEmbed: {"proj": nn.Conv3d},
        Qwen2_5_VLVisionBlock: {
            "norm1": Qwen2_5_VLRMSNorm,
            "norm2": Qwen2_5_VLRMSNorm,
            "attn": Nora15VisionAttention,
            "mlp": Qwen2_5_VLMLP,
        },
        Nora15VisionAttention: {"qkv": nn.Linear, "proj": nn.Linear},
        Qwen2_5_VLPatchMerger: {"ln_q": Qwen2_5_VLRMSNorm, "mlp": (nn.Linear, nn.GELU, nn.Linear)},
        # Language model
        Qwen2_5_VLTextModel: {
            "embed_tokens": nn.Embedding,
            "layers": (Nora15BackboneLayer, ...),
            "norm": Qwen2_5_VLRMSNorm,
            "rotary_emb": Qwen2_5_VLRotaryEmbedding,
        },
        Nora15BackboneLayer: {"self_attn": Qwen2_5_VLAttention, "mlp": Qwen2MLP, **_NORMS},
        Qwen2_5_VLAttention: _ATTENTION,
        # Action expert
        Nora15ActionExpert: {"layers": (Nora15ExpertLayer, ...), "norm": Qwen2_5_VLRMSNorm},
        Nora15ExpertLayer: {"self_attn": Nora15ExpertAttention, "mlp": Qwen2MLP, **_NORMS},
        Nora15ExpertAttention: _ATTENTION,
    }
)


def is_known_backbone(policy: Nora15ForActionPrediction) -> bool:
    """Whether `encode_prefix` may read the backbone."""
    visual, language_model = policy.vlm.model.visual, policy.vlm.model.language_model
    return (
        _is_known_policy(policy)
        and KNOWN.match(visual, Qwen2_5_VisionTransformerPretrainedModel)
        and KNOWN.match(language_model, Qwen2_5_VLTextModel)
        and uses_sdpa(visual.config)
        and uses_sdpa(language_model.config)
        # Which modules apply in training mode, also without gradients.
        and not language_model.config.attention_dropout
        and not language_model.has_sliding_layers
        # Attributes of the known modules that change what they compute, and that are not read.
        and language_model.embed_tokens.max_norm is None
        and all(layer.self_attn.is_causal for layer in language_model.layers)
    )


def is_known_expert(policy: Nora15ForActionPrediction) -> bool:
    """Whether `velocity_field` may read the action expert and the layers around it."""
    heads = [policy.action_in_proj, policy.action_time_mlp_in, policy.action_time_mlp_out, policy.action_out_proj]
    if policy.config.state_dim is not None:
        heads.append(policy.state_proj)
    return (
        _is_known_policy(policy)
        and KNOWN.match(policy.action_expert, Nora15ActionExpert)
        and all(KNOWN.match(head, nn.Linear) for head in heads)
        and uses_sdpa(policy.config)
    )


def _is_known_policy(policy: Nora15ForActionPrediction) -> bool:
    """Whether the methods are those whose work is done here."""
    kind = type(policy)
    # transformers loads remote code as a subclass, with the same methods and `GenerationMixin`.
    above = kind.__mro__[: kind.__mro__.index(Nora15ForActionPrediction)]
    own = vars(Nora15ForActionPrediction)
    changed = any(
        isinstance(value, FunctionType | property | classmethod | staticmethod) and own.get(name) is not value
        for subclass in above
        for name, value in vars(subclass).items()
    )
    return not changed and not vars(policy).keys() & {"run_backbone", "predict_velocity"}


def is_known_generator(policy: Nora15ForActionPrediction) -> bool:
    """Whether `generate_actions` may read the backbone: transformers' `generate` also calls what holds its two parts."""
    return (
        KNOWN.match(policy.vlm, Qwen2_5_VLForConditionalGeneration)
        and policy.vlm.lm_head.bias is None
        and is_known_backbone(policy)
        # `generate` finds a layer's keys and values in its cache by this number, not by the layer's place.
        and all(
            layer.self_attn.layer_idx == place for place, layer in enumerate(policy.vlm.model.language_model.layers)
        )
    )


__all__ = ["is_known_backbone", "is_known_expert", "is_known_generator"]
