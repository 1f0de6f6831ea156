# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A folder of values that a frozen network computed once, tied to what they were computed from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..repo_files.json_files import read_json, write_json

SETTINGS_FILE = "cache.json"
# What of a configuration only says how a model is called, made or asked for its outputs.
_WITHOUT_EFFECT = {
    "_name_or_path", "architectures", "chunk_size_feed_forward", "dtype", "id2label", "initializer_range", "label2id",
    "output_attentions", "output_hidden_states", "problem_type", "return_dict", "transformers_version", "use_cache",
}  # fmt: skip


def computation_settings(config: PreTrainedConfig) -> str:
    """
    What of a model's configuration its outputs may depend on besides the weights, as JSON: everything that is not known to
    have no effect.
    """

    def effective(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: effective(value) for name, value in values.items() if name not in _WITHOUT_EFFECT}

    return json.dumps(effective(config.to_dict()), sort_keys=True, default=str)


def open_cache_folder(folder: str | Path, settings: Mapping[str, str], *, contents: str, option: str) -> Path:
    """
    Makes the folder with `cache.json`, or checks that the one that is there belongs to the same settings.

    Args:
        folder (`str` or `Path`): Created when it does not exist.
        settings (`Mapping[str, str]`): What the values depend on.
        contents (`str`): How messages call the values.
        option (`str`): The option that names the folder.

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: The folder holds values that were made from something else, and says what differs, or other files.
    """
    folder = Path(folder)
    record = folder / SETTINGS_FILE
    if record.is_file():
        found = read_json(record)
        differences = [
            f"{name} was {found.get(name)!r}, is {settings.get(name)!r}"
            for name in sorted(found | settings)
            if found.get(name) != settings.get(name)
        ]
        if differences:
            raise ValueError(
                f"The {contents} in {folder} were created from something else: {'; '.join(differences)}. Remove that folder "
                f"to create them again, or choose another one with {option}."
            )
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and not a cache of {contents}: it has no {SETTINGS_FILE}. Choose another {option}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, dict(settings))
    return folder


__all__ = ["SETTINGS_FILE", "computation_settings", "open_cache_folder"]
