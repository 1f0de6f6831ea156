# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A fingerprint that shows whether two LeRobot datasets are the same."""

from functools import cache
from pathlib import Path

from ..repo_files.fingerprint import digest, file_digest
from .lerobot_dataset import LeRobotDataset

# Everything but the card, which may be rewritten at any time.
CONTENT_FOLDERS = ("meta", "data", "videos")


def dataset_fingerprint(dataset: LeRobotDataset) -> str:
    """
    The commit of a dataset from the Hub; of a local folder a digest of its files, which reads them all.

    Args:
        dataset ([`LeRobotDataset`]): Whatever episodes are selected, the whole dataset counts.
    """
    if dataset.revision is not None:
        return dataset.revision
    root = dataset.root.resolve()
    files = [
        file
        for folder in CONTENT_FOLDERS
        for file in sorted(path for path in (root / folder).rglob("*") if path.is_file())
    ]
    return digest(
        part
        for file in files
        for part in (file.relative_to(root).as_posix().encode(), _file_digest(file, *_state(file)))
    )


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _file_digest(file: Path, size: int, modified_ns: int) -> bytes:
    """Digest of a file's content, read again when its size or its time of change is another."""
    return file_digest(file)


__all__ = ["dataset_fingerprint"]
