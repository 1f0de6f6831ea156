# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which weight files of a repo are read: safetensors beside their index."""

import json
import os
from pathlib import Path

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token", "subfolder")


def check_weight_files(repo_or_folder: str | os.PathLike, **options) -> None:
    """
    Refuses a repo or folder whose weights are no safetensors, or lie outside of it.

    Asked before transformers looks, which joins the names in an index to the path of a folder, and for a repo with
    nothing but a pickle takes weights from a pull request of its conversion bot.

    Args:
        repo_or_folder (`str` or `os.PathLike`): Hub id or folder.
        options: Keyword arguments of `from_pretrained`, of which those for the Hub are used.

    Raises:
        OSError: There are no safetensors files.
        ValueError: The index of the shards is damaged or leads out of its folder.
    """
    hub_options = {name: options[name] for name in _HUB_OPTIONS if name in options}
    optional = {"_raise_exceptions_for_missing_entries": False, **hub_options}
    if cached_file(repo_or_folder, SAFE_WEIGHTS_NAME, **optional) is not None:
        return
    index = cached_file(repo_or_folder, SAFE_WEIGHTS_INDEX_NAME, **optional)
    if index is None:
        raise OSError(
            f"{str(repo_or_folder)!r} has neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}. Weights in a pickle "
            "(.bin, .pt) can run any code when they are opened and are refused: ask their author for safetensors."
        )
    try:
        shards = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
        outside = sorted({name for name in shards if Path(name).name != name or "\\" in name})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not the index of a sharded checkpoint: {error!r}.") from error
    if outside:
        raise ValueError(
            f"{index} names {outside[:5]}, which lead out of its folder: files elsewhere on the machine are not read. Do "
            "not trust this checkpoint."
        )


__all__ = ["check_weight_files"]
