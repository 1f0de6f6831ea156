# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One video file, written frame by frame."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .video_decoder import import_av

PIXEL_FORMAT = "yuv420p"
# A key frame at every other frame, as LeRobot writes: random access then decodes two frames at most. The qualities are
# near the encoders' defaults.
CODECS = {
    "h264": ("libx264", {"g": "2", "crf": "23", "preset": "fast"}),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "8"}),
}


class VideoFile:
    """An mp4 file.

    Args:
        path (`Path`): Its folder is made if it is missing.
        fps (`float`): Frames per second.
        size (`tuple[int, int]`): Height and width, both even.
        codec (`str`): Key of `CODECS`.

    Attributes:
        num_frames (`int`): So far.
        num_bytes (`int`): That the encoder has given so far.

    Raises:
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], codec: str = "h264"):
        self._av = import_av()
        self._rate = Fraction(fps).limit_denominator(10_000)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(path), "w", format="mp4")
        encoder, options = CODECS[codec]
        self._stream = self._container.add_stream(encoder, rate=self._rate, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = PIXEL_FORMAT
        # What an encoder writes can depend on the number of its threads; nor is it the same on every machine.
        self._stream.codec_context.thread_count = 1
        self.num_frames = self.num_bytes = 0

    def add(self, pixels: np.ndarray) -> None:
        """Append a frame, uint8 `(height, width, 3)`."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=PIXEL_FORMAT, threads=1)
        frame.pts = self.num_frames
        frame.time_base = 1 / self._rate
        self._encode(frame)
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._encode(None)
        self._container.close()

    def _encode(self, frame: Any) -> None:
        """Write what the encoder has ready after one more frame, or all of it after the last (`None`)."""
        for packet in self._stream.encode(frame):
            # Counted here: what has reached the file lags behind by the container's buffers.
            self.num_bytes += packet.size
            self._container.mux(packet)


__all__ = ["CODECS", "PIXEL_FORMAT", "VideoFile"]
