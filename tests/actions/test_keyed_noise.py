# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Noise is a function of its key, and the numbers of each key stay as stored rows and resumed runs expect them."""

import numpy as np
import pytest
import torch

from nora15_hf.actions.keyed_noise import keyed_noise, keyed_rng, keyed_torch_generator


def test_noise_of_a_key_depends_on_the_key_alone():
    together = keyed_noise([(3, 5), (3, 11), (2**100, 0, 1)], (2, 5, 4))
    assert together.shape == (3, 2, 5, 4)
    assert together.dtype == torch.float32
    for noise, key in zip(together, [(3, 5), (3, 11), (2**100, 0, 1)], strict=True):
        assert torch.equal(noise, keyed_noise([key], (2, 5, 4))[0])
    assert len({noise.sum().item() for noise in together}) == 3
    # The first chunk of several is that of one: a state's candidates begin as its single chunk does.
    assert torch.equal(together[:, 0], keyed_noise([(3, 5), (3, 11), (2**100, 0, 1)], (5, 4)))


def test_the_numbers_of_a_key_never_change():
    # NumPy's and PyTorch's generators seeded by hand, as stored preference rows and checkpoints were made.
    key = (42, 7, 3)
    by_hand = np.random.default_rng(key).standard_normal((5, 4), dtype=np.float32)
    np.testing.assert_array_equal(keyed_noise([key], (5, 4))[0].numpy(), by_hand)
    np.testing.assert_array_equal(keyed_rng(key).gumbel(size=9), np.random.default_rng(key).gumbel(size=9))
    torch_noise = torch.randn(40, generator=keyed_torch_generator(key))
    # PyTorch's generator takes the lower 32 bits of a seed, so that one and two words of the sequence are the same.
    for dtype in (np.uint32, np.uint64):
        seed = int(np.random.SeedSequence(key).generate_state(1, dtype)[0])
        assert torch.equal(torch_noise, torch.randn(40, generator=torch.Generator().manual_seed(seed)))
    assert keyed_rng(key).integers(0, 2**32, 3).tolist() == [1884131843, 2502572061, 636810698]


@pytest.mark.parametrize("key", [[1, 2], 7, (1, 2.0), ("1",)])
def test_keys_are_tuples_of_integers(key):
    for draw in (keyed_rng, keyed_torch_generator, lambda key: keyed_noise([key], (5, 4))):
        with pytest.raises(TypeError, match="must be a tuple of integers"):
            draw(key)


@pytest.mark.parametrize("key", [(), (0, -1)])
def test_keys_hold_numbers_that_are_not_negative(key):
    with pytest.raises(ValueError, match="at least one integer, and none may be negative"):
        keyed_rng(key)
