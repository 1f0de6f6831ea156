# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The reference's values of preference rows on disk, tied to what they were computed from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image, List
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ...repo_files.fingerprint import digest
from ...repo_files.written_whole import written_whole


def rows_fingerprint(dataset: Dataset) -> str:
    """
    Hexadecimal digest of what a reference sees of preference rows: their images, instructions, chunks and order.

    Args:
        dataset ([`~datasets.Dataset`]): preference rows.
    """

    def parts() -> Iterator[bytes]:
        for row in stored_images(dataset, ["images", "instruction", "chosen", "rejected"]):
            yield from row["images"]
            yield row["instruction"].encode()
            for side in ("chosen", "rejected"):
                yield np.asarray(row[side], dtype=np.float32).tobytes()

    return digest(parts())


def stored_images(dataset: Dataset, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The named columns of each row, `images` among them as the bytes of their files, which are not decoded."""
    for row in dataset.select_columns(list(columns)).cast_column("images", List(Image(decode=False))):
        yield row | {"images": [image["bytes"] or Path(image["path"]).read_bytes() for image in row["images"]]}


def load_reference_values(path: Path, fingerprints: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """
    Reads what [`save_reference_values`] wrote.

    Args:
        path (`Path`): the file.
        fingerprints (`Mapping[str, str]`): of what the values must belong to.

    Returns:
        `dict[str, torch.Tensor]`: one row per row of the dataset.

    Raises:
        ValueError: the values belong to something else; names what differs.
    """
    with safe_open(path, framework="pt") as file:
        found = json.loads(file.metadata()["fingerprints"])
    differing = [name for name in fingerprints if found.get(name) != fingerprints[name]]
    if differing:
        details = "; ".join(f"{name}: stored {found.get(name)}, now {fingerprints[name]}" for name in differing)
        raise ValueError(
            f"The reference values in {path} were computed for another {', another '.join(differing)} ({details}). Delete "
            "the file, or name another precompute_ref_folder."
        )
    return load_file(path)


def save_reference_values(path: Path, values: Mapping[str, torch.Tensor], fingerprints: Mapping[str, str]) -> None:
    """
    Writes the reference's values, whole or not at all.

    Args:
        path (`Path`): the file, `.safetensors`.
        values (`Mapping[str, torch.Tensor]`): float32, one row per row of the dataset.
        fingerprints (`Mapping[str, str]`): of what they were computed from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        save_file(dict(values), part, metadata={"fingerprints": json.dumps(dict(fingerprints))})


__all__ = ["load_reference_values", "rows_fingerprint", "save_reference_values", "stored_images"]
