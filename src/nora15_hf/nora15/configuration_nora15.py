# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of the NORA-1.5 policy: a Qwen2.5-VL backbone and a flow-matching action expert."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, Qwen2_5_VLConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class Nora15ActionExpertConfig(PreTrainedConfig):
    r"""
    Configuration of the action expert: a shrunk Qwen2.5-VL text decoder without token embedding whose every layer
    attends to the same layer of the backbone. Its number of layers, its key/value heads and its head dimension are
    those of the backbone and are therefore not configured here.

    Args:
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the expert; `hidden_size / num_attention_heads` must equal the backbone's head dimension.
        intermediate_size (`int`, *optional*, defaults to 2048):
            Width of the SwiGLU feed-forward layers.
        num_attention_heads (`int`, *optional*, defaults to 6):
            Query heads; a multiple of the backbone's key/value heads.
        hidden_act (`str`, *optional*, defaults to `"silu"`):
            Activation of the feed-forward layers.
        rms_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the RMS norms.
        rope_theta (`float`, *optional*, defaults to 10000.0):
            Base of the expert's own rotary embedding, which always counts 0 ... chunk_size - 1.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.
    """

    model_type = "nora15_action_expert"
    base_config_key = "action_expert_config"

    hidden_size: int = 768
    intermediate_size: int = 2048
    num_attention_heads: int = 6
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    initializer_range: float = 0.02


@strict
class Nora15Config(PreTrainedConfig):
    r"""
    Configuration of [`Nora15ForActionPrediction`]. The defaults are the released 3 B model `declare-lab/nora-1.5`.

    Args:
        vlm_config (`Qwen2_5_VLConfig` or `dict`, *optional*):
            The backbone; Qwen2.5-VL-3B by default.
        action_expert_config (`Nora15ActionExpertConfig` or `dict`, *optional*):
            The flow-matching expert.
        chunk_size (`int`, *optional*, defaults to 5):
            Actions per chunk, H.
        action_dim (`int`, *optional*, defaults to 7):
            Dimensions of one action, A.
        state_dim (`int`, *optional*):
            Width of the robot state that the expert reads as one more token; the released model has no such input.
        num_inference_steps (`int`, *optional*, defaults to 10):
            Solver steps of `sample_actions` when none are asked for.
        flow_loss_weight (`float`, *optional*, defaults to 10.0):
            Weight of the flow-matching loss beside the FAST-token cross-entropy (paper, appendix C).
        num_flow_samples (`int`, *optional*, defaults to 1):
            Draws of noise and time per training sample; all share one backbone pass.
        action_token_start_id (`int`, *optional*, defaults to 151665):
            Vocabulary id of `<robot_action_0>`.
        num_action_tokens (`int`, *optional*, defaults to 2048):
            Number of FAST tokens in the vocabulary.
        time_sampling_beta_alpha, time_sampling_beta_beta (`float`, *optional*, defaults to 1.5 and 1.0):
            Parameters of the Beta distribution that training times are drawn from.
        time_sampling_scale, time_sampling_offset (`float`, *optional*, defaults to 0.999 and 0.001):
            The drawn value is scaled and shifted by these.
        min_period, max_period (`float`, *optional*, defaults to 4e-3 and 4.0):
            Range of the periods of the sinusoidal time embedding.

    Example:

    ```python
    >>> from nora15_hf import Nora15Config, Nora15ForActionPrediction

    >>> config = Nora15Config(chunk_size=8, action_dim=4)
    >>> config.vlm_config.text_config.num_hidden_layers
    36
    ```
    """

    model_type = "nora15"
    sub_configs_defaults = {
        "vlm_config": SubConfigSpec(
            config_class=Qwen2_5_VLConfig,
            init_kwargs={
                "text_config": {
                    "vocab_size": 153713,
                    "hidden_size": 2048,
                    "intermediate_size": 11008,
                    "num_hidden_layers": 36,
                    "num_attention_heads": 16,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 128000,
                    "rms_norm_eps": 1e-6,
                    "rope_parameters": {
                        "rope_type": "default",
                        "rope_theta": 1000000.0,
                        "mrope_section": [16, 24, 24],
                    },
                },
                "vision_config": {
                    "depth": 32,
                    "hidden_size": 1280,
                    "intermediate_size": 3420,
                    "num_heads": 16,
                    "out_hidden_size": 2048,
                    "tokens_per_second": 2,
                },
                "tie_word_embeddings": True,
            },
        ),
        "action_expert_config": Nora15ActionExpertConfig,
    }

    vlm_config: dict | PreTrainedConfig | None = None
    action_expert_config: dict | PreTrainedConfig | None = None
    chunk_size: int = 5
    action_dim: int = 7
    state_dim: int | None = None
    num_inference_steps: int = 10
    flow_loss_weight: float = 10.0
    num_flow_samples: int = 1
    action_token_start_id: int = 151665
    num_action_tokens: int = 2048
    time_sampling_beta_alpha: float = 1.5
    time_sampling_beta_beta: float = 1.0
    time_sampling_scale: float = 0.999
    time_sampling_offset: float = 0.001
    min_period: float = 4e-3
    max_period: float = 4.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        # `save_pretrained` and weight tying look at the outermost config.
        self.tie_word_embeddings = self.vlm_config.tie_word_embeddings

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The backbone's text configuration: the one that has a vocabulary and a pad token."""
        return self.vlm_config.text_config

    def validate_architecture(self):
        """Called by `@strict`: checks what has to agree between backbone and expert."""
        text, expert = self.vlm_config.text_config, self.action_expert_config
        head_dim = text.hidden_size // text.num_attention_heads
        if expert.num_attention_heads * head_dim != expert.hidden_size:
            raise ValueError(
                f"action_expert_config.hidden_size={expert.hidden_size} with num_attention_heads="
                f"{expert.num_attention_heads} gives a head dimension of "
                f"{expert.hidden_size / expert.num_attention_heads:g}, but the expert attends to the backbone's keys, "
                f"whose head dimension is {head_dim}. Set hidden_size = {head_dim} * num_attention_heads."
            )
        if expert.num_attention_heads % text.num_key_value_heads:
            raise ValueError(
                f"action_expert_config.num_attention_heads={expert.num_attention_heads} must be a multiple of the "
                f"backbone's num_key_value_heads={text.num_key_value_heads}, whose heads it shares."
            )
        for name in ("chunk_size", "action_dim", "num_inference_steps", "num_flow_samples", "num_action_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.state_dim is not None and self.state_dim < 1:
            raise ValueError(
                f"state_dim={self.state_dim} must be at least 1, or None for a policy without a state input."
            )
        if "sliding_attention" in text.layer_types:
            raise ValueError(
                "vlm_config.text_config has layers with sliding attention, which the policy's backbone does not support. Set "
                "use_sliding_window=False."
            )
        last_action_token = self.action_token_start_id + self.num_action_tokens - 1
        if last_action_token >= text.vocab_size:
            raise ValueError(
                f"The FAST tokens end at id {last_action_token} (action_token_start_id={self.action_token_start_id}, "
                f"num_action_tokens={self.num_action_tokens}), outside the backbone's vocabulary of "
                f"{text.vocab_size}. Enlarge vlm_config.text_config.vocab_size or correct the two values."
            )


__all__ = ["Nora15ActionExpertConfig", "Nora15Config"]
