# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The numeric columns of a LeRobot dataset, read in one pass and checked against the episode table."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..actions.float32_precision import check_held
from .lerobot_files import read_parquet
from .lerobot_layout import INDEX_FEATURES
from .lerobot_metadata import LeRobotMetadata


@dataclass(frozen=True)
class FrameTable:
    """Numeric columns of N frames, in dataset order.

    Args:
        episode (`np.ndarray`): int32 `(N,)`, position in the episode table.
        frame_index (`np.ndarray`): int32 `(N,)`, frame within the episode.
        task_index (`np.ndarray`): int32 `(N,)`, as stored.
        actions (`np.ndarray`): float32 `(N, A)`, physical units of the dataset.
        states (`np.ndarray`): float32 `(N, S)`; S is 0 without a state feature.
        file_number (`np.ndarray`): int32 `(N,)`, position in `files` of the file that holds the frame.
        file_row (`np.ndarray`): int32 `(N,)`, row within that file.
        files (`list[str]`): Data files, relative to the dataset's root.
        skipped (`dict[int, str]`): Position in the episode table to reason, for episodes that were left out.
    """

    episode: np.ndarray
    frame_index: np.ndarray
    task_index: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    file_number: np.ndarray
    file_row: np.ndarray
    files: list[str]
    skipped: dict[int, str]


def read_frame_table(
    metadata: LeRobotMetadata,
    positions: np.ndarray,
    action_key: str,
    state_key: str | None,
    skip_bad_episodes: bool = False,
    check_precision: bool = True,
) -> FrameTable:
    """Read and check the rows of some episodes; what other episodes hold does not matter.

    Args:
        metadata (`LeRobotMetadata`): Description of the dataset; its data files must be present.
        positions (`np.ndarray`): Positions in the episode table, ascending.
        action_key (`str`): Feature that holds the action, shape `(A,)`.
        state_key (`str`, *optional*): Feature that holds the state, shape `(S,)`.
        skip_bad_episodes (`bool`, defaults to `False`): Leave episodes with an inconsistency out instead of raising.
        check_precision (`bool`, defaults to `True`):
            Refuse values whose differences float32 cannot hold. Not for a part of the episodes, which may move little.

    Raises:
        FileNotFoundError: A data file is missing.
        ValueError: A damaged file, or the first inconsistency, with file and row: episode or frame indices, lengths,
            timestamps, task indices without text, NaN or infinite actions or states. Or a dimension whose values lie so far
            from 0 that float32 cannot tell them apart.
    """
    episodes = metadata.episodes
    files = list(dict.fromkeys(episodes.file[position] for position in positions.tolist()))
    parts, skipped = [], {}
    for number, file in enumerate(files):
        reader = _FileReader(metadata, file, action_key, state_key)
        columns, bad = reader.read(np.intersect1d(positions, episodes.in_file[file]), skip_bad_episodes)
        skipped |= bad
        parts.append(columns | {"file_number": np.full(len(columns["episode"]), number, dtype=np.int32)})
    columns = _joined(parts)
    for name, key in (("actions", action_key), ("states", state_key)):
        values = columns[name]
        columns[name] = values.astype(np.float32)
        if check_precision:
            check_held(values, columns[name], f"{metadata.root}: {key!r}")
    return FrameTable(files=files, skipped=skipped, **columns)


class _FileReader:
    """Columns of one data file, checked against its episodes in the episode table."""

    def __init__(self, metadata: LeRobotMetadata, file: str, action_key: str, state_key: str | None):
        self.metadata = metadata
        self.file = file
        self.path = metadata.root / file
        self.action_key = action_key
        self.state_key = state_key
        self._held = metadata.episodes.in_file[file]
        length = metadata.episodes.length[self._held]
        self._first_row = dict(zip(self._held.tolist(), (np.cumsum(length) - length).tolist(), strict=True))

    def read(self, positions: np.ndarray, skip_bad_episodes: bool) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """
        Columns of the episodes at these positions of the episode table; with `skip_bad_episodes` of the consistent ones,
        and for the others the reason by their position.
        """
        try:
            data = self._load()
        except (OSError, ValueError) as error:
            if not skip_bad_episodes:
                raise
            return self._empty(), dict.fromkeys(positions.tolist(), str(error))
        try:
            return self._episodes(data, positions), {}
        except ValueError:
            if not skip_bad_episodes:
                raise
        parts, skipped = [self._empty()], {}
        for position in positions.tolist():
            try:
                parts.append(self._episodes(data, np.array([position])))
            except ValueError as error:
                skipped[position] = str(error)
        return _joined(parts), skipped

    def _episodes(self, data: pa.Table, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Checked columns of some of the file's episodes, those that stand next to one another together."""
        if len(positions) == len(self._held):
            return self._checked(data, positions, 0)
        parts = []
        for run in np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1):
            first = self._first_row[int(run[0])]
            parts.append(self._checked(data.slice(first, int(self.metadata.episodes.length[run].sum())), run, first))
        return _joined(parts)

    def _load(self) -> pa.Table:
        keys = [*INDEX_FEATURES, self.action_key] + ([self.state_key] if self.state_key is not None else [])
        return read_parquet(self.metadata.root, self.file, list(dict.fromkeys(keys)))

    def _empty(self) -> dict[str, np.ndarray]:
        columns = {name: np.zeros(0, dtype=np.int32) for name in ("episode", "frame_index", "task_index", "file_row")}
        columns["actions"] = np.zeros((0, self._width(self.action_key, "action_key")), dtype=np.float32)
        state_dim = 0 if self.state_key is None else self._width(self.state_key, "state_key")
        return columns | {"states": np.zeros((0, state_dim), dtype=np.float32)}

    def _width(self, key: str, argument: str) -> int:
        return self.metadata.feature(key, argument, "a vector feature")["shape"][0]

    def _checked(self, data: pa.Table, positions: np.ndarray, first_row: int) -> dict[str, np.ndarray]:
        """Columns of consecutive episodes that begin at a row of the file."""
        stored = {name: self._vectors(data[name], name, 1, first_row)[:, 0] for name in INDEX_FEATURES}
        episodes = self.metadata.episodes
        length = episodes.length[positions]
        frame = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        expected = {
            "episode_index": np.repeat(episodes.index[positions], length),
            "frame_index": frame,
            "index": np.repeat(episodes.start[positions], length) + frame,
        }
        rows = min(len(data), len(frame))
        for name, values in expected.items():
            wrong = np.flatnonzero(stored[name][:rows] != values[:rows])
            if wrong.size:
                raise ValueError(
                    f"{self.path}, row {first_row + wrong[0]}: {name} is {stored[name][wrong[0]]}, the episode table "
                    f"expects {values[wrong[0]]}. The table does not belong to the data: convert or fetch the dataset "
                    "again."
                )
        if len(data) != len(frame):
            raise ValueError(
                f"{self.path}, row {first_row + rows}: the file holds {first_row + len(data)} rows, its episodes add up "
                f"to {first_row + len(frame)}. The table does not belong to the data: convert or fetch the dataset "
                "again."
            )
        # Half a frame is the widest tolerance that still tells neighbours apart; float32 seconds drift in long files.
        fps = self.metadata.info["fps"]
        wrong = np.flatnonzero(~(np.abs(stored["timestamp"] - frame / fps) < 0.5 / fps))
        if wrong.size:
            row = wrong[0]
            raise ValueError(
                f"{self.path}, row {first_row + row}: timestamp is {stored['timestamp'][row]:.6g} s, frame {frame[row]} "
                f"at {fps} fps is {frame[row] / fps:.6g} s. Correct fps in meta/info.json or the timestamps."
            )
        known = sorted(index for index, text in self.metadata.tasks.items() if text)
        wrong = np.flatnonzero(~np.isin(stored["task_index"], known))
        if wrong.size:
            raise ValueError(
                f"{self.path}, row {first_row + wrong[0]}: task_index {stored['task_index'][wrong[0]]} has no text; "
                f"the task table knows {known}. Add the missing text to the task table."
            )
        states = np.zeros((len(data), 0), dtype=np.float32)
        if self.state_key is not None:
            states = self._finite_vectors(data, self.state_key, "state_key", first_row)
        return {
            "episode": np.repeat(positions.astype(np.int32), length),
            "frame_index": frame.astype(np.int32),
            "task_index": stored["task_index"].astype(np.int32),
            "file_row": np.arange(first_row, first_row + len(data), dtype=np.int32),
            "actions": self._finite_vectors(data, self.action_key, "action_key", first_row),
            "states": states,
        }

    def _finite_vectors(self, data: pa.Table, key: str, argument: str, first_row: int) -> np.ndarray:
        values = self._vectors(data[key], key, self._width(key, argument), first_row)
        if np.can_cast(values.dtype, np.float32):
            values = values.astype(np.float32)
        with np.errstate(over="ignore"):  # what float32 cannot hold at all becomes infinite
            wrong = np.argwhere(~np.isfinite(values.astype(np.float32)))
        if len(wrong):
            row, dimension = wrong[0]
            raise ValueError(
                f"{self.path}, row {first_row + row}: dimension {dimension} of {key!r} is {values[row, dimension]}. "
                "Repair the value, or leave the episode out with `episodes` or `skip_bad_episodes=True`"
                f"{'; or read no state, with `state_key=None`' if argument == 'state_key' else ''}."
            )
        return values

    def _vectors(self, column: pa.ChunkedArray, name: str, width: int, first_row: int) -> np.ndarray:
        """One column as `(rows, width)`. Scalars, lists and fixed-size lists are all found in published datasets."""
        if column.null_count:
            row = first_row + pc.index(pc.is_null(column), True).as_py()
            raise ValueError(
                f"{self.path}, row {row}: {name!r} has no value. Repair the value or record the dataset again."
            )
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
                f"{self.path}, row {first_row + wrong[0]}: {name!r} has {lengths[wrong[0]]} values, meta/info.json says "
                f"{width}. Correct the shape in meta/info.json or record the dataset again."
            )
        return values.reshape(len(column), width)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


__all__ = ["FrameTable", "read_frame_table"]
