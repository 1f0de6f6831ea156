# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of a preference dataset: made of scored candidates, and written to a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features

from ..repo_files.written_whole import written_whole
from .pairs import PairSelection
from .rewards import RewardBatch


def preference_rows(
    batch: RewardBatch,
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
                # As PIL images: `datasets` would turn nested arrays into lists of numbers first.
                "images": [PIL.Image.fromarray(image) for image in sample["images"]],
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


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], features: Features) -> None:
    """Writes rows to a parquet file, whole or not at all."""
    columns = {name: [row[name] for row in rows] for name in features}
    table = Dataset.from_dict(columns, features=features).with_format("arrow")[:]
    with written_whole(path) as part, pq.ParquetWriter(part, table.schema) as writer:
        # A row group without rows is more than `load_dataset` can read; a file without row groups is not.
        if len(table):
            writer.write_table(table)


__all__ = ["preference_rows", "write_rows"]
