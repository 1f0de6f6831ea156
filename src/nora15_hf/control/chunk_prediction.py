# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The one way from observations to chunks: processor, noise from keys, sampler, physical units."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from transformers import BatchFeature

from ..actions.keyed_noise import NoiseKey
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..nora15.processing_nora15 import ImageLike
from .chunk_samplers import ChunkSampler, FlowSampler

CameraImages = ImageLike | Sequence[ImageLike] | Mapping[str, ImageLike]


@torch.no_grad()
def predict_chunks(
    policy: Nora15ForActionPrediction,
    processor: Nora15Processor,
    images: Sequence[CameraImages],
    instructions: Sequence[str],
    noise_keys: Sequence[NoiseKey],
    *,
    states: Sequence[np.ndarray] | None = None,
    dataset_key: str | Sequence[str] | None = None,
    sampler: ChunkSampler | None = None,
    num_candidates: int | None = None,
    unnormalize: bool = True,
    inputs: BatchFeature | None = None,
    lap: Callable[[str], None] = lambda phase: None,
) -> np.ndarray:
    """
    Chunks for B observations, with one backbone pass for all of them.

    A chunk depends on its observation and its key alone, up to rounding: not on the rest of the batch.

    Args:
        policy ([`Nora15ForActionPrediction`]): In evaluation mode.
        processor ([`Nora15Processor`]): Its processor.
        images (`Sequence`): Per observation an image, uint8 `(height, width, 3)`, or its cameras, see [`Nora15Processor`].
        instructions (`Sequence[str]`): One per observation.
        noise_keys (`Sequence[tuple[int, ...]]`): One per observation, for example `(seed, row)`; see [`keyed_noise`].
        states (`Sequence[np.ndarray]`, *optional*):
            Robot states `(S,)` in physical units, one per observation. They are needed by a policy that reads the state or
            whose actions are differences from it (`processor.needs_state`), and not looked at otherwise.
        dataset_key (`str` or `Sequence[str]`, *optional*):
            Whose units states and actions are in, for all observations or one each; may be omitted when there is only one.
        sampler ([`FlowSampler`], [`FastSampler`] or [`GreedyFastSampler`], *optional*): How; by flow matching by default.
        num_candidates (`int`, *optional*): Chunks per observation, N; without it the axis of candidates is left out.
        unnormalize (`bool`, *optional*, defaults to `True`): `False` leaves the chunks normalised.
        inputs (`BatchFeature`, *optional*):
            What [`prepare_inputs`] returned for these observations, where that was done beforehand; `images` and `instructions`
            are then not looked at.
        lap (`Callable[[str], None]`, *optional*): Called when a phase is over: `"preprocess"`, `"prefix"`, `"denoise"`.

    Returns:
        `np.ndarray` of shape `(B, [N,] H, A)`: float32, or float64 from [`GreedyFastSampler`]; in physical units.

    Raises:
        ValueError: Inputs that do not fit the policy, as a missing state.
        InvalidChunkError: [`GreedyFastSampler`] got tokens that spell no chunk.
    """
    if not processor.needs_state:
        states = None
    if inputs is None:
        inputs = prepare_inputs(
            processor, images, instructions, states=states, dataset_key=dataset_key, device=policy.device
        )
    lap("preprocess")
    sampler = sampler or FlowSampler()
    chunks = sampler.sample(policy, processor, inputs, noise_keys, num_candidates or 1, lap)
    if num_candidates is None:
        chunks = chunks[:, 0]
    if not unnormalize:
        return chunks
    if dataset_key is None or isinstance(dataset_key, str):
        return processor.unnormalize_actions(chunks, dataset_key, None if states is None else np.stack(states))
    return np.stack(
        [
            processor.unnormalize_actions(chunks[row], key, None if states is None else states[row])
            for row, key in enumerate(dataset_key)
        ]
    )


def prepare_inputs(
    processor: Nora15Processor,
    images: Sequence[CameraImages],
    instructions: Sequence[str],
    *,
    states: Sequence[np.ndarray] | None = None,
    dataset_key: str | Sequence[str] | None = None,
    device: torch.device | None = None,
) -> BatchFeature:
    """What the policy takes for B observations, on a device, by default the CPU; other arguments as for [`predict_chunks`]."""
    return processor(
        images=list(images),
        text=list(instructions),
        state=None if states is None else np.stack(states),
        dataset_key=dataset_key,
        device=device,
    )


__all__ = ["CameraImages", "predict_chunks", "prepare_inputs"]
