# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips for the world model: windows of consecutive frames and the actions between them."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from ..data.dataset_fingerprint import samples_fingerprint
from ..data.lerobot_dataset import LeRobotDataset
from ..repo_files.fingerprint import digest
from .clip_conventions import ClipConventions


class LatentSequence(Protocol):
    """Latents of the F frames of an episode: a tensor `(F, P, D)`, or something that reads or makes them when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int | slice) -> torch.Tensor: ...


@dataclass(frozen=True)
class LatentEpisode:
    """
    One episode as the predictor sees it.

    Args:
        latents ([`LatentSequence`]): `(F, P, D)`, layer-normed.
        actions (`torch.Tensor` of shape `(F, A)`): In the model's units; the last leads nowhere.
        states (`torch.Tensor` of shape `(F, S)`, *optional*): Poses, in the metric convention.
    """

    latents: LatentSequence
    actions: torch.Tensor
    states: torch.Tensor | None = None


class EpisodeClips(Dataset):
    """
    Windows of `num_frames` consecutive frames of one episode with the `num_frames - 1` actions taken between them.

    Frames stay where they are until they are asked for; actions are kept, normalised.

    Args:
        dataset ([`LeRobotDataset`]): The episodes; open it through [`ClipConventions.open_dataset`].
        conventions ([`ClipConventions`]): Camera, columns and units.
        num_frames (`int`, *optional*, defaults to 8): Frames per clip, T.
        stride (`int`, *optional*, defaults to 1): Frames between the starts of neighbouring windows.

    Items are dictionaries: `frames` uint8 `(T, height, width, 3)`, or `latents` float32 `(T, P, D)` after
    [`~EpisodeClips.with_latents`]; `actions` float32 `(T - 1, A)`; in the metric convention `states` `(T, S)`.

    Raises:
        ValueError: Another camera or column than the conventions'; no episode as long as a clip.
    """

    def __init__(
        self, dataset: LeRobotDataset, conventions: ClipConventions, num_frames: int = 8, stride: int = 1
    ) -> None:
        if num_frames < 2 or stride < 1:
            raise ValueError(
                f"`num_frames`={num_frames} must be at least 2 (a frame and the next) and `stride`={stride} at least 1."
            )
        self.dataset, self.conventions = dataset, conventions
        self.num_frames, self.stride = num_frames, stride
        self.actions, self.states = conventions.actions_and_states(dataset)
        self._latents: Sequence[LatentSequence] | None = None
        self._bounds = list(zip(dataset.episodes["from"].tolist(), dataset.episodes["to"].tolist(), strict=True))
        starts = [np.arange(start, stop - num_frames + 1, stride) for start, stop in self._bounds]
        # One row (episode, position of its first frame in the dataset) per window.
        self._windows = np.concatenate([np.stack([np.full_like(s, e), s], axis=1) for e, s in enumerate(starts)])
        if not len(self._windows):
            longest = max(stop - start for start, stop in self._bounds)
            raise ValueError(
                f"None of the {self.num_episodes} episodes has `num_frames`={num_frames} frames (the longest has "
                f"{longest}). Record longer episodes or ask for shorter clips."
            )

    def fingerprint(self) -> str:
        """Digest that is equal for runs on the same clips; see [`samples_fingerprint`]."""
        told = f"{samples_fingerprint(self.dataset)} {self.num_frames} {self.stride}"
        return digest([told.encode(), self.actions.contiguous().numpy()])

    @property
    def num_episodes(self) -> int:
        """Number of episodes, also of those too short for a clip."""
        return len(self._bounds)

    @property
    def has_latents(self) -> bool:
        """Whether items hold latents in the place of frames."""
        return self._latents is not None

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        episode, start = self._windows[index].tolist()
        stop = start + self.num_frames
        item = {"actions": self.actions[start : stop - 1]}
        if self.states is not None:
            item["states"] = self.states[start:stop]
        if self._latents is None:
            item["frames"] = self.frames(range(start, stop))
        else:
            first = self._bounds[episode][0]
            item["latents"] = self._latents[episode][start - first : stop - first]
        return item

    def episode_frames(self, episode: int) -> torch.Tensor:
        """All frames of an episode (its position among the selected), uint8 `(F, height, width, 3)`."""
        return self.frames(range(*self._bounds[episode]))

    def with_latents(self, latents: Sequence[LatentSequence]) -> "EpisodeClips":
        """
        The same clips with latents in the place of frames.

        Args:
            latents (sequence of [`LatentSequence`]): One per episode.

        Raises:
            ValueError: Another number of episodes or of frames in one.
        """
        found, expected = list(map(len, latents)), [stop - start for start, stop in self._bounds]
        if found != expected:
            raise ValueError(f"`latents` are of episodes of {found} frames; the clips' episodes have {expected}.")
        clips = copy(self)
        clips._latents = latents
        return clips

    def encoded_on_demand(self, encode_frames: Callable[[torch.Tensor], torch.Tensor]) -> "EpisodeClips":
        """
        The same clips with latents that are made each time they are asked for: for a few frames of many.

        Args:
            encode_frames (callable): Takes uint8 `(F, height, width, 3)`, returns latents `(F, P, D)`.
        """
        return self.with_latents(
            [_EncodedOnDemand(self, range(start, stop), encode_frames) for start, stop in self._bounds]
        )

    def latent_episodes(self) -> list[LatentEpisode]:
        """Every episode with its latents; needs [`~EpisodeClips.with_latents`] before."""
        return [
            LatentEpisode(latents, self.actions[start:stop], None if self.states is None else self.states[start:stop])
            for latents, (start, stop) in zip(self._latents, self._bounds, strict=True)
        ]

    def frames(self, positions: Sequence[int]) -> torch.Tensor:
        """Frames at some positions of the dataset, uint8 `(F, height, width, 3)`."""
        return torch.from_numpy(np.stack([self.dataset.frame(position) for position in positions]))


class _EncodedOnDemand:
    def __init__(
        self, clips: EpisodeClips, positions: range, encode_frames: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self._clips, self._positions, self._encode_frames = clips, positions, encode_frames

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, frame: int | slice) -> torch.Tensor:
        wanted = self._positions[frame]
        if isinstance(wanted, range):
            return self._encode_frames(self._clips.frames(wanted))
        return self._encode_frames(self._clips.frames([wanted]))[0]


__all__ = ["EpisodeClips", "LatentEpisode", "LatentSequence"]
