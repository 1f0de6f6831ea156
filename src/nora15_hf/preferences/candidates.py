# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Candidates: several chunks of one policy for one state, by its flow or by its FAST tokens."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from ..actions.keyed_noise import NOISY_NEGATIVES, keyed_noise
from ..control.chunk_prediction import predict_chunks
from ..control.chunk_samplers import FastSampler, FlowSampler
from ..control.prepared_samples import sample_inputs
from ..data.lerobot_dataset import Sample
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..repo_files.fingerprint import fingerprint

Sampler = FlowSampler | FastSampler


def sampler_settings(sampler: Sampler, policy: Nora15ForActionPrediction) -> dict[str, Any]:
    """What to write down about a sampler, in JSON types."""
    settings = {"type": type(sampler).__name__, **asdict(sampler)}
    if isinstance(sampler, FlowSampler) and sampler.num_steps is None:
        settings["num_steps"] = policy.config.num_inference_steps
    if isinstance(sampler, FlowSampler) and sampler.temperature == 1:
        # Sets that were built before there was a choice do not name it.
        del settings["temperature"]
    return settings


def sample_candidates(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    *,
    num_candidates: int = 5,
    sampler: Sampler | None = None,
    seed: int = 0,
    inputs: BatchFeature | None = None,
) -> torch.Tensor:
    """
    Chunks of a policy at some states, the candidates of each, with one backbone pass for all of them.

    Any state can be sampled again alone and gives the same candidates up to rounding, because random numbers are drawn
    per state; in the same batch it gives the same bits.

    Args:
        policy ([`Nora15ForActionPrediction`]): the policy; it is evaluated without dropout and left as it was.
        processor ([`Nora15Processor`]): its processor.
        samples (`Sequence[Sample]`): the states, B of them.
        num_candidates (`int`, *optional*, defaults to 5): chunks per state, N.
        sampler ([`FlowSampler`] or [`FastSampler`], *optional*): how; by flow matching by default.
        seed (`int`, *optional*, defaults to 0): of the random numbers.
        inputs (`BatchFeature`, *optional*): of [`sample_inputs`] for these states, where that was done beforehand.

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
    candidates = predict_chunks(
        policy,
        processor,
        [sample["images"] for sample in samples],
        [sample["instruction"] for sample in samples],
        [(seed, sample["index"]) for sample in samples],
        states=[sample["state"] for sample in samples],
        dataset_key=[sample["dataset_key"] for sample in samples],
        sampler=sampler,
        num_candidates=num_candidates,
        unnormalize=False,
        inputs=(sample_inputs(processor, samples) if inputs is None else inputs).to(policy.device, non_blocking=True),
    )
    policy.train(was_training)
    return torch.from_numpy(candidates)


def weights_fingerprint(policy: Nora15ForActionPrediction, dtype: str) -> str:
    """Digest of a policy's weights as they are when it is loaded in a type, in whichever it is loaded now."""
    return fingerprint(policy.state_dict(), rounded_to=None if dtype == "float32" else vars(torch)[dtype])


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
    "Sampler",
    "noisy_negatives",
    "sample_candidates",
    "sampler_settings",
    "weights_fingerprint",
]
