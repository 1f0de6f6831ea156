# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the frames of a camera have in common, however they are stored."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .lerobot_table import FrameTable


class CameraFrames(ABC):
    """Reads the frames of one camera by their row in a `FrameTable`.

    No file stays open across processes, so that the object can be forked or sent to data-loading workers.

    Args:
        root (`Path`): Local folder of the dataset.
        table (`FrameTable`): Says where each frame lies.
        key (`str`): Image or video feature.
        size (`tuple[int, int]`): Height and width in pixels that every frame must have.
        cache (`bool`):
            `True` keeps decoded frames in one uint8 `(N, height, width, 3)` array, filled group by group when first
            touched. `False` decodes on every read.
    """

    def __init__(self, root: Path, table: FrameTable, key: str, size: tuple[int, int], cache: bool):
        self.root = root
        self.key = key
        self.size = size
        self.cache = cache
        self._table = table
        rows = len(table.episode) if cache else 0
        # The operating system commits memory only where frames are written.
        self._frames = np.empty((rows, *size, 3), dtype=np.uint8)
        self._decoded = np.zeros(rows, dtype=bool)

    def read(self, row: int) -> np.ndarray:
        """Frame at a row of the table.

        Returns:
            `np.ndarray`: uint8 `(height, width, 3)`, a copy.

        Raises:
            FileNotFoundError: The file that holds the frame is missing.
            ValueError: The frame is damaged, missing or not as `meta/info.json` describes it; file and row are named.
        """
        if not self.cache:
            return self._read_one(row)
        if not self._decoded[row]:
            for position, frame in self._read_group(row):
                self._frames[position] = frame
                self._decoded[position] = True
        return self._frames[row].copy()

    def _where(self, row: int) -> str:
        """Data file and row of a frame, as errors name it."""
        file = self._table.files[self._table.file_number[row]]
        return f"{self.root / file}, row {self._table.file_row[row]}"

    @abstractmethod
    def _read_one(self, row: int) -> np.ndarray:
        """Frame at a row."""

    @abstractmethod
    def _read_group(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        """Rows and frames that are cheap to read together with that of `row`."""


__all__ = ["CameraFrames"]
