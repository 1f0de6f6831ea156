# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames of video files by their time, exact to the frame, with decoders kept open."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ..simulation.installation import extra_command
from .lerobot_files import why_unreadable

# Decoding on is cheaper than seeking while the wanted frame is this near behind the last one.
FRAMES_DECODED_ON = 8


class VideoDecoder:
    """Frames of one video file.

    Args:
        path (`Path`): The file.
        fps (`float`): Frames per second that it must have.
        size (`tuple[int, int]`): Height and width that its frames must have.

    Raises:
        FileNotFoundError: The file is missing.
        ImportError: PyAV is not installed.
        ValueError: The file cannot be opened, or has no video, another frame rate or another size.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        self.path = path
        self.fps = fps
        av = import_av()
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, but the dataset's tables refer to it. Fetch the dataset again."
            )
        self._ffmpeg_error = av.FFmpegError
        try:
            self._container = av.open(str(path))
        except av.FFmpegError as error:
            raise ValueError(f"{path} cannot be opened as a video ({error}). {why_unreadable(path)}") from error
        if not self._container.streams.video:
            raise ValueError(f"{path} holds no video. Record or fetch it again.")
        self._stream = self._container.streams.video[0]
        # Data-loading workers run side by side already; threads of a decoder would also not survive a fork.
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        rate = self._stream.average_rate
        # A hundredth lets 29.97 pass for 30; the time of every frame is checked besides.
        if rate is None or abs(float(rate) - fps) > 0.01 * fps:
            raise ValueError(
                f"{path} has {'no frame rate' if rate is None else f'{float(rate):.6g} frames per second'}, "
                f"meta/info.json says {fps}. Correct fps there or record the dataset again."
            )
        if (self._stream.height, self._stream.width) != size:
            raise ValueError(
                f"{path} has frames of {self._stream.height} x {self._stream.width}, meta/info.json says {size[0]} x "
                f"{size[1]}. Correct the shape there or record the dataset again."
            )
        self._frames = self._container.decode(self._stream)
        self._last = None

    def frame_at(self, seconds: float) -> np.ndarray:
        """The frame shown at a time.

        Args:
            seconds (`float`): Time in the file, which may be off by less than half a frame.

        Returns:
            `np.ndarray`: uint8 `(height, width, 3)`, RGB.

        Raises:
            ValueError: No frame lies within half a frame of that time, or the video is damaged there.
        """
        try:
            frame = self._find(seconds)
        except self._ffmpeg_error as error:
            self._last = None
            raise ValueError(
                f"{self.path} cannot be decoded at {seconds:.6g} s ({error}). The copy is truncated or damaged: fetch or "
                "record it again."
            ) from error
        # One thread here, too.
        return frame.reformat(format="rgb24", threads=1).to_ndarray()

    def check_reaches(self, seconds: float) -> None:
        """Raise a `ValueError` if the file ends before a time, according to its header. Nothing is decoded."""
        if self._stream.duration is None:
            return
        end = float(((self._stream.start_time or 0) + self._stream.duration) * self._stream.time_base)
        if end < seconds:
            raise ValueError(
                f"{self.path} ends at {end:.6g} s, before the frames that the episode table expects in it, which need "
                f"{seconds:.6g} s. The video is truncated or the table is wrong: fetch or convert the dataset again."
            )

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _find(self, seconds: float) -> Any:
        half = 0.5 / self.fps
        if self._last is not None and abs(self._last.time - seconds) < half:
            return self._last
        if self._last is None or not 0 < seconds - self._last.time < FRAMES_DECODED_ON / self.fps:
            # To the last key frame that is not behind the wanted one.
            self._container.seek(int((seconds + half) / self._stream.time_base), stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
        frame = next(self._frames, None)
        while frame is not None and frame.time <= seconds - half:
            frame = next(self._frames, None)
        self._last = frame
        if frame is None or frame.time >= seconds + half:
            found = "ends before it" if frame is None else f"goes on at {frame.time:.6g} s"
            raise ValueError(
                f"{self.path} has no frame within half a frame of {seconds:.6g} s: it {found}. The video is truncated, or "
                "fps or the episode's timestamps are wrong: correct them or record the dataset again."
            )
        return frame


class VideoDecoders:
    """Open decoders of the files of a dataset, the most recently used ones kept.

    Decoders are opened when first asked for and belong to one process: after a fork, or when sent to another process,
    the files are opened anew.

    Args:
        root (`Path`): Folder that file names are relative to.
        fps (`float`): Frame rate of all files.
        kept (`int`, defaults to 16): Files held open, over all cameras.
    """

    def __init__(self, root: Path, fps: float, kept: int = 16):
        self.root = root
        self.fps = fps
        self.kept = kept
        self._decoders: OrderedDict[str, VideoDecoder] = OrderedDict()
        self._process = os.getpid()

    def get(self, file: str, size: tuple[int, int]) -> VideoDecoder:
        """Decoder of a file; see [`VideoDecoder`] for the errors."""
        if self._process != os.getpid():
            # A forked process shares file positions with its parent.
            self._decoders = OrderedDict()
            self._process = os.getpid()
        if file not in self._decoders:
            decoder = VideoDecoder(self.root / file, self.fps, size)
            if len(self._decoders) == self.kept:
                self._decoders.popitem(last=False)[1].close()
            self._decoders[file] = decoder
        self._decoders.move_to_end(file)
        return self._decoders[file]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_decoders": OrderedDict()}


def import_av() -> Any:
    """The PyAV package, or an `ImportError` with the command that installs it."""
    # Imported here: PyAV is an extra that datasets of images do without.
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"Video needs PyAV, which is not installed. Install it with {extra_command('video')}, or leave the camera out "
            "with `image_keys`."
        ) from error
    return av


__all__ = ["VideoDecoder", "VideoDecoders", "import_av"]
