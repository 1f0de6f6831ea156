# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of a preference dataset: made of scored candidates, and written to a file."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features

from ..data.lerobot_dataset import Sample
from ..repo_files.written_whole import written_whole
from .pairs import PairSelection
from .rewards import RewardBatch

# In the metadata of a file of rows.
OUTCOME = b"nora15_hf"


def encoded_pictures(sample: Sample) -> list[bytes]:
    """The cameras of a state as PNG files."""
    files = []
    for image in sample["images"]:
        with BytesIO() as file:
            PIL.Image.fromarray(image).save(file, "PNG")
            files.append(file.getvalue())
    return files


def preference_rows(
    batch: RewardBatch,
    pictures: Sequence[Sequence[bytes]],
    scores: Mapping[str, torch.Tensor],
    reward: torch.Tensor,
    selection: PairSelection,
    *,
    seed: int,
    sampling_batch: int,
) -> list[dict[str, Any]]:
    """
    One row for each pair that was kept, with the columns of [`~nora15_hf.preferences.preference_features`].

    Args:
        batch ([`RewardBatch`]): States and candidates.
        pictures (`Sequence[Sequence[bytes]]`): Of each state, see [`encoded_pictures`].
        scores (`Mapping[str, torch.Tensor]`), reward (`torch.Tensor`): Each reward and their sum, `(B, N)`.
        selection ([`PairSelection`]): Pairs of the batch.
        seed (`int`), sampling_batch (`int`): What the candidates' random numbers depend on.
    """
    candidates = batch.candidates.numpy()
    rows = []
    for pair in np.flatnonzero(selection.kept):
        state = selection.state[pair]
        sample = batch.samples[state]
        rows.append(
            {
                "images": [{"bytes": picture, "path": None} for picture in pictures[state]],
                "instruction": sample["instruction"],
                "actions": batch.actions[state].numpy(),
                "action_mask": sample["action_mask"],
                "candidates": candidates[state],
                "rewards": {name: score[state].numpy() for name, score in scores.items()},
                "reward": reward[state].numpy(),
                "chosen": candidates[state, selection.chosen[pair]],
                "rejected": candidates[state, selection.rejected[pair]],
                "margin": selection.margin[pair],
                "dataset_key": sample["dataset_key"],
                "episode_index": sample["episode_index"],
                "frame_index": sample["frame_index"],
                "state": sample["state"],
                "seed": seed,
                "state_index": sample["index"],
                "sampling_batch": sampling_batch,
            }
        )
    return rows


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], features: Features, outcome: Mapping[str, Any], *, process: int = 0
) -> None:
    """
    Writes rows to a parquet file, whole or not at all.

    Args:
        path (`Path`), rows (`Sequence[Mapping]`), features ([`~datasets.Features`]): The file, what it holds, and its columns.
        outcome (`Mapping[str, Any]`): What became of the states that are behind the rows, in JSON types, for [`read_outcome`].
        process (`int`, *optional*, defaults to 0): See [`~nora15_hf.repo_files.written_whole`].
    """
    columns = {name: [row[name] for row in rows] for name in features}
    table = Dataset.from_dict(columns, features=features).with_format("arrow")[:]
    table = table.replace_schema_metadata({**table.schema.metadata, OUTCOME: json.dumps(outcome)})
    with written_whole(path, process=process) as part, pq.ParquetWriter(part, table.schema) as writer:
        # A row group without rows is more than `load_dataset` can read; a file without row groups is not.
        if len(table):
            writer.write_table(table)


def read_outcome(path: Path) -> dict[str, Any]:
    """
    What [`write_rows`] was told about the states behind a file.

    Raises:
        ValueError: The file is damaged, or another program wrote it.
    """
    try:
        return json.loads(pq.read_schema(path).metadata[OUTCOME])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no file of preference rows that build_preferences wrote ({error}). Remove it and build again: its "
            "states are then labelled again."
        ) from error


__all__ = ["encoded_pictures", "preference_rows", "read_outcome", "write_rows"]
