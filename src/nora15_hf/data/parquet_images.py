# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames of one camera of a LeRobot dataset, stored as encoded images inside the data files."""

import io
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from .camera_frames import CameraFrames
from .lerobot_files import open_parquet
from .lerobot_metadata import LeRobotMetadata
from .lerobot_table import FrameTable

# Encoded images that an uncached camera keeps, in bytes: whole row groups. Writers put one episode, a few MB, into each,
# which has to be read as a whole for a single frame.
ENCODED_BYTES_KEPT = 256 * 2**20
# Named, so that bytes of unknown origin do not reach the decoders of rarer formats.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")


def first_image_format(metadata: LeRobotMetadata, key: str) -> str | None:
    """Format of the first embedded image of a camera, as `"PNG"`; `None` where it has none that is read."""
    with open_parquet(metadata.root, metadata.episodes.file[0]) as parquet:
        if key not in parquet.schema_arrow.names:
            return None
        row = next(parquet.iter_batches(batch_size=1, columns=[key]))[key][0].as_py()
    try:
        with Image.open(io.BytesIO(row["bytes"]), formats=IMAGE_FORMATS) as image:
            return image.format
    except (OSError, TypeError):
        return None


class ParquetImages(CameraFrames):
    """Frames embedded in the parquet files; see [`CameraFrames`]. A group is a row group."""

    def __init__(self, root: Path, table: FrameTable, key: str, size: tuple[int, int], cache: bool):
        super().__init__(root, table, key, size, cache)
        self._files: dict[int, tuple[pq.FileMetaData, np.ndarray]] = {}
        self._encoded: OrderedDict[tuple[int, int], pa.Array] = OrderedDict()
        self._encoded_bytes = 0

    def _read_one(self, row: int) -> np.ndarray:
        number, group, first, _ = self._row_group(row)
        return self._decode(self._recent_row_group(number, group)[self._table.file_row[row] - first], row)

    def _read_group(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        number, group, first, after = self._row_group(row)
        encoded = self._read_row_group(number, group)
        # The table may hold only some rows of the group: those of the selected episodes.
        in_file = np.searchsorted(self._table.file_number, [number, number + 1])
        in_group = in_file[0] + np.searchsorted(self._table.file_row[slice(*in_file)], [first, after])
        for position in range(*in_group):
            yield position, self._decode(encoded[self._table.file_row[position] - first], position)

    def _row_group(self, row: int) -> tuple[int, int, int, int]:
        """File number, row group, and the group's first row and the one after its last in the file, for a row of the table."""
        number = int(self._table.file_number[row])
        if number not in self._files:
            with open_parquet(self.root, self._table.files[number]) as parquet:
                metadata = parquet.metadata
            lengths = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._files[number] = (metadata, np.cumsum([0, *lengths]))
        bounds = self._files[number][1]
        group = int(np.searchsorted(bounds, self._table.file_row[row], side="right")) - 1
        return number, group, int(bounds[group]), int(bounds[group + 1])

    def _read_row_group(self, number: int, group: int) -> pa.Array:
        file = self._table.files[number]
        with open_parquet(self.root, file, self._files[number][0]) as parquet:
            if self.key not in parquet.schema_arrow.names:
                raise ValueError(
                    f"{self.root / file} has no column {self.key!r}. "
                    f"Its columns: {', '.join(parquet.schema_arrow.names)}. Record or convert the dataset again."
                )
            column = parquet.read_row_group(group, columns=[self.key], use_threads=False)[self.key]
        if not pa.types.is_struct(column.type):
            raise ValueError(
                f"{self.root / file}: {self.key!r} is stored as {column.type}, expected images embedded as struct<bytes, path>. "
                "Record the dataset again with embedded images."
            )
        return column.combine_chunks().field("bytes")

    def _recent_row_group(self, number: int, group: int) -> pa.Array:
        if (number, group) not in self._encoded:
            encoded = self._read_row_group(number, group)
            self._encoded_bytes += encoded.nbytes
            while self._encoded and self._encoded_bytes > ENCODED_BYTES_KEPT:
                self._encoded_bytes -= self._encoded.popitem(last=False)[1].nbytes
            self._encoded[number, group] = encoded
        self._encoded.move_to_end((number, group))
        return self._encoded[number, group]

    def _decode(self, encoded: pa.Scalar, row: int) -> np.ndarray:
        where = f"{self._where(row)}: image {self.key!r}"
        if not encoded.is_valid:
            raise ValueError(f"{where} has no embedded bytes, only a path. Embed the images in the parquet files.")
        try:
            with Image.open(io.BytesIO(encoded.as_buffer()), formats=IMAGE_FORMATS) as image:
                # Size and mode come from the header, before any pixel is decoded.
                if (image.height, image.width) != self.size or image.mode != "RGB":
                    raise ValueError(
                        f"{where} is {image.height} x {image.width} {image.mode}, meta/info.json says "
                        f"{self.size[0]} x {self.size[1]} RGB. Correct the shape there or record the dataset again."
                    )
                return np.array(image)
        except OSError as error:
            raise ValueError(f"{where} cannot be decoded ({error}). Fetch or record the dataset again.") from error


__all__ = ["ParquetImages", "first_image_format"]
