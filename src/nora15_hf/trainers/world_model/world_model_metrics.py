# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Quality metrics of a world model: collapse of its latents, and sensitivity to actions."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...clips.episode_clips import LatentEpisode
from ...runtime.shared_tensors import SharedTensors
from ...vjepa2_ac import VJEPA2ACModel

NOISE_LEVELS = (0.25, 0.5, 1.0, 2.0)


def latent_statistics(latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    Collapse metrics of latents of many different frames. Layer norm hides collapse from a plain variance over
    dimensions, so both are taken **across frames**.

    Args:
        latents (`torch.Tensor` of shape `(F, P, D)`):
            Layer-normed latents; frames of several episodes.

    Returns:
        Two scalar tensors. `latent_std`: standard deviation of each patch's dimension across frames, averaged; 0 when
        every frame has the same latent. `latent_rank`: effective rank (exponential of the entropy of the normalised
        eigenvalues) of the covariance over dimensions of the deviations from each patch's mean, between 1 and D.
    """
    samples = (latents.float() - latents.float().mean(0)).flatten(0, 1)
    eigenvalues = torch.linalg.eigvalsh((samples.T @ samples).double()).clamp(min=0)
    total = eigenvalues.sum()
    rank = torch.special.entr(eigenvalues / total).sum().exp()
    return {"latent_std": latent_std(latents), "latent_rank": torch.where(total == 0, 1.0, rank)}


def latent_std(latents: torch.Tensor) -> torch.Tensor:
    """Standard deviation across frames `(F, P, D)`, averaged over patches and dimensions: a scalar tensor."""
    return (latents.float() - latents.float().mean(0)).square().mean(0).sqrt().mean()


@dataclass(frozen=True)
class ActionSensitivity:
    """
    Distances of imagined latents to the true one, for several chunks of actions per case.

    Args:
        starts (`list[tuple[int, int]]`): Position of the episode and of the frame in it, for each of n cases.
        demonstrated, other_chunk (`torch.Tensor` of shape `(n,)`):
            Distance after the demonstrated chunk, and after the chunk that was demonstrated at another frame.
        noise (`dict[float, torch.Tensor]`): By noise level, the distance after the demonstrated chunk plus noise.
        still (`torch.Tensor` of shape `(n,)`): Distance of the current frame itself.
    """

    starts: list[tuple[int, int]]
    demonstrated: torch.Tensor
    other_chunk: torch.Tensor
    noise: dict[float, torch.Tensor]
    still: torch.Tensor

    @property
    def contestants(self) -> dict[str, torch.Tensor]:
        """What the demonstrated chunk is compared with, by name."""
        return {"other_chunk": self.other_chunk} | {f"noise_{level:g}": each for level, each in self.noise.items()}

    def wins(self, name: str) -> float:
        """In how many cases the demonstrated chunk came closer than a contestant; ties count half."""
        difference = self.contestants[name] - self.demonstrated
        return ((difference > 0).sum() + 0.5 * (difference == 0).sum()).item()

    @property
    def is_monotone(self) -> bool:
        """Whether the mean distance grows with every noise level, the demonstrated chunk being level 0."""
        means = [each.mean() for _, each in sorted(({0.0: self.demonstrated} | self.noise).items())]
        return all(less < more for less, more in itertools.pairwise(means))

    def metrics(self) -> dict[str, float]:
        """
        `beats_other_chunk`, `beats_noise_{level:g}`: shares of cases; 0.5 for a model that ignores actions.
        `energy_demonstrated`, `energy_other_chunk`, `energy_noise_{level:g}`: mean distances to the truth;
        `energy_still`: the current frame's own distance to it, which a useful prediction undercuts.
        `noise_monotone`: 1 when the mean distance grows with every noise level, else 0.
        """
        energies = {"demonstrated": self.demonstrated, **self.contestants, "still": self.still}
        metrics = {f"energy_{name}": each.mean().item() for name, each in energies.items()}
        metrics |= {f"beats_{name}": self.wins(name) / len(self.starts) for name in self.contestants}
        return metrics | {"noise_monotone": float(self.is_monotone)}


@torch.no_grad()
def action_sensitivity(
    model: VJEPA2ACModel,
    episodes: Sequence[LatentEpisode],
    action_std: torch.Tensor,
    horizon: int = 5,
    noise_levels: Sequence[float] = NOISE_LEVELS,
    num_cases: int = 512,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    shared: SharedTensors | None = None,
) -> ActionSensitivity:
    """
    How often the latent imagined with the demonstrated chunk is closer to the true one than that of another chunk.

    Args:
        model ([`VJEPA2ACModel`]): The world model.
        episodes (sequence of [`LatentEpisode`]): Held-out episodes.
        action_std (`torch.Tensor` of shape `(A,)`): Standard deviation of the training actions: the unit of the noise.
        horizon (`int`, *optional*, defaults to 5): Actions per chunk; the latent that many frames later is the truth.
        noise_levels (sequence of `float`, *optional*, defaults to `(0.25, 0.5, 1, 2)`): Multiples of `action_std`.
        num_cases (`int`, *optional*, defaults to 512): Frames drawn from all that have `horizon` successors.
        batch_size (`int`, *optional*, defaults to 64): Cases per rollout.
        seed (`int`, *optional*, defaults to 0): Of the draws of frames, other chunks and noise.
        progress (`bool`, *optional*, defaults to `False`): Show a progress bar.
        shared ([`SharedTensors`], *optional*): How several processes share the work; each of them gets all distances.

    Raises:
        ValueError: Fewer than two frames with `horizon` successors.
    """
    starts = [(e, start) for e, episode in enumerate(episodes) for start in range(len(episode.latents) - horizon)]
    if len(starts) < 2:
        raise ValueError(
            f"`episodes` holds {len(starts)} frames with `horizon`={horizon} successors, at least 2 are needed. Hold "
            "out more episodes or shorten the horizon."
        )
    generator = torch.Generator().manual_seed(seed)
    starts = [starts[index] for index in torch.randperm(len(starts), generator=generator)[:num_cases]]
    chunks = torch.stack([episodes[e].actions[start : start + horizon] for e, start in starts])
    noise = torch.randn(chunks.shape, generator=generator).to(chunks) * action_std.to(chunks)
    # A cyclic shift of a random order: every case meets another's chunk.
    candidates = [chunks, chunks.roll(1, 0), *(chunks + level * noise for level in noise_levels)]
    candidates = torch.stack(candidates, dim=1)
    # In the dataset's order, because frames are read in blocks.
    order = sorted(range(len(starts)), key=starts.__getitem__)
    starts, candidates = [starts[index] for index in order], candidates[order]

    def rank(first: int) -> dict[str, torch.Tensor]:
        batch = starts[first : first + batch_size]
        now, truth = (
            torch.stack([episodes[e].latents[start + ahead] for e, start in batch]).to(model.device)
            for ahead in (0, horizon)
        )
        states = None
        if episodes[0].states is not None:
            states = torch.stack([episodes[e].states[start : start + 1] for e, start in batch]).to(model.device)
        actions = candidates[first : first + batch_size].to(model.device)
        imagined = model.rollout(now[:, None], actions, states, last_only=True)
        return {"energies": model.goal_energy(imagined, truth).cpu(), "still": (now - truth).abs().mean((1, 2)).cpu()}

    # Latents come from the model, so that nothing can be made ahead of it.
    parts = (shared or SharedTensors()).computed(
        "ranking", range(0, len(starts), batch_size), int, rank, progress=progress
    )
    energies, still = (torch.cat([part[name] for part in parts]) for name in ("energies", "still"))
    demonstrated, other_chunk, *noisy = energies.unbind(1)
    return ActionSensitivity(starts, demonstrated, other_chunk, dict(zip(noise_levels, noisy, strict=True)), still)


__all__ = ["NOISE_LEVELS", "ActionSensitivity", "action_sensitivity", "latent_statistics", "latent_std"]
