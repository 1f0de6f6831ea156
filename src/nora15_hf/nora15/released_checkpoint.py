# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints as the NORA authors publish them: bare safetensors whose sizes are read from, and checked by, the header.

`declare-lab/nora-1.5` holds `vlm.*`, `action_expert.*` and four heads, and no `config.json` that names an architecture.
`declare-lab/nora` and `nora-long` are the backbone alone, in the layout of `Qwen2_5_VLForConditionalGeneration`.
"""

import re
from collections.abc import Mapping

from ..repo_files.checkpoint import MODEL_TYPES, Checkpoint
from ..repo_files.stored_tensors import StoredTensor
from .configuration_nora15 import Nora15Config

EMBEDDING = "vlm.model.language_model.embed_tokens.weight"
TIED_HEAD = "vlm.lm_head.weight"
EXPERT_PREFIXES = (
    "action_expert.",
    "action_in_proj.",
    "action_out_proj.",
    "action_time_mlp_in.",
    "action_time_mlp_out.",
)

_BACKBONE_PREFIXES = ("vlm.", "visual.", "model.", "lm_head.")
# Names of Qwen2.5-VL's first release, before transformers 4.52, and those of today.
_LEGACY_NAMES = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?=(layers|embed_tokens|norm)\.)"), "model.language_model."),
)
# What a human calls the sizes that decide between one architecture and another: a tensor and one of its axes.
_WIDTHS = {
    "text width": (EMBEDDING, 1),
    "vocabulary": (EMBEDDING, 0),
    "text feed-forward width": ("vlm.model.language_model.layers.0.mlp.up_proj.weight", 0),
    "key/value width": ("vlm.model.language_model.layers.0.self_attn.k_proj.weight", 0),
    "vision width": ("vlm.model.visual.patch_embed.proj.weight", 0),
    "expert width": ("action_in_proj.weight", 0),
    "expert feed-forward width": ("action_expert.layers.0.mlp.up_proj.weight", 0),
    "action dimensions": ("action_in_proj.weight", 1),
}
_DEPTHS = {
    "text layers": "vlm.model.language_model.layers.",
    "vision blocks": "vlm.model.visual.blocks.",
    "expert layers": "action_expert.layers.",
}


def is_native(checkpoint: Checkpoint) -> bool:
    """
    Whether this package wrote the checkpoint: its `config.json` names the model type.

    Raises:
        ValueError: It is another model of this package.
    """
    if checkpoint.settings.get("model_type") in MODEL_TYPES:
        checkpoint.refuse_other_model(Nora15Config.model_type)
        return True
    return False


def native_name(name: str) -> str:
    """The name in this package of a tensor stored under a released name, of the policy or of a backbone alone."""
    if not name.startswith(_BACKBONE_PREFIXES):
        return name
    name = name.removeprefix("vlm.")
    for pattern, replacement in _LEGACY_NAMES:
        name = pattern.sub(replacement, name)
    return f"vlm.{name}"


def has_expert(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the checkpoint is a whole policy and not a backbone alone."""
    return any(name.startswith(EXPERT_PREFIXES) for name in tensors)


def released_config(tensors: Mapping[str, StoredTensor]) -> Nora15Config:
    """
    The released configuration, for as many vocabulary rows as the checkpoint has (some tables are padded).

    Nothing else is taken from the checkpoint, since [`check_tensors`] compares it. Chunk length and flow settings leave
    no trace in the weights: they are those of the released code.
    """
    config = Nora15Config()
    text_config = config.vlm_config.text_config
    # Qwen's <|endoftext|>, which the released processor pads with.
    text_config.pad_token_id = 151643
    by_native_name = {native_name(name): tensor for name, tensor in tensors.items()}
    for name in (EMBEDDING, TIED_HEAD):
        if name in by_native_name:
            text_config.vocab_size = by_native_name[name].shape[0]
            break
    config.validate_architecture()
    return config


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str, tied: bool = True
) -> None:
    """
    Refuses a checkpoint that is not exactly the expected one, before anything is allocated.

    Args:
        found, expected (`Mapping[str, tuple[int, ...]]`): Shapes by native name.
        source (`str`): How the message calls the checkpoint.
        tied (`bool`): Whether embedding and LM head are one matrix, of which either name may be left out.

    Raises:
        ValueError: Listing the sizes that differ, and missing, unexpected and mismatched tensors.
    """
    missing = expected.keys() - found.keys()
    if tied and not {EMBEDDING, TIED_HEAD} <= missing:
        missing -= {EMBEDDING, TIED_HEAD}
    problems = {
        "missing": sorted(missing),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(found[name])} instead of {tuple(expected[name])}"
            for name in sorted(found.keys() & expected.keys())
            if tuple(found[name]) != tuple(expected[name])
        ],
    }
    if not any(problems.values()):
        return
    sizes, expected_sizes = _sizes(found), _sizes(expected)
    differences = [
        f"{name} {sizes[name]} instead of {size}"
        for name, size in expected_sizes.items()
        if name in sizes and sizes[name] != size
    ]
    architecture = f" It is another architecture: {', '.join(differences)}." if differences else ""
    lists = "; ".join(f"{len(names)} {kind}: {names[:5]}" for kind, names in problems.items() if names)
    raise ValueError(
        f"The weights in {source!r} are not those of the expected NORA-1.5 configuration.{architecture} {lists}. Nothing "
        "was loaded. Correct the checkpoint, or pass the `config` it was trained with."
    )


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The sizes that are named in `_WIDTHS` and `_DEPTHS`, as far as their tensors are there."""
    sizes = {
        size: shapes[name][axis]
        for size, (name, axis) in _WIDTHS.items()
        if name in shapes and axis < len(shapes[name])
    }
    for size, prefix in _DEPTHS.items():
        layers = {name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}
        if layers:
            sizes[size] = len(layers)
    return sizes


__all__ = [
    "EMBEDDING",
    "TIED_HEAD",
    "check_tensors",
    "has_expert",
    "is_native",
    "native_name",
    "released_config",
]
