# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What tells whether two LeRobot datasets are the same one."""

import hashlib
from pathlib import Path

from .lerobot_dataset import LeRobotDataset

# Everything but the card, which may be rewritten at any time.
CONTENT_FOLDERS = ("meta", "data", "videos")


def dataset_fingerprint(dataset: LeRobotDataset) -> str:
    """
    The commit of a dataset from the Hub; of a local folder a digest of its files, which reads them all.

    Args:
        dataset ([`LeRobotDataset`]): Whatever episodes are selected, the whole dataset counts.
    """
    return dataset.revision if dataset.revision is not None else _content_digest(dataset.root.resolve())


def _content_digest(root: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for folder in CONTENT_FOLDERS:
        for file in sorted(path for path in (root / folder).rglob("*") if path.is_file()):
            digest.update(file.relative_to(root).as_posix().encode())
            with open(file, "rb") as content:
                digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()


__all__ = ["dataset_fingerprint"]
