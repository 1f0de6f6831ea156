# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A short name for a set of tensors."""

import hashlib
from collections.abc import Mapping

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


__all__ = ["fingerprint"]
