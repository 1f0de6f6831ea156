# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The numeric columns of a LeRobot dataset, read in one pass and checked against the episode table."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .lerobot_metadata import INDEX_FEATURES, LeRobotMetadata, read_parquet


@dataclass(frozen=True)
class FrameTable:
    """Numeric columns of N frames, in dataset order.

    Args:
        episode_index, frame_index, index, task_index (`np.ndarray`): int64 `(N,)`, as stored.
        actions (`np.ndarray`): float32 `(N, A)`, physical units of the dataset.
        states (`np.ndarray`): float32 `(N, S)`; S is 0 without a state feature.
        file_number (`np.ndarray`): int64 `(N,)`, position in `files` of the file that holds the frame.
        file_row (`np.ndarray`): int64 `(N,)`, row within that file.
        files (`list[str]`): Data files, relative to the dataset's root.
    """

    episode_index: np.ndarray
    frame_index: np.ndarray
    index: np.ndarray
    task_index: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    file_number: np.ndarray
    file_row: np.ndarray
    files: list[str]


def read_frame_table(
    metadata: LeRobotMetadata, episodes: np.ndarray, action_key: str, state_key: str | None
) -> FrameTable:
    """Read the rows of some episodes. Every row of the files touched is checked, also those of other episodes.

    Args:
        metadata (`LeRobotMetadata`): Description of the dataset; its data files must be present.
        episodes (`np.ndarray`): Positions in the episode table, ascending.
        action_key (`str`): Feature that holds the action, shape `(A,)`.
        state_key (`str`, *optional*): Feature that holds the state, shape `(S,)`.

    Raises:
        FileNotFoundError: A data file is missing.
        ValueError: A damaged file, or the first inconsistency, with file and row: episode or frame indices, lengths,
            timestamps, task indices without text, NaN or infinite actions or states.
    """
    table = metadata.episodes
    wanted = np.zeros(len(table["index"]), dtype=bool)
    wanted[episodes] = True
    files = list(dict.fromkeys(table["file"][position] for position in episodes.tolist()))
    file_of_episode = {file: [] for file in files}
    for position, file in enumerate(table["file"]):
        if file in file_of_episode:
            file_of_episode[file].append(position)

    names = ["episode_index", "frame_index", "index", "task_index", "actions", "states", "file_number", "file_row"]
    parts = {name: [] for name in names}
    for number, file in enumerate(files):
        positions = np.array(file_of_episode[file])
        columns = _read_file(metadata, file, positions, action_key, state_key)
        keep = np.repeat(wanted[positions], table["length"][positions])
        columns["file_row"] = np.arange(len(keep))
        columns["file_number"] = np.full(len(keep), number)
        for name in names:
            parts[name].append(columns[name][keep])
    return FrameTable(files=files, **{name: np.concatenate(arrays) for name, arrays in parts.items()})


def _read_file(
    metadata: LeRobotMetadata, file: str, positions: np.ndarray, action_key: str, state_key: str | None
) -> dict[str, np.ndarray]:
    """Columns of one data file, checked against the episodes at `positions` of the episode table."""
    keys = [*INDEX_FEATURES, action_key] + ([state_key] if state_key is not None else [])
    data = read_parquet(metadata.root, file, list(dict.fromkeys(keys)))
    path = metadata.root / file
    columns = {name: _vectors(data[name], name, 1, path)[:, 0] for name in INDEX_FEATURES}

    table = metadata.episodes
    length = table["length"][positions]
    frame = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    expected = {
        "episode_index": np.repeat(table["index"][positions], length),
        "frame_index": frame,
        "index": np.repeat(table["from"][positions], length) + frame,
    }
    rows = min(len(data), len(frame))
    for name, values in expected.items():
        wrong = np.flatnonzero(columns[name][:rows] != values[:rows])
        if wrong.size:
            raise ValueError(
                f"{path}, row {wrong[0]}: {name} is {columns[name][wrong[0]]}, the episode table expects "
                f"{values[wrong[0]]}. Table and data do not belong together: convert or fetch the dataset again."
            )
    if len(data) != len(frame):
        raise ValueError(
            f"{path}, row {rows}: the file holds {len(data)} rows, its episodes add up to {len(frame)}. "
            "Table and data do not belong together: convert or fetch the dataset again."
        )
    # Half a frame is the widest tolerance that still tells neighbours apart; float32 seconds drift in long files.
    fps = metadata.info["fps"]
    wrong = np.flatnonzero(~(np.abs(columns["timestamp"] - frame / fps) < 0.5 / fps))
    if wrong.size:
        raise ValueError(
            f"{path}, row {wrong[0]}: timestamp is {columns['timestamp'][wrong[0]]:.6g} s, frame {frame[wrong[0]]} at "
            f"{fps} fps is {frame[wrong[0]] / fps:.6g} s. Correct fps in meta/info.json or the timestamps."
        )
    known = sorted(index for index, text in metadata.tasks.items() if text)
    wrong = np.flatnonzero(~np.isin(columns["task_index"], known))
    if wrong.size:
        raise ValueError(
            f"{path}, row {wrong[0]}: task_index {columns['task_index'][wrong[0]]} has no text; "
            f"the task table knows {known}. Add the missing text to the task table."
        )

    columns["actions"] = _finite_vectors(data, action_key, "action_key", metadata, path)
    if state_key is None:
        columns["states"] = np.zeros((len(data), 0), dtype=np.float32)
    else:
        columns["states"] = _finite_vectors(data, state_key, "state_key", metadata, path)
    return columns


def _finite_vectors(data: pa.Table, key: str, argument: str, metadata: LeRobotMetadata, path: Path) -> np.ndarray:
    width = metadata.feature(key, argument, "a vector feature")["shape"][0]
    values = _vectors(data[key], key, width, path).astype(np.float32)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, dimension = wrong[0]
        raise ValueError(
            f"{path}, row {row}: dimension {dimension} of {key!r} is {values[row, dimension]}. "
            "Repair the value, or leave the episode out with `episodes`."
        )
    return values


def _vectors(column: pa.ChunkedArray, name: str, width: int, path: Path) -> np.ndarray:
    """One column as `(rows, width)`. Scalars, lists and fixed-size lists are all found in published datasets."""
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise ValueError(f"{path}, row {row}: {name!r} has no value. Repair the value or record the dataset again.")
    if not pa.types.is_nested(column.type):
        lengths = np.ones(len(column), dtype=np.int64)
        values = column.to_numpy()
    else:
        lengths = pc.list_value_length(column).to_numpy()
        # Missing elements become NaN and are reported with their row by the caller.
        values = pc.list_flatten(column).to_numpy()
    wrong = np.flatnonzero(lengths != width)
    if wrong.size:
        raise ValueError(
            f"{path}, row {wrong[0]}: {name!r} has {lengths[wrong[0]]} values, meta/info.json says {width}. "
            "Correct the shape in meta/info.json or record the dataset again."
        )
    return values.reshape(len(column), width)


__all__ = ["FrameTable", "read_frame_table"]
