# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The interface of a policy for evaluation, whether it is in this process or behind a server."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..actions.keyed_noise import NoiseKey
from ..simulation.environment import Observation


class EvaluatedPolicy(Protocol):
    """A policy that can be evaluated: [`~nora15_hf.control.chunk_policy.Nora15ChunkPolicy`], or the client of a policy server.

    Attributes:
        metadata (`Mapping[str, Any]`): what it tells about itself, as plain JSON values, with every key of [`METADATA_KEYS`]; see
            [`policy_metadata`].
    """

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def __call__(self, observations: Sequence[Observation], noise_keys: Sequence[NoiseKey]) -> np.ndarray:
        """
        Chunks for B observations: float32 `(B, H, A)`, physical units. A chunk depends on its observation and its noise key,
        `(episode seed, number of the look)`, alone; NaN where FAST tokens spell none.
        """


__all__ = ["EvaluatedPolicy"]
