# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A short name for a set of weights."""

import hashlib

import torch


def weights_fingerprint(model: torch.nn.Module) -> str:
    """
    Hexadecimal digest of all parameters and buffers that a checkpoint would hold: equal weights, equal digest.

    Args:
        model (`torch.nn.Module`): on any device, in any dtype.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


__all__ = ["weights_fingerprint"]
