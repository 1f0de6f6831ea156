# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Candidate chunks: several samples of one policy at one state, by its flow or by its FAST tokens."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin

from ..actions.keyed_noise import keyed_noise
from ..data.lerobot_dataset import Sample
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from .token_sampling import encode_prompts, sample_action_tokens

# Second numbers of the keys that random numbers depend on, besides the set's seed and the state's row.
NOISY_NEGATIVES, RANDOM_PAIRS, TOKENS = range(1, 4)


@dataclass(frozen=True)
class FlowSampler:
    """
    Candidates by flow matching from different noise.

    Attributes:
        num_steps (`int`, *optional*): solver steps; the policy's `num_inference_steps` by default.
    """

    num_steps: int | None = None


@dataclass(frozen=True)
class FastSampler:
    """
    Candidates as FAST tokens, drawn from the backbone's distribution over them.

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


Sampler = FlowSampler | FastSampler


def sampler_settings(sampler: Sampler, policy: Nora15ForActionPrediction) -> dict[str, Any]:
    """What to write down about a sampler, in JSON types."""
    settings = {"type": type(sampler).__name__, **asdict(sampler)}
    if isinstance(sampler, FlowSampler) and sampler.num_steps is None:
        settings["num_steps"] = policy.config.num_inference_steps
    return settings


def candidate_noise(seed: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """
    The noise that a state's candidates start from: a function of the seed and of the state's row in its dataset alone.

    Args:
        seed (`int`): of the whole preference set, not negative.
        index (`int`): `Sample["index"]`.
        shape (`tuple[int, ...]`): `(num_candidates, chunk_size, action_dim)`.

    Returns:
        `np.ndarray`: float32, standard normal.
    """
    return keyed_noise([(seed, index)], shape)[0].numpy()


@torch.no_grad()
def sample_candidates(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    *,
    num_candidates: int = 5,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """
    Samples chunks of a policy at some states, with one backbone pass for all of them.

    Any state can be sampled again alone and gives the same candidates up to rounding, because random numbers are drawn
    per state; in the same batch it gives the same bits.

    Args:
        policy ([`Nora15ForActionPrediction`]): the policy; it is evaluated without dropout and left as it was.
        processor ([`Nora15Processor`]): its processor.
        samples (`Sequence[Sample]`): the states, B of them.
        num_candidates (`int`, *optional*, defaults to 5): chunks per state, N.
        sampler ([`FlowSampler`] or [`FastSampler`], *optional*): how; by flow matching by default.
        seed (`int`, *optional*, defaults to 0): of the random numbers.

    Returns:
        `torch.Tensor`: float32 `(B, N, H, A)` on the CPU, normalised as the policy's actions are. With [`FastSampler`] a
        candidate whose tokens never spelled a chunk is NaN.

    Raises:
        ValueError: fewer than two candidates, which cannot be compared.
    """
    if num_candidates < 2:
        raise ValueError(f"num_candidates={num_candidates} must be at least 2: a pair needs two candidates.")
    was_training = policy.training
    policy.eval()
    state = {}
    if processor.needs_state:
        state = {
            "state": np.stack([sample["state"] for sample in samples]),
            "dataset_key": [sample["dataset_key"] for sample in samples],
        }
    inputs = processor(
        images=[sample["images"] for sample in samples],
        text=[sample["instruction"] for sample in samples],
        device=policy.device,
        **state,
    )
    indices = [sample["index"] for sample in samples]
    sampler = sampler or FlowSampler()
    if isinstance(sampler, FlowSampler):
        shape = (num_candidates, policy.config.chunk_size, policy.config.action_dim)
        noise = keyed_noise([(seed, index) for index in indices], shape)
        chunks = policy.sample_actions(**inputs, noise=noise, num_steps=sampler.num_steps, num_samples=num_candidates)
        candidates = chunks.float().cpu()
    else:
        candidates = _sample_fast(policy, processor, inputs, indices, num_candidates, sampler, seed)
    policy.train(was_training)
    return candidates


def _sample_fast(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    inputs: dict[str, torch.Tensor],
    indices: list[int],
    num_candidates: int,
    sampler: FastSampler,
    seed: int,
) -> torch.Tensor:
    shape = (len(indices), num_candidates, policy.config.chunk_size, policy.config.action_dim)
    candidates = np.full(shape, np.nan, dtype=np.float32)
    prompts = encode_prompts(policy, inputs)
    for attempt in range(sampler.max_attempts):
        rows, numbers = np.nonzero(np.isnan(candidates).any((2, 3)))
        if len(rows) == 0:
            break
        keys = [(seed, indices[row], TOKENS, int(number), attempt) for row, number in zip(rows, numbers, strict=True)]
        tokens = sample_action_tokens(policy, prompts, rows.tolist(), keys, temperature=sampler.temperature)
        # What spells no chunk comes back as NaN.
        candidates[rows, numbers], _ = processor.decode_action_tokens(tokens)
    return torch.from_numpy(candidates)


def noisy_negatives(
    candidates: torch.Tensor, indices: Sequence[int], *, count: int, std: float, seed: int
) -> torch.Tensor:
    """
    Copies of the first candidates with noise added: chunks that are worse on purpose, to be rejected.

    Args:
        candidates (`torch.Tensor`): `(B, N, H, A)`, normalised.
        indices (`Sequence[int]`): `Sample["index"]` of each state, which the noise depends on.
        count (`int`): copies per state, M; copy i is of candidate i modulo N.
        std (`float`): standard deviation of the noise, in normalised units.
        seed (`int`): of the whole preference set.

    Returns:
        `torch.Tensor`: float32 `(B, M, H, A)`.
    """
    originals = candidates[:, torch.arange(count) % candidates.shape[1]]
    noise = keyed_noise([(seed, index, NOISY_NEGATIVES) for index in indices], originals.shape[1:])
    return originals + std * noise


__all__ = [
    "NOISY_NEGATIVES",
    "RANDOM_PAIRS",
    "FastSampler",
    "FlowSampler",
    "Sampler",
    "candidate_noise",
    "noisy_negatives",
    "sample_candidates",
    "sampler_settings",
]
