# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The `meta/` folder of a LeRobot dataset: description, tasks and episode table, in the layouts v2.0, v2.1 and v3.0."""

from dataclasses import dataclass
from pathlib import Path

from .lerobot_episodes import EpisodeTable, load_episodes_v2, load_episodes_v30
from .lerobot_files import open_parquet, parse_json, read_json_lines, read_parquet, whole_number
from .lerobot_layout import (
    CONVENTIONS_KEY,
    INFO_PATH,
    SUPPORTED_VERSIONS,
    TASKS_PATH,
    VERSIONS_WITH_FILES_PER_EPISODE,
    check_path_template,
    check_video_key,
    stored_conventions,
)


@dataclass(frozen=True)
class LeRobotMetadata:
    """The metadata of a dataset from its `meta/` folder.

    Args:
        root (`Path`): Local folder of the dataset.
        info (`dict`): Content of `meta/info.json`.
        tasks (`dict[int, str]`): Task index to instruction.
        episodes ([`EpisodeTable`]): All episodes.
    """

    root: Path
    info: dict
    tasks: dict[int, str]
    episodes: EpisodeTable

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
                f"`{argument}` {key!r} is not a feature of the dataset in {self.root}. Available: {available}. "
                f"Pass the name of {kind} as `{argument}`."
            )
        return features[key]


def load_metadata(root: Path) -> LeRobotMetadata:
    """Read and check the `meta/` folder of a dataset in layout v2.0, v2.1 or v3.0.

    Args:
        root (`Path`): Local folder of the dataset.

    Raises:
        FileNotFoundError: A file is missing; says so when a writer was not finalised.
        ValueError: An unknown version or storage format, a path that leaves the folder, or tables that contradict
            one another (the first inconsistency is named with file and row).
    """
    info = _load_info(root)
    video_keys = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    if info["codebase_version"] in VERSIONS_WITH_FILES_PER_EPISODE:
        tasks = _load_tasks_v2(root)
        episodes = load_episodes_v2(root, info, video_keys)
    else:
        tasks = _load_tasks_v30(root)
        episodes = load_episodes_v30(root, info, video_keys)
    for name, found in (("total_episodes", len(episodes)), ("total_frames", int(episodes.length.sum()))):
        if info[name] != found:
            raise ValueError(
                f"{root / INFO_PATH} says {name} = {info[name]}, but the episode table adds up to {found}. "
                "A file of the episode table is missing or the dataset was only partly copied: fetch it again."
            )
    return LeRobotMetadata(root=root, info=info, tasks=tasks, episodes=episodes)


def _load_info(root: Path) -> dict:
    path = root / INFO_PATH
    if not path.is_file():
        if next(root.glob("data/**/*.parquet"), None) is not None:
            raise FileNotFoundError(
                f"{path} is missing although there are data files: the dataset was not finalised. "
                "Call `LeRobotWriter.finalize()` after the last episode, or record it again."
            )
        raise FileNotFoundError(f"{path} is missing: {root} is not the root of a LeRobot dataset.")
    info = parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    version = info.get("codebase_version")
    if version not in SUPPORTED_VERSIONS:
        raise ValueError(
            f"{path}: codebase_version is {version!r}; supported are {', '.join(SUPPORTED_VERSIONS)}. "
            "Pass a `revision` of the repo that holds a supported version (LeRobot tags them, for example "
            "revision='v3.0'), or convert the dataset with the scripts that LeRobot has for its versions."
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
    info["chunks_size"] = whole_number(info["chunks_size"])
    if not isinstance(info["chunks_size"], int) or info["chunks_size"] < 1:
        raise ValueError(f"{path}: chunks_size is {info['chunks_size']!r}; it must be a number of files, at least 1.")
    check_path_template(info["data_path"], "data_path", version, str(path))
    if not isinstance(info.get("robot_type"), str | None):
        raise ValueError(f"{path}: robot_type is {info['robot_type']!r}, expected a name. Correct or remove it.")
    if not isinstance(info["features"], dict):
        raise ValueError(
            f"{path}: features is a {type(info['features']).__name__}, expected an object by name. Convert or record the dataset again."
        )
    for key, feature in info["features"].items():
        if not isinstance(feature, dict) or not {"dtype", "shape"} <= feature.keys():
            raise ValueError(f"{path}: feature {key!r} lacks dtype or shape. Convert or record the dataset again.")
        shape = feature["shape"] if isinstance(feature["shape"], list) else [None]
        for name in ("info", "video_info"):
            if not isinstance(feature.get(name), dict | None):
                raise ValueError(
                    f"{path}: {name} of feature {key!r} is {feature[name]!r}, expected an object. Remove it."
                )
        sizes = [whole_number(size) for size in shape]
        if not (isinstance(feature["dtype"], str) and all(type(size) is int and size >= 0 for size in sizes)):
            raise ValueError(
                f"{path}: feature {key!r} has dtype {feature['dtype']!r} and shape {feature['shape']!r}; expected a name such as 'float32' "
                "and a list of whole numbers. Correct them or record the dataset again."
            )
        feature["shape"] = sizes
        if feature["dtype"] == "video":
            check_path_template(info.get("video_path"), "video_path", version, str(path))
            check_video_key(key, str(path))
    if not isinstance(stored_conventions(info), dict):
        raise ValueError(f"{path}: {CONVENTIONS_KEY} is {stored_conventions(info)!r}, expected an object. Remove it.")
    return info


def _task_table(indices: list[int], texts: list[str], path: Path) -> dict[int, str]:
    tasks = dict(zip(indices, texts, strict=True))
    if len(tasks) != len(indices):
        raise ValueError(f"{path} gives two texts for one task_index. Convert or record the dataset again.")
    return tasks


def _load_tasks_v2(root: Path) -> dict[int, str]:
    path = root / "meta/tasks.jsonl"
    rows = read_json_lines(path, {"task_index": int, "task": str}).values()
    return _task_table([row["task_index"] for row in rows], [row["task"] for row in rows], path)


def _load_tasks_v30(root: Path) -> dict[int, str]:
    # The text is the pandas index of the file. Older writers left it without a name.
    with open_parquet(root, TASKS_PATH) as parquet:
        text = "__index_level_0__" if "__index_level_0__" in parquet.schema_arrow.names else "task"
    table = read_parquet(root, TASKS_PATH, ["task_index", text])
    return _task_table(table["task_index"].to_pylist(), table[text].to_pylist(), root / TASKS_PATH)


__all__ = ["LeRobotMetadata", "load_metadata"]
