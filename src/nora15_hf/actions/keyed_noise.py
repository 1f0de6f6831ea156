# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Random numbers as functions of a key, a tuple of integers such as (seed, row of the dataset).

What is drawn for a key depends neither on the rest of the batch nor on what was drawn before. So an episode, a
preference row or a training step can be computed again alone, in another batch or by another number of processes.
"""

from collections.abc import Sequence

import numpy as np
import torch

NoiseKey = tuple[int, ...]

# What tells the random numbers of a state apart that are not its flow's noise; they stand in their keys behind (seed, row).
NOISY_NEGATIVES, RANDOM_PAIRS, TOKENS = 1, 2, 3


def keyed_noise(keys: Sequence[NoiseKey], shape: Sequence[int]) -> torch.FloatTensor:
    """
    Standard normal noise, one array per key.

    Args:
        keys (`Sequence[tuple[int, ...]]`): What the noise of each array depends on, see [`keyed_rng`].
        shape (`Sequence[int]`): Of one array, for example `(chunk_size, action_dim)`.

    Returns:
        `torch.FloatTensor` of shape `(len(keys), *shape)`, float32, on the CPU.
    """
    noise = np.empty((len(keys), *shape), dtype=np.float32)
    for array, key in zip(noise, keys, strict=True):
        keyed_rng(key).standard_normal(dtype=np.float32, out=array)
    return torch.from_numpy(noise)


def keyed_rng(key: NoiseKey) -> np.random.Generator:
    """
    NumPy's generator for a key.

    Args:
        key (`tuple[int, ...]`):
            At least one integer, none negative. Order counts; zeros at the end of a short key do not, `(7, 0)` is the
            key `(7,)`: what tells two uses apart must be another number than zero.

    Raises:
        TypeError: The key is not a tuple of integers.
        ValueError: It is empty, or an integer is negative.
    """
    return np.random.default_rng(_seed_sequence(key))


def keyed_torch_generator(key: NoiseKey) -> torch.Generator:
    """PyTorch's generator for a key, on the CPU, so that its numbers do not depend on the device; see [`keyed_rng`]."""
    return torch.Generator().manual_seed(int(_seed_sequence(key).generate_state(1, np.uint64)[0]))


def _seed_sequence(key: NoiseKey) -> np.random.SeedSequence:
    if not isinstance(key, tuple) or not all(isinstance(number, (int, np.integer)) for number in key):
        raise TypeError(f"The noise key {key!r} must be a tuple of integers, for example (seed, row).")
    if not key or min(key) < 0:
        raise ValueError(
            f"The noise key {key!r} must hold at least one integer, and none may be negative: use seeds from 0 on."
        )
    return np.random.SeedSequence(key)


__all__ = [
    "NOISY_NEGATIVES",
    "RANDOM_PAIRS",
    "TOKENS",
    "NoiseKey",
    "keyed_noise",
    "keyed_rng",
    "keyed_torch_generator",
]
