# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Recorded episodes: a video each, and a contact sheet of all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.video_file import VideoFile
from ..repo_files.written_whole import written_whole
from .episodes import EpisodeResult

VIDEOS_FOLDER = "videos"
CONTACT_SHEET = "contact_sheet.png"
VIDEO_FPS = 20
"""At most, in simulated time; an environment with a higher control rate shows every so many steps."""
STRIP_FRAMES = 6
TITLE_HEIGHT, LEFT = 14, 2


def video_steps(control_rate: int) -> int:
    """Control steps from one picture of a video to the next."""
    return max(1, round(control_rate / VIDEO_FPS))


def write_recording(folder: Path, episode: EpisodeResult, control_rate: int, strip: Path) -> None:
    """
    Writes the video of an episode, `videos/TASK-SEED.mp4`, in simulated time, and its strip of pictures.

    Args:
        folder (`Path`): That of the evaluation.
        episode ([`EpisodeResult`]): With pictures of every [`video_steps`].
        control_rate (`int`): Steps per second.
        strip (`Path`): PNG file.

    Raises:
        ImportError: PyAV is not installed.
    """
    with written_whole(folder / VIDEOS_FOLDER / f"{episode.file_name}.mp4") as part:
        write_video(part, episode.frames, control_rate / video_steps(control_rate))
    shown = np.linspace(0, len(episode.frames) - 1, STRIP_FRAMES).astype(int)
    with written_whole(strip) as part:
        Image.fromarray(np.concatenate([episode.frames[number] for number in shown], axis=1)).save(part, format="PNG")


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """
    Writes an mp4 file.

    Args:
        path (`Path`): The file.
        frames (`Sequence[np.ndarray]`): uint8 `(height, width, 3)`; a row or column is repeated where a side is odd.
        fps (`float`): Frames per second.

    Raises:
        ImportError: PyAV is not installed.
    """
    height, width = frames[0].shape[:2]
    even = (height + height % 2, width + width % 2)
    video = VideoFile(path, fps, even)
    for frame in frames:
        video.add(np.pad(frame, ((0, even[0] - height), (0, even[1] - width), (0, 0)), mode="edge"))
    video.close()


def write_contact_sheet(folder: Path, strips: Sequence[tuple[EpisodeResult, Path]]) -> None:
    """Writes `contact_sheet.png`: a row of pictures for every recorded episode, from its first to its last."""
    rows = [(_title(episode), Image.open(strip)) for episode, strip in strips]
    font = ImageFont.load_default()
    # Names of tasks can be longer than their pictures are wide.
    width = max(max(row.width, LEFT + round(font.getlength(title)) + LEFT) for title, row in rows)
    sheet = Image.new("RGB", (width, sum(row.height + TITLE_HEIGHT for _, row in rows)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for title, row in rows:
        draw.text((LEFT, top + 1), title, fill="black", font=font)
        sheet.paste(row, (0, top + TITLE_HEIGHT))
        top += row.height + TITLE_HEIGHT
    with written_whole(folder / CONTACT_SHEET) as part:
        sheet.save(part, format="PNG")


def _title(episode: EpisodeResult) -> str:
    outcome = "success" if episode.success else str(episode.failure)
    return f"{episode.task}, seed {episode.seed}: {outcome}, {episode.num_steps} steps"


__all__ = ["CONTACT_SHEET", "VIDEOS_FOLDER", "video_steps", "write_contact_sheet", "write_recording", "write_video"]
