# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What tells whether a world model is any good: collapse of its latents, and whether it listens to actions."""

from collections.abc import Sequence

import torch

from ..vjepa2_ac import VJEPA2ACModel


def latent_statistics(latents: torch.Tensor) -> dict[str, float]:
    """
    Collapse metrics of latents of many different frames. Layer norm hides collapse from a plain variance over
    dimensions, so both are taken **across frames**.

    Args:
        latents (`torch.Tensor` of shape `(F, P, D)`):
            Layer-normed latents; frames of several episodes.

    Returns:
        `latent_std`: standard deviation of each patch's dimension across frames, averaged; 0 when every frame has the
        same latent. `latent_rank`: effective rank (exponential of the entropy of the normalised eigenvalues) of the
        covariance over dimensions of the deviations from each patch's mean, between 1 and D.
    """
    deviations = latents.float() - latents.float().mean(0)
    std = deviations.square().mean(0).sqrt().mean().item()
    samples = deviations.flatten(0, 1)
    eigenvalues = torch.linalg.eigvalsh((samples.T @ samples).double()).clamp(min=0)
    total = eigenvalues.sum()
    if total == 0:
        return {"latent_std": std, "latent_rank": 1.0}
    return {"latent_std": std, "latent_rank": torch.special.entr(eigenvalues / total).sum().exp().item()}


@torch.no_grad()
def action_sensitivity(
    model: VJEPA2ACModel,
    episodes: Sequence[tuple[torch.Tensor, torch.Tensor]],
    action_std: torch.Tensor,
    horizon: int = 5,
    noise_levels: Sequence[float] = (1.0,),
    num_cases: int = 512,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """
    How often the latent imagined with the demonstrated chunk is closer to the true one than that of another chunk. A
    model that ignores actions scores 0.5 in expectation of ties broken at random; ties count as half.

    Args:
        model ([`VJEPA2ACModel`]): The world model.
        episodes (sequence of `(latents (F, P, D), actions (F, A))`): Held-out episodes.
        action_std (`torch.Tensor` of shape `(A,)`): Standard deviation of the training actions: the unit of the noise.
        horizon (`int`, *optional*, defaults to 5): Actions per chunk; the latent that many frames later is the truth.
        noise_levels (sequence of `float`, *optional*, defaults to `(1.0,)`): Multiples of `action_std`.
        num_cases (`int`, *optional*, defaults to 512): Frames drawn from all that have `horizon` successors.
        batch_size (`int`, *optional*, defaults to 64): Cases per rollout.
        seed (`int`, *optional*, defaults to 0): Of the draws of frames, other chunks and noise.

    Returns:
        `beats_other_chunk`, `beats_noise_{level:g}`: shares of cases; `energy_demonstrated`, `energy_other_chunk`,
        `energy_noise_{level:g}`: mean distances to the truth; `energy_still`: the current frame's own distance to it,
        which a useful prediction undercuts.

    Raises:
        ValueError: Fewer than two frames with `horizon` successors.
    """
    starts = [(e, start) for e, (latents, _) in enumerate(episodes) for start in range(len(latents) - horizon)]
    if len(starts) < 2:
        raise ValueError(
            f"`episodes` holds {len(starts)} frames with `horizon`={horizon} successors, at least 2 are needed. Hold "
            "out more episodes or shorten the horizon."
        )
    generator = torch.Generator().manual_seed(seed)
    starts = [starts[index] for index in torch.randperm(len(starts), generator=generator)[:num_cases]]
    now = torch.stack([episodes[e][0][start] for e, start in starts])
    truth = torch.stack([episodes[e][0][start + horizon] for e, start in starts])
    chunks = torch.stack([episodes[e][1][start : start + horizon] for e, start in starts])
    # A cyclic shift of a random order: every case meets another's chunk.
    names, candidates = ["demonstrated", "other_chunk"], [chunks, chunks.roll(1, 0)]
    noise = torch.randn(chunks.shape, generator=generator).to(chunks) * action_std.to(chunks)
    for level in noise_levels:
        names.append(f"noise_{level:g}")
        candidates.append(chunks + level * noise)

    energies = []
    candidates = torch.stack(candidates, dim=1)
    for rows in torch.arange(len(starts)).split(batch_size):
        start, actions, goal = (each[rows].to(model.device) for each in (now, candidates, truth))
        energies.append(model.goal_energy(model.rollout(start[:, None], actions), goal).cpu())
    energies = torch.cat(energies)
    metrics = {f"energy_{name}": energies[:, column].mean().item() for column, name in enumerate(names)}
    for column, name in enumerate(names[1:], start=1):
        difference = energies[:, column] - energies[:, 0]
        metrics[f"beats_{name}"] = ((difference > 0).float() + 0.5 * (difference == 0).float()).mean().item()
    metrics["energy_still"] = (now - truth).abs().mean().item()
    return metrics


__all__ = ["action_sensitivity", "latent_statistics"]
