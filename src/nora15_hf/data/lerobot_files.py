# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading the parquet and JSON files of a dataset, with errors that name the file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_LFS_POINTER = "version https://git-lfs"
_PULL = "It is a Git LFS pointer in place of the file: run `git lfs pull` in the clone of the dataset."


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
        raise ValueError(f"{path} cannot be read as parquet ({error}). {why_unreadable(path)}") from error


def why_unreadable(path: Path) -> str:
    """What is likely to be wrong with a file of a dataset that cannot be read, and how to mend it."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER.encode():
            return _PULL
    return "Either its writer was not finalised or the copy is cut short or damaged: record or fetch it again."


def read_parquet(root: Path, file: str, columns: list[str], optional: Sequence[str] = ()) -> pa.Table:
    """
    Read columns of one parquet file of a dataset, the optional ones where they are.

    Raises:
        FileNotFoundError, ValueError: As [`open_parquet`]; lack of a column.
    """
    with open_parquet(root, file) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(
                f"{root / file} has no column {missing[0]!r}. Its columns: {', '.join(names)}. "
                "Record or convert the dataset again."
            )
        columns = [*columns, *(name for name in optional if name in names)]
        # A name with a dot also selects columns below it, hence the second selection.
        return parquet.read(columns=columns).select(columns)


def parse_json(text: str, where: str) -> dict:
    """The object that a JSON text holds, or a `ValueError` that begins with `where`."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = _PULL if text.startswith(_LFS_POINTER) else "Fetch or record the dataset again."
        raise ValueError(f"{where} is not valid JSON ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{where} is a {type(content).__name__}, expected an object. Fetch or record the dataset again."
        )
    return content


def whole_number(value: Any) -> Any:
    """A float without a fraction, as which some writers store integers, as an `int`; other values as they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_json_lines(path: Path, types: dict[str, type]) -> dict[int, dict]:
    """Objects by the number of their line, the given keys of the given types; the first line that differs is named."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Fetch or convert the dataset again.")
    rows = {}
    # Not `splitlines`: JSON may hold other line separators of Unicode inside a text.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number},")
        for key, kind in types.items():
            row[key] = whole_number(row.get(key))
            if not isinstance(row[key], kind):
                raise ValueError(
                    f"{path}, line {number}: {key} is {row[key]!r}, expected {kind.__name__}. "
                    "Fetch or convert the dataset again."
                )
        rows[number] = row
    return rows


__all__ = ["open_parquet", "parse_json", "read_json_lines", "read_parquet", "whole_number", "why_unreadable"]
