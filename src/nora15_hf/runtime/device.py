# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which device models run on."""

import torch


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """
    A device after a look whether this machine has it.

    Args:
        device (`str` or `torch.device`, *optional*): Default: CUDA where there is a GPU, otherwise the CPU.

    Raises:
        ValueError: There is no such device here, or it computes nothing.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.empty(0, device=device).device
    # Builds of PyTorch without CUDA raise the latter.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here ({reason}). Use 'cpu', or omit it.") from error
    if found.type == "meta":
        raise ValueError("device='meta' holds shapes but no numbers, so nothing can be computed on it. Use 'cpu'.")
    return found


__all__ = ["usable_device"]
