# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Ways from a policy's inputs to normalised chunks: its flow, FAST tokens drawn at random, or the likeliest FAST tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ..actions.keyed_noise import TOKENS, NoiseKey, keyed_noise
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..runtime.noise_temperature import check_noise_temperature


class InvalidChunkError(ValueError):
    """The policy's output is not a chunk of actions: FAST tokens that spell none, or numbers that are not finite."""


@dataclass(frozen=True)
class FlowSampler:
    """
    Chunks by flow matching from different noise.

    Attributes:
        num_steps (`int`, *optional*): solver steps; the policy's `num_inference_steps` by default.
        temperature (`float`): standard deviation of the noise that the flow begins with; 1 is what the policy was trained with. Below
            it chunks of one state are more alike, and at 0 all the same.
    """

    num_steps: int | None = None
    temperature: float = 1.0

    def __post_init__(self):
        check_noise_temperature(self.temperature)

    def sample(
        self,
        policy: Nora15ForActionPrediction,
        processor: Nora15Processor,
        inputs: dict[str, Any],
        noise_keys: Sequence[NoiseKey],
        num_candidates: int,
        lap: Callable[[str], None],
    ) -> np.ndarray:
        """
        Args:
            policy, processor, noise_keys, num_candidates, lap: As for [`predict_chunks`].
            inputs (`dict`): What the processor returned for B observations.

        Returns:
            `np.ndarray` of shape `(B, num_candidates, H, A)`, float32, normalised.
        """
        with torch.no_grad():
            prefix = policy.encode_prefix(**inputs)
        lap("prefix")
        shape = (num_candidates, policy.config.chunk_size, policy.config.action_dim)
        noise = self.temperature * keyed_noise(noise_keys, shape)
        chunks = policy.sample_actions(
            prefix=prefix,
            noise=noise if num_candidates > 1 else noise[:, 0],
            num_steps=self.num_steps,
            num_samples=num_candidates,
        )
        chunks = chunks.view(noise.shape).cpu().numpy()
        lap("denoise")
        return chunks


@dataclass(frozen=True)
class FastSampler:
    """
    Chunks as FAST tokens, drawn from the backbone's distribution over them.

    Attributes:
        temperature (`float`): divides the scores before sampling; 1 is the policy's own distribution.
        max_attempts (`int`): draws for a candidate whose tokens spell no chunk, before its state is given up.
    """

    temperature: float = 1.0
    max_attempts: int = 8

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(
                f"temperature={self.temperature} must be greater than 0: at 0 all candidates would be the same."
            )
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts={self.max_attempts} must be at least 1.")

    def sample(
        self,
        policy: Nora15ForActionPrediction,
        processor: Nora15Processor,
        inputs: dict[str, Any],
        noise_keys: Sequence[NoiseKey],
        num_candidates: int,
        lap: Callable[[str], None],
    ) -> np.ndarray:
        """As [`FlowSampler.sample`]; a candidate whose tokens never spelled a chunk is NaN."""
        shape = (len(noise_keys), num_candidates, policy.config.chunk_size, policy.config.action_dim)
        chunks = np.full(shape, np.nan, dtype=np.float32)
        prompt = policy.encode_prompt(**inputs)
        lap("prefix")
        for attempt in range(self.max_attempts):
            rows, candidates = np.nonzero(np.isnan(chunks).any((2, 3)))
            if len(rows) == 0:
                break
            tokens = policy.generate_actions(
                prompt=prompt.select(torch.from_numpy(rows).to(policy.device)),
                noise_keys=[
                    (*noise_keys[row], TOKENS, int(candidate), attempt)
                    for row, candidate in zip(rows, candidates, strict=True)
                ],
                do_sample=True,
                temperature=self.temperature,
                top_k=0,
                top_p=1.0,
            )
            # What spells no chunk comes back as NaN.
            chunks[rows, candidates], _ = processor.decode_action_tokens(tokens)
        lap("denoise")
        return chunks


@dataclass(frozen=True)
class GreedyFastSampler:
    """
    Chunks as the likeliest FAST tokens of the backbone, the same whatever the key.

    Attributes:
        on_invalid (`str`): what follows tokens that spell no chunk: `"raise"` an error, or `"mask"` the chunk with NaN.
    """

    on_invalid: Literal["raise", "mask"] = "raise"

    def sample(
        self,
        policy: Nora15ForActionPrediction,
        processor: Nora15Processor,
        inputs: dict[str, Any],
        noise_keys: Sequence[NoiseKey],
        num_candidates: int,
        lap: Callable[[str], None],
    ) -> np.ndarray:
        """
        As [`FlowSampler.sample`], but float64, as the tokens spell it.

        Raises:
            InvalidChunkError: Tokens that spell no chunk, with `on_invalid="raise"`.
        """
        token_ids = policy.generate_actions(**inputs, do_sample=False)
        lap("denoise")
        try:
            chunks, _ = processor.decode_action_tokens(token_ids, on_invalid=self.on_invalid)
        except ValueError as error:
            raise InvalidChunkError(str(error)) from error
        return np.repeat(chunks[:, None], num_candidates, axis=1)


ChunkSampler = FlowSampler | FastSampler | GreedyFastSampler


__all__ = ["ChunkSampler", "FastSampler", "FlowSampler", "GreedyFastSampler", "InvalidChunkError"]
