# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A tiny policy with random weights, its processor and its tokenizer: everything of the released one, without downloads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..actions.fast_codec import FastActionTokenizer
from ..actions.normalization import ActionStatistics, NormalizationMode
from ..embodiment.embodiment import Embodiment
from .configuration_nora15 import Nora15Config
from .modeling_nora15 import Nora15ForActionPrediction
from .processing_nora15 import Nora15Processor

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Qwen's template without its system prompt, which would be half of a tiny prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(texts: Sequence[str], num_action_tokens: int) -> PreTrainedTokenizerFast:
    """
    A byte-level BPE tokenizer with Qwen's special tokens and `<robot_action_i>`.

    Every text can be encoded, since all 256 bytes are in the vocabulary; the words of `texts` become single tokens.

    Args:
        texts (`list[str]`): Typical instructions.
        num_action_tokens (`int`): Size of the FAST vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, "user\n", "assistant\n", "system\n"], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_tokens([f"<robot_action_{i}>" for i in range(num_action_tokens)], special_tokens=True)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def tiny_policy(
    texts: Sequence[str] = ("open the faucet", "close the faucet", "press the button", "press the handle down"),
    *,
    image_size: int = 84,
    chunk_size: int = 5,
    action_dim: int = 4,
    action_codec: FastActionTokenizer | None = None,
    norm_stats: dict[str, ActionStatistics] | None = None,
    state_dim: int | None = None,
    state_stats: dict[str, ActionStatistics] | None = None,
    normalization_mode: NormalizationMode = "min_max",
    conventions: dict[str, dict[str, Any]] | None = None,
    embodiments: dict[str, Embodiment] | None = None,
    num_flow_samples: int = 4,
    seed: int = 0,
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """
    A NORA-1.5 policy of about 2.5 M parameters that learns a few Meta-World tasks in a minute or two on two CPU cores.

    Args:
        texts (`list[str]`): Instructions whose words become single tokens; other text works too.
        image_size (`int`, *optional*, defaults to 84): A multiple of 28, 56 to 112.
        chunk_size, action_dim (`int`): H and A.
        action_codec ([`FastActionTokenizer`], *optional*): Default: fitted on smooth random chunks.
        norm_stats (`dict[str, ActionStatistics]`, *optional*): Default: one dataset key `"default"`, range [-1, 1].
        state_dim (`int`, *optional*): Width of the robot state that the policy reads; it reads none by default.
        state_stats (`dict[str, ActionStatistics]`, *optional*): Of the state; default: range [-1, 1] for every key.
        normalization_mode (`str`, *optional*, defaults to `"min_max"`): See [`Nora15Processor`].
        conventions (`dict`, *optional*), embodiments (`dict`, *optional*): See [`Nora15Processor`].
        num_flow_samples (`int`, *optional*, defaults to 4): Noise draws per training sample.
        seed (`int`, *optional*, defaults to 0): Of the weights.

    Returns:
        [`Nora15ForActionPrediction`] in float32 and [`Nora15Processor`].
    """
    if norm_stats is None:
        norm_stats = {"default": _unit_range(action_dim)}
    if state_dim is not None and state_stats is None:
        state_stats = {key: _unit_range(state_dim) for key in norm_stats}
    if action_codec is None:
        steps = np.random.default_rng(0).normal(scale=0.4, size=(512, chunk_size, action_dim))
        action_codec = FastActionTokenizer.fit(np.clip(steps.cumsum(1), -1, 1), vocab_size=256)
    tokenizer = tiny_tokenizer(texts, action_codec.vocab_size)
    token_id = tokenizer.convert_tokens_to_ids
    config = Nora15Config(
        vlm_config={
            "text_config": {
                "vocab_size": len(tokenizer),
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 1024,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
                "bos_token_id": None,
                "eos_token_id": token_id("<|im_end|>"),
                "pad_token_id": token_id("<|endoftext|>"),
            },
            "vision_config": {
                "depth": 3,
                "hidden_size": 96,
                "intermediate_size": 288,
                "num_heads": 4,
                "out_hidden_size": 128,
                "fullatt_block_indexes": [0, 1, 2],
            },
            "image_token_id": token_id("<|image_pad|>"),
            "video_token_id": token_id("<|video_pad|>"),
            "vision_start_token_id": token_id("<|vision_start|>"),
            "vision_end_token_id": token_id("<|vision_end|>"),
            "tie_word_embeddings": True,
        },
        action_expert_config={"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4},
        chunk_size=chunk_size,
        action_dim=action_dim,
        state_dim=state_dim,
        num_flow_samples=num_flow_samples,
        action_token_start_id=token_id("<robot_action_0>"),
        num_action_tokens=action_codec.vocab_size,
    )
    # The caller's random state is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Nora15ForActionPrediction(config)
    processor = Nora15Processor(
        tokenizer,
        action_codec,
        norm_stats,
        image_size=image_size,
        chunk_size=chunk_size,
        action_dim=action_dim,
        state_dim=state_dim,
        state_stats=state_stats,
        normalization_mode=normalization_mode,
        conventions=conventions,
        embodiments=embodiments,
    )
    return model.eval(), processor


def _unit_range(width: int) -> ActionStatistics:
    return ActionStatistics.from_actions(np.stack([-np.ones(width), np.ones(width)]).astype(np.float32))


__all__ = ["tiny_policy", "tiny_tokenizer"]
