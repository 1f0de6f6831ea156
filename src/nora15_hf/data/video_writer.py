# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Video files of one camera of a LeRobot v3.0 dataset, several episodes per file."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .lerobot_layout import CHUNKS_SIZE, VIDEO_PATH
from .video_decoder import import_av

PIXEL_FORMAT = "yuv420p"
# A key frame at every other frame, as LeRobot writes: random access then decodes two frames at most. The qualities are
# near the encoders' defaults.
CODECS = {
    "h264": ("libx264", {"g": "2", "crf": "23", "preset": "fast"}),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "8"}),
}


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
        self._av = import_av()
        self.root = root
        self.key = key
        self.fps = fps
        self.size = size
        self.codec = codec
        self.max_file_size_mb = max_file_size_mb
        self._rate = Fraction(fps).limit_denominator(10_000)
        self._num_files = 0
        self._container = None

    def add_episode(self, frames: np.ndarray) -> dict[str, int | float]:
        """Append one episode.

        Args:
            frames (`np.ndarray`): uint8 `(F, height, width, 3)`.

        Returns:
            `dict[str, int | float]`: `chunk_index` and `file_index` of its file, and `from_timestamp` and
            `to_timestamp` in seconds within it.
        """
        if self._container is None:
            self._open()
        first = self._num_frames
        for pixels in frames:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=PIXEL_FORMAT, threads=1)
            frame.pts = self._num_frames
            frame.time_base = 1 / self._rate
            self._encode(frame)
            self._num_frames += 1
        chunk_index, file_index = divmod(self._num_files - 1, CHUNKS_SIZE)
        if self._num_bytes >= self.max_file_size_mb * 2**20:
            self.close()
        return {
            "chunk_index": chunk_index,
            "file_index": file_index,
            "from_timestamp": first / self.fps,
            "to_timestamp": self._num_frames / self.fps,
        }

    def close(self) -> None:
        """Finish the file that is open, if one is."""
        if self._container is not None:
            self._encode(None)
            self._container.close()
            self._container = None

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

    def _open(self) -> None:
        chunk_index, file_index = divmod(self._num_files, CHUNKS_SIZE)
        path = self.root / VIDEO_PATH.format(video_key=self.key, chunk_index=chunk_index, file_index=file_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(path), "w", format="mp4")
        encoder, options = CODECS[self.codec]
        self._stream = self._container.add_stream(encoder, rate=self._rate, options=options)
        self._stream.height, self._stream.width = self.size
        self._stream.pix_fmt = PIXEL_FORMAT
        # What an encoder writes can depend on the number of its threads; nor is it the same on every machine.
        self._stream.codec_context.thread_count = 1
        self._num_frames = self._num_bytes = 0
        self._num_files += 1

    def _encode(self, frame: Any) -> None:
        """Write what the encoder has ready after one more frame, or all of it after the last (`None`)."""
        for packet in self._stream.encode(frame):
            # Counted here: what has reached the file lags behind by the container's buffers.
            self._num_bytes += packet.size
            self._container.mux(packet)


__all__ = ["CODECS", "VideoWriter"]
