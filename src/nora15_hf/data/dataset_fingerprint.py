# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A fingerprint that shows whether two LeRobot datasets are the same."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, Subset

from ..repo_files.fingerprint import digest, file_digest
from .lerobot_dataset import LeRobotDataset
from .lerobot_mixture import LeRobotMixture
from .lerobot_source import LeRobotReader
from .lerobot_stream import LeRobotStreamMixture

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
    return digest(
        part
        for file in _files(root, CONTENT_FOLDERS)
        for part in (file.relative_to(root).as_posix().encode(), _file_digest(file, *_state(file)))
    )


def samples_fingerprint(dataset: Dataset) -> str | None:
    """
    Digest that is equal for runs on the same samples, without reading pictures: of the chosen episodes and features, the
    content of `meta`, actions and states, and for a local folder the names and sizes of all files. Actions and states of a
    stream are not read.

    Args:
        dataset: A reader of this package, a mixture of them, or a subset or concatenation; None is returned for others.
    """
    parts = list(_sample_parts(dataset))
    return None if any(part is None for part in parts) else digest(parts)


def _sample_parts(dataset: Dataset) -> Iterator[bytes | np.ndarray | None]:
    if isinstance(dataset, LeRobotMixture | LeRobotStreamMixture):
        yield np.asarray(dataset.weights)
        for member in dataset.members:
            yield from _sample_parts(member)
    elif type(dataset) is ConcatDataset:
        for part in dataset.datasets:
            yield from _sample_parts(part)
    elif type(dataset) is Subset:
        yield np.asarray(dataset.indices)
        yield from _sample_parts(dataset.dataset)
    elif isinstance(dataset, LeRobotReader):
        yield repr((dataset.image_keys, dataset.action_key, dataset.state_key, dataset.chunk_size)).encode()
        yield dataset.episode_indices
        root = dataset.root.resolve()
        for file in _files(root, CONTENT_FOLDERS[:1] if dataset.revision else CONTENT_FOLDERS):
            is_meta = file.is_relative_to(root / "meta")
            content = _file_digest(file, *_state(file)) if is_meta else str(file.stat().st_size).encode()
            yield file.relative_to(root).as_posix().encode() + content
        if isinstance(dataset, LeRobotDataset):
            yield np.ascontiguousarray(dataset.all_actions())
            if dataset.state_key is not None:
                yield np.ascontiguousarray(dataset.all_states())
    else:
        yield None


def _files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in (root / folder).rglob("*") if path.is_file())


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _file_digest(file: Path, size: int, modified_ns: int) -> bytes:
    """Digest of a file's content, read again when its size or its time of change is another."""
    return file_digest(file)


__all__ = ["dataset_fingerprint", "samples_fingerprint"]
