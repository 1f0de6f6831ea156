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

    def check_files(self) -> None:
        """Open each file, and raise, as `read` does, when it is missing, damaged or ends before the frames in it."""
        present, first = np.unique(self._table.episode, return_index=True)
        last = np.append(first[1:], len(self._table.episode)) - 1
        start = self._videos.start[present]
        numbers = np.unique([self._videos.file[episode] for episode in present], return_inverse=True)[1]
        order = np.lexsort((start, numbers))
        for held in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            episode, frames = present[held[-1]], last[held[-1]] - first[held[-1]] + 1
            try:
                decoder = self._decoders.get(self._videos.file[episode], self.size)
                decoder.check_reaches(float(start[held[-1]] + (frames - 0.5) / decoder.fps))
            except (OSError, ValueError) as error:
                raise type(error)(f"{self._where(first[held[0]])}: video {self.key!r}: {error}") from error

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
