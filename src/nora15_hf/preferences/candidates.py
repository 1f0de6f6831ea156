# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Candidate chunks: several samples of one policy at one state."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import ProcessorMixin

from ..data.lerobot_dataset import Sample
from ..nora15.modeling_nora15 import Nora15ForActionPrediction


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
    return np.random.default_rng([seed, index]).standard_normal(shape, dtype=np.float32)


@torch.no_grad()
def sample_candidates(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    dataset: Dataset[Sample],
    indices: Sequence[int],
    *,
    num_candidates: int = 5,
    num_steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> torch.Tensor:
    """
    Samples chunks of a policy at states of a dataset, with one backbone pass per state.

    Any state can be sampled again alone and gives the same candidates up to rounding, because noise is drawn per
    state (see [`candidate_noise`]).

    Args:
        policy ([`Nora15ForActionPrediction`]): the policy; it is evaluated without dropout and left as it was.
        processor ([`Nora15Processor`]): its processor.
        dataset ([`LeRobotDataset`]): the states.
        indices (`Sequence[int]`): positions in `dataset`.
        num_candidates (`int`, *optional*, defaults to 5): chunks per state, N.
        num_steps (`int`, *optional*): solver steps; the policy's `num_inference_steps` by default.
        batch_size (`int`, *optional*, defaults to 32): states per pass.
        seed (`int`, *optional*, defaults to 0): of the noise.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        `torch.Tensor`: float32 `(len(indices), N, H, A)` on the CPU, normalised as the policy's actions are.

    Raises:
        ValueError: fewer than two candidates, which cannot be compared.
    """
    if num_candidates < 2:
        raise ValueError(f"num_candidates={num_candidates} must be at least 2: a pair needs two candidates.")
    shape = (num_candidates, policy.config.chunk_size, policy.config.action_dim)
    was_training = policy.training
    policy.eval()
    candidates = []
    with tqdm(total=len(indices), desc="Candidates", unit="state", disable=not progress) as bar:
        for start in range(0, len(indices), batch_size):
            samples = [dataset[index] for index in indices[start : start + batch_size]]
            inputs = processor(
                images=[sample["images"] for sample in samples],
                text=[sample["instruction"] for sample in samples],
                return_tensors="pt",
            ).to(policy.device)
            noise = np.stack([candidate_noise(seed, sample["index"], shape) for sample in samples])
            chunks = policy.sample_actions(
                **inputs, noise=torch.from_numpy(noise), num_steps=num_steps, num_samples=num_candidates
            )
            candidates.append(chunks.float().cpu())
            bar.update(len(samples))
    policy.train(was_training)
    return torch.cat(candidates)


__all__ = ["candidate_noise", "sample_candidates"]
