# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Keys and values of prompts on disk: made once by a frozen backbone, read through memory maps ever after."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import ProcessorMixin

from ...nora15.backbone_parts import PrefixCache
from ...nora15.modeling_nora15 import Nora15ForActionPrediction
from ...repo_files.fingerprint import fingerprint
from ...repo_files.written_whole import written_whole
from ..cache_folder import computation_settings, open_cache_folder
from .prompt_names import image_settings

KEY_VALUES = "prefix_key_values"
PREFIX_MASK = "prefix_mask"


class PrefixStore:
    """
    A folder with one safetensors file per prompt, and `cache.json`, which says which backbone made them.

    A file holds `key_values` `(layers, 2, key/value heads, length, head dimension)` of one prompt, without padding, and
    appears whole or not at all. Its name tells the prompt, so that datasets and splits share a folder. No file stays open
    between reads, so that the object can be sent to data-loading workers.

    Args:
        folder (`str` or `Path`): Created when it does not exist.
        settings (`Mapping[str, str]`): What keys and values depend on besides the prompt, see [`prefix_settings`].

    Raises:
        ValueError: The folder belongs to another backbone; the message says what differs.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, str]):
        self.folder = open_cache_folder(folder, settings, contents="prefixes", option="prefix_cache_dir")

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the names that have no file, each once."""
        return [name for name in dict.fromkeys(names) if not self._file(name).is_file()]

    def write(self, names: Sequence[str], prefix: PrefixCache, process: int) -> None:
        """
        Stores the prefixes of a batch.

        Args:
            names (`Sequence[str]`): Of its prompts.
            prefix ([`PrefixCache`]): Of left-padded prompts. Keys are rounded to the type of the values, as the action
                expert does before it reads them.
            process (`int`): Number of this process.
        """
        layers = [
            torch.stack([key.to(value.dtype), value], dim=1)
            for key, value in zip(prefix.keys, prefix.values, strict=True)
        ]
        rows = torch.stack(layers, dim=1).cpu()
        for name, row, length in zip(names, rows, prefix.mask.sum(-1).tolist(), strict=True):
            with written_whole(self._file(name), process=process) as part:
                save_file({"key_values": row[..., -length:, :].contiguous()}, part)

    def read(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """
        Prefixes as a left-padded batch.

        Returns:
            `prefix_key_values` `(batch, layers, 2, key/value heads, length, head dimension)`, 0 on padding, and
            `prefix_mask`, bool `(batch, length)`.

        Raises:
            ValueError: A file is damaged.
        """
        rows = [self._read(name) for name in names]
        layers, two, heads, _, head_dim = rows[0].shape
        length = max(row.shape[3] for row in rows)
        key_values = torch.zeros(len(rows), layers, two, heads, length, head_dim, dtype=rows[0].dtype)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for number, row in enumerate(rows):
            key_values[number, ..., length - row.shape[3] :, :] = row
            mask[number, length - row.shape[3] :] = True
        return {KEY_VALUES: key_values, PREFIX_MASK: mask}

    def _read(self, name: str) -> torch.Tensor:
        file = self._file(name)
        try:
            with safe_open(file, "pt") as content:
                return content.get_tensor("key_values")
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}). Remove it; the prompt is then encoded again.") from error

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def batch_prefix(inputs: Mapping[str, torch.Tensor]) -> PrefixCache | None:
    """The prefix in a batch that was made by [`PrefixStore.read`], None in one with images."""
    if KEY_VALUES not in inputs:
        return None
    keys, values = zip(*(layer.unbind(1) for layer in inputs[KEY_VALUES].unbind(1)), strict=True)
    return PrefixCache(keys, values, inputs[PREFIX_MASK], inputs.get("state"))


def prefix_settings(policy: Nora15ForActionPrediction, processor: ProcessorMixin, compute: str) -> dict[str, str]:
    """
    What keys and values depend on besides the prompt, by name.

    Args:
        policy ([`Nora15ForActionPrediction`]): Its backbone's weights and configuration.
        processor ([`Nora15Processor`]): Its sizes and statistics of images.
        compute (`str`): In which precision they are computed, accelerate's mixed precision.
    """
    return {
        "backbone": fingerprint(policy.vlm.state_dict()),
        "backbone_config": computation_settings(policy.config.vlm_config),
        "compute": compute,
        "processor": image_settings(processor),
    }


def token_bytes(policy: Nora15ForActionPrediction, compute: str) -> int:
    """Bytes that one token of a prompt takes on disk; `compute` as in [`prefix_settings`]."""
    text = policy.config.vlm_config.text_config
    numbers = 2 * text.num_hidden_layers * text.num_key_value_heads * text.hidden_size // text.num_attention_heads
    return numbers * (policy.get_input_embeddings().weight.dtype.itemsize if compute == "no" else 2)


__all__ = [
    "KEY_VALUES",
    "PREFIX_MASK",
    "PrefixStore",
    "batch_prefix",
    "prefix_settings",
    "token_bytes",
]
