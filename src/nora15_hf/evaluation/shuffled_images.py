# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A control of closed-loop evaluation: a policy that is shown other episodes' pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..actions.keyed_noise import NoiseKey, keyed_rng
from ..simulation.environment import Observation
from .lockstep import ChunkPolicy


class ShuffledImages:
    """The control "the policy must look": every episode's policy gets the image of another episode.

    At each look the images of a batch change places anew; none stays in its place, and each goes to an episode with
    another instruction where there are enough of those. (Pictures of the same task at the same stage would still tell
    the policy how far it should be.) When only one episode is left, it gets the last image seen of another one. The
    order depends on the noise keys and instructions alone.

    Args:
        policy (`ChunkPolicy`): the policy under test.

    Raises:
        ValueError: when called, if there never was a second episode.
    """

    def __init__(self, policy: ChunkPolicy):
        self._policy = policy
        self._last_foreign: dict[tuple[str, NoiseKey], dict[str, np.ndarray]] = {}

    def __call__(self, observations: Sequence[Observation], noise_keys: Sequence[NoiseKey]) -> np.ndarray:
        instructions = [observation.instruction for observation in observations]
        images = [observation.images for observation in observations]
        # A key ends with the number of the look; what stands before it is the same throughout an episode.
        episodes = [(text, key[:-1]) for text, key in zip(instructions, noise_keys, strict=True)]
        if len(images) > 1:
            random = keyed_rng(tuple(number for key in noise_keys for number in key))
            order = sorted(random.permutation(len(images)), key=lambda position: instructions[position])
            largest_group = max(Counter(instructions).values())
            sources = np.roll(order, largest_group if largest_group < len(images) else 1)
            shuffled = {position: images[source] for position, source in zip(order, sources, strict=True)}
            images = [shuffled[position] for position in range(len(images))]
            self._last_foreign = dict(zip(episodes, images, strict=True))
        elif self._last_foreign:
            # An episode that began alone is not in the table, so any image in it is foreign.
            images = [self._last_foreign.get(episodes[0], next(iter(self._last_foreign.values())))]
        else:
            raise ValueError(
                "ShuffledImages received a single episode and has no other image to show: run two or more."
            )
        shown = [replace(observation, images=other) for observation, other in zip(observations, images, strict=True)]
        return self._policy(shown, noise_keys)


__all__ = ["ShuffledImages"]
