# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips for the world model: windows of consecutive frames and the actions between them."""

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import torch
from torch.utils.data import Dataset


class EpisodeClips(Dataset):
    """
    Windows of `num_frames` consecutive frames of one episode with the `num_frames - 1` actions taken between them.

    Args:
        episodes (sequence of `(frames, actions)`):
            `frames` uint8 `(F, height, width, 3)`; `actions` `(F, A)`, the action **executed** at each frame,
            normalised as the policy's. (Where a demonstrator's label and the executed action differ, the executed one
            is what moved the robot.)
        num_frames (`int`, *optional*, defaults to 8):
            Frames per clip, T.
        stride (`int`, *optional*, defaults to 1):
            Frames between the starts of neighbouring windows.

    Items are dictionaries: `frames` uint8 `(T, height, width, 3)`, or `latents` `(T, P, D)` after [`~EpisodeClips.encoded`], and
    `actions` float32 `(T - 1, A)`.

    Raises:
        ValueError: An episode whose arrays do not match, or hold NaN; no episode as long as a clip.
    """

    def __init__(
        self, episodes: Sequence[tuple[np.ndarray, np.ndarray]], num_frames: int = 8, stride: int = 1
    ) -> None:
        if num_frames < 2 or stride < 1:
            raise ValueError(
                f"`num_frames`={num_frames} must be at least 2 (a frame and the next) and `stride`={stride} at least 1."
            )
        self.frames = [torch.as_tensor(frames) for frames, _ in episodes]
        self.actions = [torch.as_tensor(actions, dtype=torch.float32) for _, actions in episodes]
        for index, (frames, actions) in enumerate(zip(self.frames, self.actions, strict=True)):
            if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
                raise ValueError(
                    f"`episodes[{index}]` has frames of shape {tuple(frames.shape)} and type {frames.dtype}, expected "
                    "uint8 (frames, height, width, 3)."
                )
            if frames.shape[1:] != self.frames[0].shape[1:]:
                raise ValueError(
                    f"`episodes[{index}]` has frames of {tuple(frames.shape[1:3])} pixels, `episodes[0]` of "
                    f"{tuple(self.frames[0].shape[1:3])}. Images of one training set must have one size."
                )
            if actions.ndim != 2 or len(actions) != len(frames) or actions.shape[1] != self.actions[0].shape[1]:
                raise ValueError(
                    f"`episodes[{index}]` has {len(frames)} frames and actions of shape {tuple(actions.shape)}, "
                    f"expected ({len(frames)}, {self.actions[0].shape[-1]}): one action per frame."
                )
            if not actions.isfinite().all():
                raise ValueError(f"`episodes[{index}]` has actions that are NaN or infinite. Repair or drop it.")
        self.num_frames = num_frames
        self.stride = stride
        self.latents: list[torch.Tensor] | None = None
        self.windows = [
            (episode, start)
            for episode, frames in enumerate(self.frames)
            for start in range(0, len(frames) - num_frames + 1, stride)
        ]
        if not self.windows:
            longest = max(map(len, self.frames), default=0)
            raise ValueError(
                f"None of the {len(self.frames)} `episodes` has `num_frames`={num_frames} frames (the longest has "
                f"{longest}). Record longer episodes or ask for shorter clips."
            )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        episode, start = self.windows[index]
        stop = start + self.num_frames
        item = {"actions": self.actions[episode][start : stop - 1]}
        if self.latents is None:
            item["frames"] = self.frames[episode][start:stop]
        else:
            item["latents"] = self.latents[episode][start:stop]
        return item

    def encoded(self, encode_frames: Callable[[torch.Tensor], torch.Tensor]) -> "EpisodeClips":
        """
        The same clips with latents in the place of frames, each frame encoded once although it is in up to T clips.

        Args:
            encode_frames (callable):
                Takes uint8 `(F, height, width, 3)`, returns latents `(F, P, D)`.
        """
        clips = copy(self)
        clips.latents = [encode_frames(frames) for frames in self.frames]
        return clips


__all__ = ["EpisodeClips"]
