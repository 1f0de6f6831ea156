# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Progress bars where there is no terminal: one plain line every fifteen seconds, whichever library drew the bar. Colours only on a
terminal, and none if `NO_COLOR` is set.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm.auto import tqdm

SECONDS_BETWEEN_LINES = 15.0
# Colours; everything that a terminal does not show, such as moves of its cursor; and the bar between its two ends.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r" *\|[^|]*\| *")


class ColourlessText:
    """
    A text stream that removes colours, which libraries write without regard to `NO_COLOR` or to what the stream is.

    Args:
        stream (`TextIO`): Where the text goes.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text without its colours."""
        self._stream.write(_COLOURS.sub("", text))
        return len(text)


class PlainProgress(ColourlessText):
    """
    A text stream that passes everything on but progress bars, of which it writes the latest state at times.

    A bar is what begins with a carriage return. tqdm writes each of its states in one call, and ends the last with a line feed
    of its own.

    Args:
        stream (`TextIO`): Where the text goes.
        clock (`Callable[[], float]`): Seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        super().__init__(stream)
        self._clock = clock
        self._last = clock()
        self._follows_bar = False

    def write(self, text: str) -> int:
        """Writes text, or keeps the state of a bar until its time comes."""
        visible = _ESCAPES.sub("", text)
        if visible.startswith("\r") and "\n" not in visible:
            self._keep(visible.rpartition("\r")[2].strip())
            self._follows_bar = True
        # After a bar, a line feed alone ends it or moves the cursor to the next.
        elif visible.strip("\n") or not self._follows_bar:
            super().write(text)
            self._follows_bar = False
        return len(text)

    def _keep(self, state: str) -> None:
        # An empty one makes room for a message.
        if state and self._clock() - self._last >= SECONDS_BETWEEN_LINES:
            self._stream.write(_BAR.sub(" ", state) + "\n")
            self._stream.flush()
            self._last = self._clock()


@contextmanager
def plain_progress() -> Iterator[None]:
    """
    Within it, and as a decorator of a command's `main`, bars on the standard error become a plain line every fifteen seconds
    and colours are removed, unless it is a terminal; on a terminal `NO_COLOR` removes the colours.
    """
    stream = sys.stderr
    if stream.isatty():
        sys.stderr = ColourlessText(stream) if os.environ.get("NO_COLOR") else stream
    else:
        sys.stderr = PlainProgress(stream)
    try:
        yield
    finally:
        sys.stderr = stream


def whole_run(total: float, description: str) -> tqdm:
    """
    On a terminal the bar of a run of several stages, with the time left, which stands above the bars of the stage. A line tells
    of the stage alone.

    Args:
        total (`float`): Sum of the stages' parts, in any unit; `update` adds those that are finished.
        description (`str`): Name of the run.
    """
    return tqdm(
        total=total,
        desc=description,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
        disable=not sys.stderr.isatty(),
    )


__all__ = ["ColourlessText", "PlainProgress", "plain_progress", "whole_run"]
