# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What to write down about a model that data came from: its name and a digest of its weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """
    Hexadecimal digest of named tensors: equal names, types, shapes and bits, equal digest.

    Args:
        tensors (`Mapping[str, torch.Tensor]`): for example a model's `state_dict()`; on any device, in any dtype.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def artefact_name(name_or_path: str) -> str:
    """A Hub id as it is; of a local folder only its name, because its path would tell about the machine."""
    return Path(name_or_path).name if Path(name_or_path).is_dir() else name_or_path


__all__ = ["artefact_name", "fingerprint"]
