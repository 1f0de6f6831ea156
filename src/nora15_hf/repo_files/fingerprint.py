# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Fingerprints that identify weights, files and rows, and names for their sources."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def digest(parts: Iterable[bytes | np.ndarray], num_bytes: int = 16) -> str:
    """
    Hexadecimal digest of bytes that follow one another.

    Args:
        parts (`Iterable[bytes | np.ndarray]`): Where one part ends and the next begins does not count.
        num_bytes (`int`, *optional*, defaults to 16): Length of the digest, of which each takes two characters.
    """
    hasher = hashlib.blake2b(digest_size=num_bytes)
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def file_digest(file: Path) -> bytes:
    """Digest of a file's content, 64 bytes, to be a part of [`digest`]."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "blake2b").digest()


def fingerprint(tensors: Mapping[str, "torch.Tensor"], *, rounded_to: "torch.dtype | None" = None) -> str:
    """
    Hexadecimal digest of named tensors: equal names, types, shapes and bits, equal digest.

    Args:
        tensors (`Mapping[str, torch.Tensor]`): for example a model's `state_dict()`; on any device, in any dtype.
        rounded_to (`torch.dtype`, *optional*): round all of them to this type first.
    """

    # Imported here: digests of files and settings do without it, so that `nora15 quickstart --help` is quick.
    import torch

    def parts() -> Iterator[bytes | np.ndarray]:
        for name, tensor in sorted(tensors.items()):
            tensor = tensor.detach().to(rounded_to or tensor.dtype)
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()

    return digest(parts())


def artefact_name(name_or_path: str) -> str:
    """A Hub id unchanged; of a local folder only its name, because its path would reveal details of the machine."""
    return Path(name_or_path).name if Path(name_or_path).is_dir() else name_or_path


__all__ = ["artefact_name", "digest", "file_digest", "fingerprint"]
