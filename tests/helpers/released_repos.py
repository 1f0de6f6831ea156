# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Imitations of the published repos: the released key set, vocabulary and files, random weights, any width."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nora15_hf.nora15 import Nora15Config, Nora15ForActionPrediction
from nora15_hf.nora15.presets import CHAT_TEMPLATE

QWEN_SPECIAL_TOKENS = re.findall(
    r"\S+",
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> <tool_call> "
    "</tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>",
)


def scaled_config(layers: int = 36, vision_blocks: int = 32, width: int = 256) -> Nora15Config:
    """The released proportions; the default is 1/8 of the released width at the released depth and vocabulary."""
    heads = width // 16
    return Nora15Config(
        vlm_config={
            "text_config": {
                "vocab_size": 153713,
                "hidden_size": width,
                "intermediate_size": width * 43 // 8,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
                "pad_token_id": 151643,
            },
            "vision_config": {
                "depth": vision_blocks,
                "hidden_size": width * 5 // 8,
                "intermediate_size": width * 5 // 3,
                "num_heads": 2,
                "out_hidden_size": width,
                "fullatt_block_indexes": [vision_blocks - 1],
            },
            "tie_word_embeddings": True,
        },
        action_expert_config={
            "hidden_size": max(3 * heads // 8, 2) * 16,
            "intermediate_size": 256,
            "num_attention_heads": max(3 * heads // 8, 2),
        },
    )


def random_weights(config: Nora15Config, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Weights under the released names, without the tied LM head."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.empty(shape, dtype=dtype).normal_(0, 0.02, generator=generator)
        for name, shape in Nora15ForActionPrediction.expected_shapes(config).items()
        if name != "vlm.lm_head.weight"
    }


def write_weights(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer with Qwen's and NORA's ids: 151643 words, 22 special tokens, 2048 `<robot_action_i>`."""
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    words += [f"unused{i}" for i in range(151643 - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    wrapped.add_tokens(QWEN_SPECIAL_TOKENS, special_tokens=True)
    wrapped.add_tokens([f"<robot_action_{i}>" for i in range(2048)])
    wrapped.add_special_tokens({"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    return folder


def write_norm_stats(folder: Path, dimensions: int = 7) -> Path:
    """Two robots in the OpenVLA layout; the gripper is left raw."""
    action = {
        "q01": [-0.1 * (i + 1) for i in range(dimensions)],
        "q99": [0.2 * (i + 1) for i in range(dimensions)],
        "mask": [True] * (dimensions - 1) + [False],
    }
    stats = {key: {"action": action, "num_transitions": 10} for key in ("bridge_orig", "fractal20220817_data")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "norm_stats.json").write_text(json.dumps(stats))
    return folder


def hub_cache(cache: Path, repos: dict[str, Path]) -> Path:
    """A Hub cache that holds the given folders as downloaded repos, revision `main`."""
    for repo_id, folder in repos.items():
        root = cache / f"models--{repo_id.replace('/', '--')}"
        snapshot = root / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
        snapshot.parent.mkdir(parents=True)
        snapshot.symlink_to(folder.resolve())
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(snapshot.name)
    return cache
