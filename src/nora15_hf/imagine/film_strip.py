# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Imagined latents made visible: each is represented by the frame of the dataset with the nearest latent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..clips.episode_clips import EpisodeClips
from ..runtime.shared_tensors import SharedTensors
from ..vjepa2_ac import VJEPA2ACModel

LIVELINESS = 0.75
"""Where a strip begins: typical enough to be fair, with enough motion to be seen."""


@dataclass(frozen=True)
class RetrievedFrame:
    """
    The frame that is nearest to an imagined latent.

    Args:
        image (`np.ndarray`): uint8 `(height, width, 3)`.
        episode_index, frame_index (`int`): Where it comes from.
        distance (`float`): Mean absolute difference of its latent from the imagined one.
    """

    image: np.ndarray
    episode_index: int
    frame_index: int
    distance: float


@dataclass(frozen=True)
class FilmStrip:
    """
    One rollout with the demonstrated actions, from one frame on.

    Args:
        episode_index (`int`), instruction (`str`): The episode.
        trained_on (`bool`): Whether the model has seen this episode in training.
        first_frame (`int`): From where the model imagines, F.
        true_images (`list[np.ndarray]`): Frames F ... F + steps, uint8.
        retrieved (`list[RetrievedFrame]`): For the imagined frames F + 1 ... F + steps.
        energies (`list[float]`): Distance of each imagined latent from the true frame's.
        still_energies (`list[float]`): Distance of frame F's latent from the true frame's.
    """

    episode_index: int
    instruction: str
    trained_on: bool
    first_frame: int
    true_images: list[np.ndarray]
    retrieved: list[RetrievedFrame]
    energies: list[float]
    still_energies: list[float]

    def lag(self, step: int) -> int | None:
        """How many frames after the true one the retrieved frame of a step (from 1) lies; None in another episode."""
        frame = self.retrieved[step - 1]
        same = frame.episode_index == self.episode_index
        return frame.frame_index - (self.first_frame + step) if same else None


@torch.no_grad()
def film_strips(
    model: VJEPA2ACModel,
    clips: EpisodeClips,
    encode_frames: Callable[[torch.Tensor], torch.Tensor],
    episodes: Sequence[int],
    trained_on: Sequence[bool],
    steps: int,
    gallery_size: int,
    batch_size: int = 64,
    progress: bool = True,
    shared: SharedTensors | None = None,
    num_workers: int = 0,
) -> list[FilmStrip]:
    """
    Film strips of a few episodes, each from a lively frame: within `steps`, the picture changes more than after
    [`LIVELINESS`] of the episode's frames.

    Args:
        model ([`VJEPA2ACModel`]): The world model.
        clips ([`EpisodeClips`]): The whole dataset, with frames.
        encode_frames (callable): Takes uint8 `(F, height, width, 3)`, returns latents `(F, P, D)` on the CPU.
        episodes (`Sequence[int]`): Episodes to show, at least `steps + 1` frames long.
        trained_on (`Sequence[bool]`): For each, whether it was trained on.
        steps (`int`): Frames to imagine.
        gallery_size (`int`): Frames, evenly spaced over the dataset, among which the nearest is searched, besides all
            frames of the shown episodes.
        batch_size (`int`, *optional*, defaults to 64): Gallery frames per encoder pass.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar.
        shared ([`SharedTensors`], *optional*): How several processes share the search; each of them gets all strips.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode the frames of the gallery ahead.
    """
    dataset = clips.dataset
    bounds = list(zip(dataset.episodes["from"].tolist(), dataset.episodes["to"].tolist(), strict=True))
    firsts, imagined, energies, still_energies = [], [], [], []
    for episode in episodes:
        start = bounds[episode][0]
        latents = encode_frames(clips.episode_frames(episode))
        change = (latents[steps:] - latents[:-steps]).abs().mean((1, 2))
        first = int(change.argsort()[int(LIVELINESS * (len(change) - 1))])
        now, truth = latents[first : first + 1], latents[first + 1 : first + steps + 1]
        actions = clips.actions[start + first : start + first + steps]
        states = None if clips.states is None else clips.states[None, start + first : start + first + 1]
        rolled = model.rollout(
            now[None].to(model.device),
            actions[None].to(model.device),
            None if states is None else states.to(model.device),
        )[0].cpu()
        firsts.append(first)
        imagined.append(rolled)
        energies.append((rolled - truth).abs().mean((1, 2)).tolist())
        still_energies.append((now - truth).abs().mean((1, 2)).tolist())

    gallery = set(np.linspace(0, len(dataset) - 1, min(gallery_size, len(dataset))).round().astype(int).tolist())
    gallery = sorted(gallery.union(*(range(*bounds[episode]) for episode in episodes)))
    queries = torch.cat(imagined)
    batches = [gallery[first : first + batch_size] for first in range(0, len(gallery), batch_size)]

    def search(frames: torch.Tensor) -> dict[str, torch.Tensor]:
        distances = torch.cdist(queries.flatten(1), encode_frames(frames).flatten(1), p=1) / queries[0].numel()
        best, which = distances.min(1)
        return {"best": best, "which": which}

    found = (shared or SharedTensors()).computed(
        "retrieval",
        batches,
        clips.frames,
        search,
        num_workers=num_workers,
        device=model.device,
        progress=progress,
    )
    nearest, position = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.long)
    for rows, part in zip(batches, found, strict=True):
        position = torch.where(part["best"] < nearest, torch.tensor(rows)[part["which"]], position)
        nearest = nearest.minimum(part["best"])

    def retrieved(query: int) -> RetrievedFrame:
        row = int(position[query])
        owner = next(episode for episode, (start, stop) in enumerate(bounds) if start <= row < stop)
        return RetrievedFrame(
            image=dataset.frame(row),
            episode_index=int(dataset.episodes["index"][owner]),
            frame_index=row - bounds[owner][0],
            distance=float(nearest[query]),
        )

    return [
        FilmStrip(
            episode_index=int(dataset.episodes["index"][episode]),
            instruction=dataset.episodes["tasks"][episode][0],
            trained_on=trained_on[number],
            first_frame=firsts[number],
            true_images=[dataset.frame(bounds[episode][0] + firsts[number] + ahead) for ahead in range(steps + 1)],
            retrieved=[retrieved(number * steps + step) for step in range(steps)],
            energies=energies[number],
            still_energies=still_energies[number],
        )
        for number, episode in enumerate(episodes)
    ]


__all__ = ["FilmStrip", "RetrievedFrame", "film_strips"]
