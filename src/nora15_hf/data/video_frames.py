# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames of one camera of a LeRobot dataset, stored as video files."""

from collections.abc import Iterator

import numpy as np

from .camera_frames import CameraFrames
from .lerobot_episodes import EpisodeVideos
from .lerobot_table import FrameTable
from .video_decoder import VideoDecoders


class VideoFrames(CameraFrames):
    """Frames in video files; see [`CameraFrames`]. A group is an episode.

    Times are computed from frame numbers: stored float32 seconds drift in long files.

    Args:
        decoders ([`VideoDecoders`]): Shared by the cameras of a dataset.
        table, key, size, cache: As for [`CameraFrames`].
        videos ([`EpisodeVideos`]): File and start of each episode, by position in the episode table.
    """

    def __init__(
        self,
        decoders: VideoDecoders,
        table: FrameTable,
        key: str,
        size: tuple[int, int],
        cache: bool,
        videos: EpisodeVideos,
    ):
        super().__init__(decoders.root, table, key, size, cache)
        self._decoders = decoders
        self._videos = videos

    def check_episode(self, first: int, last: int) -> None:
        """Raise, as `read` does, when the video of the episode between two rows is missing, damaged or cut short."""
        self._read_one(first)
        self._read_one(last)

    def _read_one(self, row: int) -> np.ndarray:
        episode = self._table.episode[row]
        seconds = self._videos.start[episode] + self._table.frame_index[row] / self._decoders.fps
        try:
            return self._decoders.get(self._videos.file[episode], self.size).frame_at(float(seconds))
        except (OSError, ValueError) as error:
            raise type(error)(f"{self._where(row)}: video {self.key!r}: {error}") from error

    def _read_group(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        for position in range(*np.searchsorted(self._table.episode, self._table.episode[row] + np.array([0, 1]))):
            yield position, self._read_one(position)


__all__ = ["VideoFrames"]
