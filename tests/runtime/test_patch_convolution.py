# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Patch embeddings as matrix products are the convolutions that they replace."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.runtime.patch_convolution import PatchConv3d
from nora15_hf.vjepa2_ac.presets import tiny_world_model

SIZES = st.tuples(*[st.integers(1, 3)] * 3)


@given(kernel=SIZES, grid=SIZES, left_over=SIZES, batch=st.integers(0, 2), bias=st.booleans())
def test_same_numbers_and_gradients_as_the_convolution(kernel, grid, left_over, batch, bias):
    convolution = nn.Conv3d(2, 3, kernel, stride=kernel, bias=bias, dtype=torch.float64)
    size = [patch * count + min(rest, patch) - 1 for patch, count, rest in zip(kernel, grid, left_over, strict=True)]
    pixels = torch.randn(batch, 2, *size, dtype=torch.float64, requires_grad=True)
    product = copy.deepcopy(convolution)
    product.__class__ = PatchConv3d
    outputs, gradients = [], []
    for module in (convolution, product):
        output = module(pixels)
        inputs = [pixels, *module.parameters()]
        outputs.append(output)
        gradients.append(torch.autograd.grad(output.square().sum(), inputs))
    torch.testing.assert_close(outputs[1], outputs[0])
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "model", [tiny_policy(seed=0)[0], tiny_world_model(image_size=28, action_dim=4)[0]], ids=["policy", "world model"]
)
def test_models_have_no_other_convolution(model):
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.Conv3d)]
    assert kinds == [PatchConv3d]
