# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Video files of one camera of a LeRobot v3.0 dataset, several episodes per file."""

from pathlib import Path
from typing import Any

import numpy as np

from .lerobot_layout import CHUNKS_SIZE, VIDEO_PATH
from .video_decoder import import_av
from .video_file import CODECS, PIXEL_FORMAT, VideoFile


class VideoWriter:
    """Encodes the frames of one camera, episode after episode.

    Args:
        root (`Path`): Folder of the dataset.
        key (`str`): Video feature.
        fps (`float`): Frames per second.
        size (`tuple[int, int]`): Height and width, both even.
        codec (`str`): Key of `CODECS`.
        max_file_size_mb (`float`): A file is closed with the episode that reaches this.

    Raises:
        ImportError: PyAV is not installed.
    """

    def __init__(self, root: Path, key: str, fps: float, size: tuple[int, int], codec: str, max_file_size_mb: float):
        import_av()
        self.root = root
        self.key = key
        self.fps = fps
        self.size = size
        self.codec = codec
        self.max_file_size_mb = max_file_size_mb
        self._num_files = 0
        self._file: VideoFile | None = None

    def add_episode(self, frames: np.ndarray) -> dict[str, int | float]:
        """Append one episode.

        Args:
            frames (`np.ndarray`): uint8 `(F, height, width, 3)`.

        Returns:
            `dict[str, int | float]`: `chunk_index` and `file_index` of its file, and `from_timestamp` and
            `to_timestamp` in seconds within it.
        """
        if self._file is None:
            chunk_index, file_index = divmod(self._num_files, CHUNKS_SIZE)
            path = VIDEO_PATH.format(video_key=self.key, chunk_index=chunk_index, file_index=file_index)
            self._file = VideoFile(self.root / path, self.fps, self.size, self.codec)
            self._num_files += 1
        file = self._file
        first = file.num_frames
        for pixels in frames:
            file.add(pixels)
        chunk_index, file_index = divmod(self._num_files - 1, CHUNKS_SIZE)
        if file.num_bytes >= self.max_file_size_mb * 2**20:
            self.close()
        return {
            "chunk_index": chunk_index,
            "file_index": file_index,
            "from_timestamp": first / self.fps,
            "to_timestamp": file.num_frames / self.fps,
        }

    def close(self) -> None:
        """Finish the file that is open, if one is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def info(self) -> dict[str, Any]:
        """The `info` entry of the feature in `meta/info.json`."""
        return {
            "video.height": self.size[0],
            "video.width": self.size[1],
            "video.codec": self.codec,
            "video.pix_fmt": PIXEL_FORMAT,
            "is_depth_map": False,
            "video.fps": self.fps,
            "video.channels": 3,
            "has_audio": False,
        }


__all__ = ["CODECS", "VideoWriter"]
