# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The front matter that lets plain `load_dataset(folder)` find a dataset's rows, and only those."""

from pathlib import Path

from ..repo_files.fingerprint import digest, file_digest


def dataset_configs(folder: str | Path, data_files: str) -> list[dict]:
    """
    The `configs` entry of a dataset card.

    `datasets` caches a local folder under its last part and the configuration's name, not under its content: with the
    usual name "default" a second `preferences/` anywhere on the machine would be answered with the rows of the first.
    The name is therefore made from the content.

    Args:
        folder (`str` or `Path`): Root of the dataset, with its data files written.
        data_files (`str`): Pattern of the parquet files, relative to it.

    Raises:
        FileNotFoundError: No file matches.
    """
    files = sorted(Path(folder).glob(data_files))
    if not files:
        raise FileNotFoundError(
            f"`folder` is {str(folder)!r}, where no file matches {data_files!r}: `load_dataset` would find nothing. Write "
            "the data first."
        )
    name = f"data-{digest(map(file_digest, files), num_bytes=4)}"
    return [{"config_name": name, "data_files": [{"split": "train", "path": data_files}]}]


__all__ = ["dataset_configs"]
