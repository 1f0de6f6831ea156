# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy drives several episodes side by side: all look, one batched call of the policy, all move."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..actions.keyed_noise import NoiseKey
from ..simulation.environment import Observation

# What is seen in B episodes, and a key per episode that its noise depends on -> chunks (B, H, A) in physical units
ChunkPolicy = Callable[[Sequence[Observation], Sequence[NoiseKey]], np.ndarray]


@dataclass
class DrivenEpisode:
    """An episode in its slot.

    Attributes:
        observation ([`Observation`]): what is seen now.
        noise_key (`tuple[int, ...]`): the beginning of the policy's noise keys in this episode, `replan` is their end.
        replan (`int`, *optional*, defaults to 0): how often the policy has looked.
    """

    observation: Observation
    noise_key: NoiseKey
    replan: int = field(default=0, kw_only=True)


def ask(policy: ChunkPolicy, episodes: Sequence[DrivenEpisode], *, n_action_steps: int, action_dim: int) -> np.ndarray:
    """One look of a policy at several episodes, which counts as one in each.

    Args:
        policy (`ChunkPolicy`): who acts.
        episodes (`Sequence[DrivenEpisode]`): B of them.
        n_action_steps (`int`): actions of a chunk that are executed before the policy looks again.
        action_dim (`int`): width A of an action.

    Returns:
        `np.ndarray`: float32 `(B, n_action_steps, A)`, physical units.

    Raises:
        ValueError: `n_action_steps` below 1, or a policy output that is not of shape `(B, H >= n_action_steps, A)`.
    """
    if n_action_steps < 1:
        raise ValueError(f"`n_action_steps` is {n_action_steps}; it must be 1 or more.")
    chunks = policy(
        [episode.observation for episode in episodes], [(*episode.noise_key, episode.replan) for episode in episodes]
    )
    chunks = np.asarray(chunks, dtype=np.float32)
    batch_and_width = (*chunks.shape[:1], *chunks.shape[2:])
    if batch_and_width != (len(episodes), action_dim) or chunks.shape[1] < n_action_steps:
        raise ValueError(
            f"The policy returned actions of shape {chunks.shape} for {len(episodes)} observations; expected "
            f"({len(episodes)}, H, {action_dim}) with H at least n_action_steps={n_action_steps}."
        )
    for episode in episodes:
        episode.replan += 1
    return chunks[:, :n_action_steps]


def drive_in_lockstep(
    policy: ChunkPolicy, episodes: dict[int, DrivenEpisode], *, n_action_steps: int, action_dim: int
) -> Iterator[dict[int, np.ndarray]]:
    """Ask the policy for all episodes at once, again and again, until none is left.

    Args:
        policy (`ChunkPolicy`): who acts.
        episodes (`dict[int, DrivenEpisode]`): by slot. Between two rounds the caller executes the actions, puts what is
            seen then into the episodes, takes those out that have ended, and may put new ones in.
        n_action_steps (`int`), action_dim (`int`): see [`ask`].

    Yields:
        `dict[int, np.ndarray]`: the actions of every slot, float32 `(n_action_steps, A)`, physical units.

    Raises:
        ValueError: as [`ask`]; and a policy output that is not finite.
    """
    while episodes:
        slots = sorted(episodes)
        actions = ask(policy, [episodes[slot] for slot in slots], n_action_steps=n_action_steps, action_dim=action_dim)
        require_finite(actions)
        yield dict(zip(slots, actions, strict=True))


def require_finite(actions: np.ndarray) -> None:
    """Refuses a policy output with NaN or infinity."""
    if not np.isfinite(actions).all():
        raise ValueError(
            "The policy returned actions that are not finite (NaN or infinity). `nora15 doctor` checks whether its weights are "
            "damaged."
        )


__all__ = ["ChunkPolicy", "DrivenEpisode", "ask", "drive_in_lockstep", "require_finite"]
