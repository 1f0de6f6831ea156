# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Safetensors files written from tensors that lie in other files, without holding any of them in memory."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .stored_tensors import FLOAT_DTYPES, StoredTensor


@dataclass(frozen=True)
class ConvertedTensor:
    """One tensor of the new repo. `origin` is a tensor of the source, or the values of a new one."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    origin: StoredTensor | torch.Tensor

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * FLOAT_DTYPES[self.dtype].itemsize

    def chunks(self) -> Iterator[bytearray | memoryview]:
        if isinstance(self.origin, StoredTensor):
            yield from self.origin.chunks()
        else:
            yield memoryview(self.origin.view(torch.uint8).numpy().reshape(-1))


def write_shards(folder: Path, tensors: list[ConvertedTensor], max_shard_size: int, source: str) -> list[str]:
    """
    Writes the safetensors files and, for several, their index.

    Args:
        folder (`Path`): Where to.
        tensors (`list[ConvertedTensor]`): What, in this order.
        max_shard_size (`int`): Bytes per file.
        source (`str`): How the message calls the checkpoint.

    Returns:
        `list[str]`: Names of the safetensors files.

    Raises:
        ValueError: Some values are not finite.
    """
    shards: list[list[ConvertedTensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(entry.num_bytes for entry in shards[-1]) + tensor.num_bytes > max_shard_size:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        names = [SAFE_WEIGHTS_NAME]
    else:
        stem, suffix = SAFE_WEIGHTS_NAME.split(".")
        names = [f"{stem}-{i:05d}-of-{len(shards):05d}.{suffix}" for i in range(1, len(shards) + 1)]
    broken = [
        name for file, shard in zip(names, shards, strict=True) for name in _write_safetensors(folder / file, shard)
    ]
    if broken:
        raise ValueError(
            f"{len(broken)} tensor(s) in {source!r} hold NaN or infinity: {broken[:5]}. The checkpoint is damaged or its "
            "training diverged; nothing was written."
        )
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.num_bytes for tensor in tensors)},
            "weight_map": {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
        }
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return names


def _write_safetensors(file: Path, tensors: Iterable[ConvertedTensor]) -> list[str]:
    """Streams tensors into one file and returns the names of those with NaN or infinity."""
    header, position, broken = {"__metadata__": {"format": "pt"}}, 0, []
    for tensor in tensors:
        offsets = [position, position := position + tensor.num_bytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # The format wants the data aligned to 8 bytes and allows spaces behind the header.
    encoded += b" " * (-len(encoded) % 8)
    with open(file, "wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            finite = True
            for chunk in tensor.chunks():
                values = torch.frombuffer(chunk, dtype=FLOAT_DTYPES[tensor.dtype])
                finite = finite and all(extreme.isfinite() for extreme in values.aminmax())
                stream.write(chunk)
            if not finite:
                broken.append(tensor.name)
    return broken


def tensor_table(tensors: Sequence[ConvertedTensor], new: str = "new") -> list[str]:
    """One line per kind of tensor: name with the layer's number as *, count, shape, dtype, bytes, where it came from."""
    groups: dict[tuple[str, tuple[int, ...], str, str], list[ConvertedTensor]] = {}
    for tensor in tensors:
        origin = tensor.origin.file.name if isinstance(tensor.origin, StoredTensor) else new
        pattern = re.sub(r"\.\d+\.", ".*.", tensor.name)
        groups.setdefault((pattern, tensor.shape, tensor.dtype, origin), []).append(tensor)
    width = max(len(pattern) for pattern, *_ in groups)
    return [
        f"{pattern:<{width}}  {len(group):>3} x {list(shape)!s:<18} {dtype:<4} "
        f"{sum(tensor.num_bytes for tensor in group):>13,} bytes  {origin}"
        for (pattern, shape, dtype, origin), group in groups.items()
    ]


__all__ = ["ConvertedTensor", "tensor_table", "write_shards"]
