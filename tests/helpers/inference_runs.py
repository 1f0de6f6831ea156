# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Policies whose inputs all matter, and the tolerance between inference and modules."""

import torch

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def widen(model):
    """Weights wide enough for every input to matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.normal_(std=0.6 * parameter[0].numel() ** -0.5, generator=generator)
            elif "bias" in name:
                parameter.normal_(std=0.1, generator=generator)
    return model.eval()
