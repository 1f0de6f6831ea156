# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Patch embeddings as matrix products."""

import torch
import torch.nn.functional as F
from torch import nn


class PatchConv3d(nn.Conv3d):
    """
    A convolution whose stride is its kernel, computed as a matrix product: the same numbers up to rounding, several times faster
    forward and backward on CPUs, and without the slow kernels that GPUs choose for such a convolution in bfloat16.

    It is a module like any other, so it can be wrapped, hooked and sharded. A model sets it as the class of a convolution that it
    got from transformers; the parameters stay as they are. Padding, dilation and groups are not read.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input (`torch.Tensor` of shape `(batch, channels, frames, height, width)`): What is left over behind the last
                whole patch is not read, as in the convolution.

        Returns:
            `torch.Tensor` of shape `(batch, out_channels, patches in time, patches in height, patches in width)`
        """
        batch, channels, *size = input.shape
        grid = [length // patch for length, patch in zip(size, self.kernel_size, strict=True)]
        for axis, (count, patch) in enumerate(zip(grid, self.kernel_size, strict=True), start=2):
            input = input.narrow(axis, 0, count * patch)
        (t, h, w), (dt, dh, dw) = grid, self.kernel_size
        patches = input.reshape(batch, channels, t, dt, h, dh, w, dw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return F.linear(patches.flatten(4), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


__all__ = ["PatchConv3d"]
