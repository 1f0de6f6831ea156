# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The animation of README shows every episode in its place, and a green frame once the task is done."""

import numpy as np
from PIL import ImageColor

from nora15_hf.evaluation.episodes import EpisodeResult
from rollout_animation import GREEN, MARGIN, PICTURE, TITLE, animation


def episode(task: str, colors: list[str], success: bool) -> EpisodeResult:
    frames = [np.full((12, 12, 3), ImageColor.getrgb(color), dtype=np.uint8) for color in colors]
    return EpisodeResult(task, 0, "open the drawer", success, len(colors), frames)


def test_frames_of_the_animation():
    short = episode("a", ["red", "blue"], success=True)
    long = episode("b", ["yellow", "black", "magenta"], success=False)
    pictures = animation({"Before": [long, short], "After": [short]})
    assert len(pictures) == 3
    left, top = MARGIN, MARGIN + TITLE
    right = left + PICTURE + MARGIN
    centre = PICTURE // 2

    def colors(corner: tuple[int, int]) -> list[tuple[int, ...]]:
        return [picture.getpixel((corner[0] + centre, corner[1] + centre)) for picture in pictures]

    assert colors((left, top)) == [ImageColor.getrgb(name) for name in ("yellow", "black", "magenta")]
    # An episode that has ended keeps its last frame.
    assert colors((right, top)) == [ImageColor.getrgb(name) for name in ("red", "blue", "blue")]
    assert [picture.getpixel((right, top)) == GREEN for picture in pictures] == [False, True, True]
    assert all(picture.getpixel((left, top)) != GREEN for picture in pictures)
