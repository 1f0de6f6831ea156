# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading the parquet and JSON files of a dataset, with errors that name the file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def open_parquet(root: Path, file: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Open one parquet file of a dataset and close it again, also after an error.

    Args:
        root (`Path`): Local folder of the dataset.
        file (`str`): Path relative to `root`.
        metadata (`pq.FileMetaData`, *optional*): Footer from an earlier visit, which spares reading it again.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is truncated or damaged.
    """
    path = root / file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but the dataset's tables refer to it. Fetch the dataset again.")
    try:
        with path.open("rb") as handle, pq.ParquetFile(handle, metadata=metadata) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as parquet ({error}). Either its writer was not finalised or the copy is cut short "
            "or damaged: record or fetch it again."
        ) from error


def read_parquet(root: Path, file: str, columns: list[str]) -> pa.Table:
    """Read columns of one parquet file of a dataset; raises as [`open_parquet`], or `ValueError` for lack of a column."""
    with open_parquet(root, file) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(
                f"{root / file} has no column {missing[0]!r}. Its columns: {', '.join(names)}. "
                "Record or convert the dataset again."
            )
        # A name with a dot also selects columns below it, hence the second selection.
        return parquet.read(columns=columns).select(columns)


def parse_json(text: str, where: str) -> dict:
    """JSON text, or a `ValueError` that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON ({error}). Fetch or record the dataset again.") from error


def read_json_lines(path: Path, types: dict[str, type]) -> list[dict]:
    """Lines of JSON whose keys have the given types; the first line that has not is named."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Fetch or convert the dataset again.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = parse_json(line, f"{path}, line {number},")
        for key, kind in types.items():
            if not isinstance(row.get(key), kind):
                raise ValueError(
                    f"{path}, line {number}: {key} is {row.get(key)!r}, expected {kind.__name__}. "
                    "Fetch or convert the dataset again."
                )
        rows.append(row)
    return rows


__all__ = ["open_parquet", "parse_json", "read_json_lines", "read_parquet"]
