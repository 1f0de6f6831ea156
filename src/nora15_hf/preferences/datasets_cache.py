# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The cache of the `datasets` library, without which no preference set can be read."""

import tempfile
from pathlib import Path

import datasets.config


def check_datasets_cache() -> None:
    """
    Called before work whose result is read through `datasets` at its end.

    Raises:
        OSError: the cache cannot be written, as in a home directory that is read-only.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"The cache of Hugging Face datasets, {folder}, cannot be written ({error.strerror}). Set the environment variable "
            "HF_HOME to a folder that can be written."
        ) from error


__all__ = ["check_datasets_cache"]
