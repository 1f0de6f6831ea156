# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A checkpoint in a repo or folder: its configuration and its safetensors weights, each looked up once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers.utils import ADAPTER_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .stored_tensors import StoredTensor, find_file, hub_options, read_header, read_weight_map, stored_settings

MODEL_TYPES = {"nora15": "policy", "vjepa2_ac": "world model"}
"""What a model of this package is called, by the `model_type` of its `config.json`."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Checkpoint:
    """
    Where weights are loaded from, to be handed down by whoever loads them.

    Args:
        source (`str` or `os.PathLike`, *optional*): Hub id or folder; None for weights that are in memory.
        hub_options (`Mapping[str, Any]`, *optional*): `revision`, `token`, `cache_dir`, `local_files_only`,
            `force_download`, `subfolder`; see [`~nora15_hf.repo_files.stored_tensors.hub_options`].
        variant (`str`, *optional*): Of the weights, for example `"bf16"` for `model.bf16.safetensors`.
    """

    source: str | os.PathLike | None
    hub_options: Mapping[str, Any] = field(default_factory=dict)
    variant: str | None = None

    @classmethod
    def of_arguments(cls, source: str | os.PathLike | None, arguments: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint that the arguments of a `from_pretrained` name."""
        return cls(source, hub_options(arguments), arguments.get("variant"))

    @property
    def name(self) -> str:
        """How messages call it."""
        return "`state_dict`" if self.source is None else repr(str(self.source))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of `config.json`, empty when there is none; raises a `ValueError` when it is damaged."""
        return stored_settings(self.source, "config.json", **self.hub_options)

    def refuse_other_model(self, model_type: str) -> None:
        """
        Raises:
            ValueError: `config.json` names another model than one of this `model_type`.
        """
        found = self.settings.get("model_type", model_type)
        if found != model_type:
            kind = f"a {MODEL_TYPES[found]}" if found in MODEL_TYPES else f"a model of type {found!r}"
            raise ValueError(f"{str(self.source)!r} holds {kind}, expected a {MODEL_TYPES[model_type]}.")

    def refuse_native(self) -> None:
        """
        For conversions.

        Raises:
            ValueError: A model of this package, which needs none.
        """
        if self.settings.get("model_type") in MODEL_TYPES:
            raise ValueError(
                f"{str(self.source)!r} is already a native repo, that of a {MODEL_TYPES[self.settings['model_type']]}: "
                "AutoModel.from_pretrained loads it as it is."
            )

    @cached_property
    def weights(self) -> Path:
        """
        `model.safetensors`, or the index of its shards, which can only lie beside it; with a variant, that one's.

        Raises:
            OSError: There are no safetensors files, perhaps pickles instead.
            ValueError: The index is damaged or leads out of its folder.
        """
        names = [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME]
        if self.variant is not None:
            names = [f"{Path(name).stem}.{self.variant}{Path(name).suffix}" for name in names]
        for name in names:
            file = find_file(self.source, name, **self.hub_options)
            if file is not None:
                if file.suffix == ".json":
                    read_weight_map(file)
                return file
        folder = Path(self.source, self.hub_options.get("subfolder") or "")
        pickles = sorted(file.name for file in folder.glob("*") if file.suffix in _PICKLES)
        if find_file(self.source, ADAPTER_CONFIG_NAME, **self.hub_options) is not None:
            found = (
                f"It holds {ADAPTER_CONFIG_NAME}: these are adapters. Load what they were trained on and put them on it, a policy "
                "with nora15_hf.trainers.load_merged_policy(base, adapters), other models with peft.PeftModel.from_pretrained."
            )
        elif pickles:
            found = f"Found {pickles}: a pickle can run any code when it is opened and is refused. Ask its author for safetensors."
        else:
            found = (
                "Check the repo's name, its revision and, without a connection, whether it was downloaded completely."
            )
        raise OSError(f"{str(self.source)!r} has neither {names[0]} nor {names[1]}. {found}")

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """
        All tensors by the name they are stored under, read from the headers alone.

        Raises:
            OSError: As `weights`, or a shard is missing.
            ValueError: A file is truncated or corrupted, or the index and the shards contradict each other.
        """
        tensors = {name: tensor for file in self._files() for name, tensor in read_header(file).items()}
        index = self.weights
        if index.suffix == ".json" and tensors.keys() != (weight_map := read_weight_map(index)).keys():
            different = sorted(tensors.keys() ^ weight_map.keys())
            raise ValueError(
                f"{index} and the shards disagree on {len(different)} tensor(s), for example {different[:5]}. The files "
                "are of different versions: download all of them again."
            )
        return tensors

    def check_complete(self) -> None:
        """
        Raises:
            OSError: As `weights`, or a shard is missing.
            ValueError: A file of the weights is truncated or corrupted.
        """
        for file in self._files():
            read_header(file, floats_only=False)

    def _files(self) -> list[Path]:
        """The safetensors files of the weights."""
        if self.weights.suffix == ".safetensors":
            return [self.weights]
        files = []
        for name in sorted(set(read_weight_map(self.weights).values())):
            file = find_file(self.source, name, **self.hub_options)
            if file is None:
                raise OSError(
                    f"{str(self.source)!r} lacks {name}, which its {self.weights.name} names. Download it again."
                )
            files.append(file)
        return files


__all__ = ["MODEL_TYPES", "Checkpoint"]
