# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The `meta/` folder of a LeRobot dataset: description, tasks and episode table, in the layouts v2.1 and v3.0."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

SUPPORTED_VERSIONS = ("v2.1", "v3.0")
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
# Not part of the format: what the recorder knew and a later evaluation has to agree with (renderer, image size, ...).
CONVENTIONS_KEY = "nora15_conventions"

# Columns every data file carries besides the recorded features.
INDEX_FEATURES = {
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
    "frame_index": {"dtype": "int64", "shape": (1,), "names": None},
    "episode_index": {"dtype": "int64", "shape": (1,), "names": None},
    "index": {"dtype": "int64", "shape": (1,), "names": None},
    "task_index": {"dtype": "int64", "shape": (1,), "names": None},
}
# Fields that `data_path` may use, per layout: v2.1 has one file per episode, v3.0 many episodes per file.
DATA_PATH_FIELDS = {"v2.1": {"episode_chunk", "episode_index"}, "v3.0": {"chunk_index", "file_index"}}


@dataclass(frozen=True)
class LeRobotMetadata:
    """What the `meta/` folder says about a dataset.

    Args:
        root (`Path`): Local folder of the dataset.
        info (`dict`): Content of `meta/info.json`.
        tasks (`dict[int, str]`): Task index to instruction.
        episodes (`dict[str, np.ndarray | list]`):
            Columns of the episode table, sorted by episode: `index`, `from`, `to` (rows of the whole dataset, `to`
            excluded), `length` as int64 arrays; `tasks` a list of lists of instructions; `file` the data file that
            holds each episode, relative to `root`.
    """

    root: Path
    info: dict
    tasks: dict[int, str]
    episodes: dict

    @property
    def version(self) -> str:
        return self.info["codebase_version"]

    def feature(self, key: str, argument: str, kind: str) -> dict:
        """Description of one feature, or a `ValueError` that lists the features there are.

        Args:
            key (`str`): Feature name.
            argument (`str`): The caller's argument that the name came from, for the message.
            kind (`str`): What the caller needs, for the message.
        """
        features = self.info["features"]
        if key not in features:
            available = ", ".join(
                f"{name} ({entry['dtype']}, {tuple(entry['shape'])})" for name, entry in features.items()
            )
            raise ValueError(
                f"`{argument}` {key!r} is no feature of the dataset in {self.root}. Available: {available}. "
                f"Pass the name of {kind} as `{argument}`."
            )
        return features[key]


def download_metadata(root_or_repo: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """Folder with the `meta/` files of a dataset: a local folder as it is, otherwise a dataset repo on the Hub.

    Args:
        root_or_repo (`str` or `Path`): Local folder (wins when both exist) or repo id such as `"user/name"`.
        revision (`str`, *optional*): Branch, tag (LeRobot tags each repo `v2.1`, `v3.0`) or commit. Hub only.
        token (`str`, *optional*): Hub token for private repos.

    Raises:
        FileNotFoundError: The name is neither a folder nor a readable dataset repo.
        ValueError: A revision was asked of a local folder.
    """
    folder = Path(root_or_repo)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"`revision` {revision!r} was given for the local folder {folder}, which has no revisions. "
                "Leave it out, or pass a repo id of the Hub."
            )
        return folder
    if isinstance(root_or_repo, Path):
        raise FileNotFoundError(
            f"`root_or_repo`: there is no folder {folder}. Pass the dataset's root, which holds meta/."
        )
    try:
        return Path(
            snapshot_download(
                root_or_repo, repo_type="dataset", revision=revision, token=token, allow_patterns=["meta/**"]
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"`root_or_repo` {root_or_repo!r} is neither a local folder nor a dataset repo that can be read. "
            "Check the spelling; a private repo also needs `token`."
        ) from error


def load_metadata(root: Path) -> LeRobotMetadata:
    """Read and check the `meta/` folder of a dataset in layout v2.1 or v3.0.

    Args:
        root (`Path`): Local folder of the dataset.

    Raises:
        FileNotFoundError: A file is missing; says so when a writer was not finalised.
        ValueError: An unknown version or storage format, a path that leaves the folder, or tables that contradict
            one another (the first inconsistency is named with file and row).
    """
    info = _load_info(root)
    if info["codebase_version"] == "v2.1":
        tasks = _load_tasks_v21(root)
        episodes = _load_episodes_v21(root, info)
    else:
        tasks = _load_tasks_v30(root)
        episodes = _load_episodes_v30(root, info)
    for name, found in (("total_episodes", len(episodes["index"])), ("total_frames", int(episodes["length"].sum()))):
        if info[name] != found:
            raise ValueError(
                f"{root / INFO_PATH} says {name} = {info[name]}, but the episode table adds up to {found}. "
                "A file of the episode table is missing or the dataset was only partly copied: fetch it again."
            )
    return LeRobotMetadata(root=root, info=info, tasks=tasks, episodes=episodes)


@contextmanager
def open_parquet(root: Path, file: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Open one parquet file of a dataset and close it again, also after an error.

    Args:
        root (`Path`): Local folder of the dataset.
        file (`str`): Path relative to `root`.
        metadata (`pq.FileMetaData`, *optional*): Footer from an earlier visit, which spares reading it again.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is truncated or damaged.
    """
    path = root / file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but the dataset's tables refer to it. Fetch the dataset again.")
    try:
        with path.open("rb") as handle, pq.ParquetFile(handle, metadata=metadata) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as parquet ({error}). Either its writer was not finalised or the copy is cut short "
            "or damaged: record or fetch it again."
        ) from error


def read_parquet(root: Path, file: str, columns: list[str]) -> pa.Table:
    """Read columns of one parquet file of a dataset; raises as [`open_parquet`], or `ValueError` for lack of a column."""
    with open_parquet(root, file) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(
                f"{root / file} has no column {missing[0]!r}. Its columns: {', '.join(names)}. "
                "Record or convert the dataset again."
            )
        # A name with a dot also selects columns below it, hence the second selection.
        return parquet.read(columns=columns).select(columns)


def _load_info(root: Path) -> dict:
    path = root / INFO_PATH
    if not path.is_file():
        if next(root.glob("data/**/*.parquet"), None) is not None:
            raise FileNotFoundError(
                f"{path} is missing although data files are there: the dataset was not finalised. "
                "Call `LeRobotWriter.finalize()` after the last episode, or record it again."
            )
        raise FileNotFoundError(f"{path} is missing: {root} is not the root of a LeRobot dataset.")
    info = _parse_json(path.read_text(encoding="utf-8"), str(path))
    version = info.get("codebase_version")
    if version not in SUPPORTED_VERSIONS:
        raise ValueError(
            f"{path}: codebase_version is {version!r}; supported are {', '.join(SUPPORTED_VERSIONS)}. "
            "Convert the dataset with LeRobot's convert_dataset_v21_to_v30.py, or pass a `revision` of the repo that "
            "holds a supported version (LeRobot tags them, for example revision='v3.0')."
        )
    # Layouts of v3.0 other than parquet carry this key; files in them would be misread, so they are refused by name.
    if info.get("storage_format", "parquet") != "parquet":
        raise ValueError(
            f"{path}: storage_format is {info['storage_format']!r}; only 'parquet' is supported. "
            "Export the dataset in the parquet layout."
        )
    required = ("fps", "features", "total_episodes", "total_frames", "chunks_size", "data_path")
    missing = [name for name in required if name not in info]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. Convert or record the dataset again.")
    if not isinstance(info["fps"], int | float) or not info["fps"] > 0:
        raise ValueError(f"{path}: fps is {info['fps']}; it must be a positive number of frames per second.")
    if not isinstance(info["chunks_size"], int) or info["chunks_size"] < 1:
        raise ValueError(f"{path}: chunks_size is {info['chunks_size']!r}; it must be a number of files, at least 1.")
    for key, feature in info["features"].items():
        if not {"dtype", "shape"} <= set(feature):
            raise ValueError(f"{path}: feature {key!r} lacks dtype or shape. Convert or record the dataset again.")
    _check_data_path(info["data_path"], version, path)
    return info


def _check_data_path(template: str, version: str, info_path: Path) -> None:
    """Refuse a template that could name a file outside the dataset; symbolic links of the Hub cache stay allowed."""
    parts = PurePosixPath(template).parts
    if (
        PurePosixPath(template).is_absolute()
        or ".." in parts
        or "\\" in template
        or ":" in (parts[0] if parts else "")
    ):
        raise ValueError(
            f"{info_path}: data_path {template!r} leaves the dataset's folder. Only relative paths below the folder, "
            "with '/' between the parts, are read."
        )
    fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    unknown = fields - DATA_PATH_FIELDS[version]
    if unknown:
        raise ValueError(
            f"{info_path}: data_path {template!r} uses {', '.join(sorted(unknown))}; "
            f"{version} knows {', '.join(sorted(DATA_PATH_FIELDS[version]))}."
        )


def data_path_pattern(template: str) -> str:
    """Glob that matches every data file a `data_path` template can name."""
    return re.sub(r"\{[^}]*\}", "*", template)


def _parse_json(text: str, where: str) -> dict:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON ({error}). Fetch or record the dataset again.") from error


def _load_json_lines(path: Path, types: dict[str, type]) -> list[dict]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Fetch or convert the dataset again.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = _parse_json(line, f"{path}, line {number},")
        for key, kind in types.items():
            if not isinstance(row.get(key), kind):
                raise ValueError(
                    f"{path}, line {number}: {key} is {row.get(key)!r}, expected {kind.__name__}. "
                    "Fetch or convert the dataset again."
                )
        rows.append(row)
    return rows


def _task_table(indices: list[int], texts: list[str], path: Path) -> dict[int, str]:
    tasks = dict(zip(indices, texts, strict=True))
    if len(tasks) != len(indices):
        raise ValueError(f"{path} gives two texts for one task_index. Convert or record the dataset again.")
    return tasks


def _load_tasks_v21(root: Path) -> dict[int, str]:
    path = root / "meta/tasks.jsonl"
    rows = _load_json_lines(path, {"task_index": int, "task": str})
    return _task_table([row["task_index"] for row in rows], [row["task"] for row in rows], path)


def _load_tasks_v30(root: Path) -> dict[int, str]:
    # The text is the pandas index of the file. Older writers left it without a name.
    with open_parquet(root, TASKS_PATH) as parquet:
        text = "__index_level_0__" if "__index_level_0__" in parquet.schema_arrow.names else "task"
    table = read_parquet(root, TASKS_PATH, ["task_index", text])
    return _task_table(table["task_index"].to_pylist(), table[text].to_pylist(), root / TASKS_PATH)


def _load_episodes_v21(root: Path, info: dict) -> dict:
    path = root / "meta/episodes.jsonl"
    rows = _load_json_lines(path, {"episode_index": int, "tasks": list, "length": int})
    where = [f"{path}, line {number}" for number in range(1, len(rows) + 1)]
    order = _episode_order(np.array([row["episode_index"] for row in rows], dtype=np.int64), where)
    rows = [rows[position] for position in order]
    index = np.array([row["episode_index"] for row in rows], dtype=np.int64)
    length = np.array([row["length"] for row in rows], dtype=np.int64)
    stop = np.cumsum(length)
    _check_ranges(stop - length, stop, length, [where[position] for position in order])
    template, per_chunk = info["data_path"], info["chunks_size"]
    files = [template.format(episode_chunk=episode // per_chunk, episode_index=episode) for episode in index.tolist()]
    return {
        "index": index,
        "from": stop - length,
        "to": stop,
        "length": length,
        "tasks": [row["tasks"] for row in rows],
        "file": files,
    }


def _load_episodes_v30(root: Path, info: dict) -> dict:
    numbers = [
        "episode_index",
        "length",
        "dataset_from_index",
        "dataset_to_index",
        "data/chunk_index",
        "data/file_index",
    ]
    shards = sorted(path.relative_to(root).as_posix() for path in root.glob("meta/episodes/**/*.parquet"))
    if not shards:
        raise FileNotFoundError(f"{root}/meta/episodes holds no parquet file. Fetch or record the dataset again.")
    tables = [read_parquet(root, shard, [*numbers, "tasks"]) for shard in shards]
    for shard, table in zip(shards, tables, strict=True):
        for name in numbers:
            # Numbers only, not least because text in the file numbers could lead out of the folder.
            if not pa.types.is_integer(table[name].type) or table[name].null_count:
                raise ValueError(
                    f"{root / shard}: column {name!r} is {table[name].type} with {table[name].null_count} missing "
                    "values, expected integers throughout. Convert or record the dataset again."
                )
    where = [
        f"{root / shard}, row {row}" for shard, table in zip(shards, tables, strict=True) for row in range(len(table))
    ]
    table = pa.concat_tables(tables, promote_options="permissive")
    order = _episode_order(table["episode_index"].to_numpy(), where)
    table = table.take(pa.array(order))
    start, stop, length = (table[name].to_numpy() for name in ("dataset_from_index", "dataset_to_index", "length"))
    _check_ranges(start, stop, length, [where[position] for position in order])
    pairs = zip(table["data/chunk_index"].to_pylist(), table["data/file_index"].to_pylist(), strict=True)
    return {
        "index": table["episode_index"].to_numpy(),
        "from": start,
        "to": stop,
        "length": length,
        "tasks": table["tasks"].to_pylist(),
        "file": [info["data_path"].format(chunk_index=chunk, file_index=file) for chunk, file in pairs],
    }


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
    """Episodes must tile the rows 0 ... total_frames - 1 without a gap, each as long as it says."""
    expected = np.concatenate([[0], stop[:-1]])
    wrong = np.flatnonzero((start != expected) | (stop - start != length) | (length < 1))
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"{where[row]}: dataset_from_index {start[row]}, dataset_to_index {stop[row]}, length {length[row]}; "
            f"expected the episode to begin at {expected[row]} and to end length (at least 1) rows later. "
            "Correct the episode table or convert the dataset again."
        )


__all__ = [
    "CONVENTIONS_KEY",
    "DATA_PATH",
    "EPISODES_PATH",
    "INDEX_FEATURES",
    "INFO_PATH",
    "STATS_PATH",
    "SUPPORTED_VERSIONS",
    "TASKS_PATH",
    "LeRobotMetadata",
    "data_path_pattern",
    "download_metadata",
    "load_metadata",
    "open_parquet",
    "read_parquet",
]
