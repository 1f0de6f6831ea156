# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The episode table of a LeRobot dataset: which rows, data file and stretch of video hold each episode."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from .lerobot_files import read_json_lines, read_parquet


@dataclass(frozen=True)
class EpisodeVideos:
    """Where the frames of one camera lie.

    Args:
        file (`list[str]`): Video of each episode, relative to the dataset's root.
        start (`np.ndarray`): float64 `(E,)`, seconds into that file at which each episode begins.
    """

    file: list[str]
    start: np.ndarray


@dataclass(frozen=True)
class EpisodeTable:
    """E episodes in ascending order.

    Args:
        index (`np.ndarray`): int64 `(E,)`, episode indices.
        start, stop (`np.ndarray`): int64 `(E,)`, rows of the whole dataset, `stop` excluded.
        tasks (`list[list[str]]`, *optional*): Instructions; `None` where only the rows of the episodes tell them.
        file (`list[str]`): Data file, relative to the dataset's root.
        videos (`dict[str, EpisodeVideos]`): By video feature.
    """

    index: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    tasks: list[list[str]] | None
    file: list[str]
    videos: dict[str, EpisodeVideos]

    @property
    def length(self) -> np.ndarray:
        """Frames per episode."""
        return self.stop - self.start

    @cached_property
    def in_file(self) -> dict[str, np.ndarray]:
        """Positions of the episodes that each data file holds, files and positions in order."""
        positions: dict[str, list[int]] = {}
        for position, file in enumerate(self.file):
            positions.setdefault(file, []).append(position)
        return {file: np.array(held) for file, held in positions.items()}

    def __len__(self) -> int:
        return len(self.index)


def load_episodes_v2(root: Path, info: dict, video_keys: list[str]) -> EpisodeTable:
    """Episode table from `meta/episodes.jsonl`; one data file and one video per camera and episode.

    Args:
        root (`Path`): Local folder of the dataset.
        info (`dict`): Checked content of `meta/info.json`.
        video_keys (`list[str]`): Video features.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The first inconsistency, with its line.
    """
    path = root / "meta/episodes.jsonl"
    lines = read_json_lines(path, {"episode_index": int, "length": int})
    rows, where = list(lines.values()), [f"{path}, line {number}" for number in lines]
    order = _episode_order(np.array([row["episode_index"] for row in rows], dtype=np.int64), where)
    rows = [rows[position] for position in order]
    index = np.array([row["episode_index"] for row in rows], dtype=np.int64)
    length = np.array([row["length"] for row in rows], dtype=np.int64)
    stop = np.cumsum(length)
    _check_ranges(stop - length, stop, length, [where[position] for position in order])
    fields = [{"episode_chunk": number // info["chunks_size"], "episode_index": number} for number in index.tolist()]
    videos = {
        key: EpisodeVideos(
            [info["video_path"].format(video_key=key, **names) for names in fields], np.zeros(len(index))
        )
        for key in video_keys
    }
    files = [info["data_path"].format(**names) for names in fields]
    tasks = [row["tasks"] for row in rows] if all(isinstance(row.get("tasks"), list) for row in rows) else None
    return EpisodeTable(index, stop - length, stop, tasks, files, videos)


def load_episodes_v30(root: Path, info: dict, video_keys: list[str]) -> EpisodeTable:
    """Episode table from all shards below `meta/episodes`; arguments and errors as [`load_episodes_v2`]."""
    integers = [
        "episode_index",
        "length",
        "dataset_from_index",
        "dataset_to_index",
        "data/chunk_index",
        "data/file_index",
        *(f"videos/{key}/{name}" for key in video_keys for name in ("chunk_index", "file_index")),
    ]
    seconds = [f"videos/{key}/{name}" for key in video_keys for name in ("from_timestamp", "to_timestamp")]
    shards = sorted(path.relative_to(root).as_posix() for path in root.glob("meta/episodes/**/*.parquet"))
    if not shards:
        raise FileNotFoundError(f"{root}/meta/episodes holds no parquet file. Fetch or record the dataset again.")
    kinds = dict.fromkeys(integers, pa.int64()) | dict.fromkeys(seconds, pa.float64())
    tables = [_load_shard(root, shard, kinds) for shard in shards]
    where = [
        f"{root / shard}, row {row}" for shard, table in zip(shards, tables, strict=True) for row in range(len(table))
    ]
    table = pa.concat_tables(tables, promote_options="permissive")
    order = _episode_order(table["episode_index"].to_numpy(), where)
    where = [where[position] for position in order]
    table = table.take(pa.array(order))
    start, stop, length = (table[name].to_numpy() for name in ("dataset_from_index", "dataset_to_index", "length"))
    _check_ranges(start, stop, length, where)

    def files(template: str, prefix: str, **fields: str) -> list[str]:
        pairs = zip(table[f"{prefix}/chunk_index"].to_pylist(), table[f"{prefix}/file_index"].to_pylist(), strict=True)
        return [template.format(chunk_index=chunk, file_index=file, **fields) for chunk, file in pairs]

    videos = {}
    for key in video_keys:
        begin, end = (table[f"videos/{key}/{name}_timestamp"].to_numpy() for name in ("from", "to"))
        _check_video_ranges(begin, end, length, info["fps"], key, where)
        videos[key] = EpisodeVideos(files(info["video_path"], f"videos/{key}", video_key=key), begin)
        _check_video_overlap(videos[key], length, info["fps"], key, where)
    data_files = files(info["data_path"], "data")
    _check_file_order(data_files, where)
    tasks = table["tasks"].to_pylist() if "tasks" in table.column_names and not table["tasks"].null_count else None
    return EpisodeTable(table["episode_index"].to_numpy(), start, stop, tasks, data_files, videos)


def _load_shard(root: Path, shard: str, kinds: dict[str, pa.DataType]) -> pa.Table:
    """Columns of numbers of the given kinds, and the tasks, which LeRobot's conversion of images to video leaves out."""
    table = read_parquet(root, shard, list(kinds), optional=["tasks"])
    for position, (name, kind) in enumerate(kinds.items()):
        table = table.set_column(position, name, _numbers(table[name], kind, f"{root / shard}: column {name!r}"))
    return table


def _numbers(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> pa.ChunkedArray:
    """A column as one kind of number. Some writers store integers as floats; text could lead out of the folder."""
    found = f"{column.null_count} missing values"
    if (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and not column.null_count:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            found = "fractions"
    raise ValueError(
        f"{where} is {column.type} with {found}, expected {'integers' if pa.types.is_integer(kind) else 'seconds'} throughout. "
        "Convert or record the dataset again."
    )


def _episode_order(index: np.ndarray, where: list[str]) -> np.ndarray:
    """Positions of the episodes in ascending order; shards and lines may come in any."""
    order = np.argsort(index, kind="stable")
    repeated = np.flatnonzero(np.diff(index[order]) == 0)
    if repeated.size:
        position = order[repeated[0] + 1]
        raise ValueError(
            f"{where[position]}: episode_index {index[position]} appears a second time. "
            "Remove the duplicate or record the dataset again."
        )
    return order


def _check_ranges(start: np.ndarray, stop: np.ndarray, length: np.ndarray, where: list[str]) -> None:
    """Episodes must cover the rows 0 ... total_frames - 1 without gaps, each with its stated length."""
    expected = np.concatenate([[0], stop[:-1]])
    wrong = np.flatnonzero((start != expected) | (stop - start != length) | (length < 1))
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"{where[row]}: dataset_from_index {start[row]}, dataset_to_index {stop[row]}, length {length[row]}; "
            f"expected the episode to begin at {expected[row]} and to end length (at least 1) rows later. "
            "Correct the episode table or convert the dataset again."
        )


def _check_video_ranges(
    begin: np.ndarray, end: np.ndarray, length: np.ndarray, fps: float, key: str, where: list[str]
) -> None:
    """Each episode's stretch of video must hold its frames. Converters leave a little more at times; that is harmless."""
    wrong = np.flatnonzero(~((begin >= 0) & (end - begin > (length - 0.5) / fps)))
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"{where[row]}: video {key!r} runs from {begin[row]:.6g} to {end[row]:.6g} s, but {length[row]} frames at "
            f"{fps} fps take {length[row] / fps:.6g} s. Correct the episode table or fps in meta/info.json."
        )


def _check_video_overlap(videos: EpisodeVideos, length: np.ndarray, fps: float, key: str, where: list[str]) -> None:
    """Frames of two episodes that share a file may not be the same ones."""
    numbers = np.unique(videos.file, return_inverse=True)[1]
    order = np.lexsort((videos.start, numbers))
    same_file = numbers[order[1:]] == numbers[order[:-1]]
    # Half a frame behind the time of the last frame.
    stop = videos.start + (length - 0.5) / fps
    wrong = np.flatnonzero(same_file & (videos.start[order[1:]] < stop[order[:-1]]))
    if wrong.size:
        first, second = order[wrong[0]], order[wrong[0] + 1]
        raise ValueError(
            f"{where[second]}: video {key!r} begins at {videos.start[second]:.6g} s of {videos.file[second]}, where the "
            f"{length[first]} frames of the episode in {where[first]} begin at {videos.start[first]:.6g} s: the two would "
            "share frames. Correct from_timestamp in the episode table or convert the dataset again."
        )


def _check_file_order(files: list[str], where: list[str]) -> None:
    """Rows of a file follow the order of the episodes, so an episode cannot lie before its predecessor's file."""
    finished = set()
    for row in range(1, len(files)):
        if files[row] != files[row - 1]:
            finished.add(files[row - 1])
            if files[row] in finished:
                raise ValueError(
                    f"{where[row]}: the episode lies in {files[row]}, although an earlier episode had already moved on to "
                    f"{files[row - 1]}. Correct the file numbers or convert the dataset again."
                )


__all__ = ["EpisodeTable", "EpisodeVideos", "load_episodes_v2", "load_episodes_v30"]
