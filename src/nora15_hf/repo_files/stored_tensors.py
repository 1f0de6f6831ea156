# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of a repo or folder, and the tensors in its safetensors files, read from the headers alone."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from transformers.utils import cached_file

from .json_files import read_json
from .verified_download import load_verified

FLOAT_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token", "subfolder")
_COPIED_AT_ONCE = 16 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in a safetensors file: bytes `start` to `end` of it, and how they are to be read."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        return self.end - self.start

    def chunks(self) -> Iterator[bytearray]:
        """The tensor's bytes, 16 MiB at a time, read and not memory-mapped: what was passed on need not be kept."""
        with open(self.file, "rb") as file:
            file.seek(self.start)
            for position in range(self.start, self.end, _COPIED_AT_ONCE):
                yield bytearray(file.read(min(_COPIED_AT_ONCE, self.end - position)))


def hub_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of a `from_pretrained` that say which files of a repo to take, and how."""
    return {name: arguments[name] for name in _HUB_OPTIONS if name in arguments}


def inside_folder(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """[`hub_options`] for a folder next to the files that they are for."""
    return {**options, "subfolder": f"{options.get('subfolder') or ''}/{name}".lstrip("/")}


def find_file(repo_or_folder: str | os.PathLike, name: str, **hub_options) -> Path | None:
    """A file of a repo or folder, downloaded and compared with its checksum if need be; None when it has no such file."""
    # Without a connection, a file that is not in the cache is one that the repo may well not have.
    offline = is_offline_mode() or hub_options.get("local_files_only", False)
    find = partial(
        cached_file,
        repo_or_folder,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not offline,
        **hub_options,
    )
    path = load_verified(find, repo_or_folder, cache_dir=hub_options.get("cache_dir"))
    return None if path is None else Path(path)


def stored_settings(repo_or_folder: str | os.PathLike, name: str, **hub_options) -> dict[str, Any]:
    """The content of a JSON file of a repo or folder, empty when it has none."""
    file = find_file(repo_or_folder, name, **hub_options)
    return {} if file is None else read_json(file)


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor to shard, from the index of a sharded checkpoint; a shard must be in the same folder as its index."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        outside = sorted({name for name in weight_map.values() if Path(name).name != name or "\\" in name})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not the index of a sharded checkpoint: {error!r}.") from error
    if outside:
        raise ValueError(
            f"{index} names {outside[:5]}, which lead out of its folder: files elsewhere on the machine are not read. Do "
            "not trust this checkpoint."
        )
    return weight_map


def read_header(file: Path, floats_only: bool = True) -> dict[str, StoredTensor]:
    """
    The tensors of one safetensors file, with every offset checked against the size of the file.

    Raises:
        ValueError: It is truncated or corrupted, or a pickle; with `floats_only` also, it holds other numbers.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start, brace = stream.read(8), stream.read(1)
        # The length of a header can begin with the same bytes as a pickle, which does not go on with a JSON object.
        if brace != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
            raise ValueError(
                f"{file} is a pickle with the name of a safetensors file. A pickle can run any code when it is opened and "
                "is refused; ask its author for safetensors."
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > size:
            raise ValueError(_damaged(file, f"{size} bytes do not even hold the header"))
        try:
            header = json.loads(brace + stream.read(length - 1))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            tensors = {
                name: StoredTensor(
                    file=file,
                    dtype=entry["dtype"],
                    shape=tuple(entry["shape"]),
                    start=8 + length + entry["data_offsets"][0],
                    end=8 + length + entry["data_offsets"][1],
                )
                for name, entry in entries.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(_damaged(file, f"its header is not readable ({error!r})")) from error
    end = max((tensor.end for tensor in tensors.values()), default=size)
    if end != size:
        raise ValueError(_damaged(file, f"the header describes {end} bytes, the file has {size}"))
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOAT_DTYPES and not floats_only:
            continue
        if tensor.dtype not in FLOAT_DTYPES:
            raise ValueError(
                f"{file} holds {name!r} as {tensor.dtype}, expected one of {sorted(FLOAT_DTYPES)}. Quantised weights? "
                "Take the full-precision checkpoint and quantise it when loading."
            )
        if tensor.num_bytes != torch.Size(tensor.shape).numel() * FLOAT_DTYPES[tensor.dtype].itemsize:
            raise ValueError(_damaged(file, f"{name!r} of shape {tensor.shape} has {tensor.num_bytes} bytes"))
    return tensors


def _damaged(file: Path, how: str) -> str:
    return f"{file} is truncated or corrupted: {how}. Download or save it again."


__all__ = [
    "FLOAT_DTYPES",
    "StoredTensor",
    "find_file",
    "hub_options",
    "inside_folder",
    "read_header",
    "read_weight_map",
    "stored_settings",
]
