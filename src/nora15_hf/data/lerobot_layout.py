# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Names, paths and columns of the LeRobot layouts v2.0, v2.1 and v3.0."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from string import Formatter
from typing import Any

# v2.0 and v2.1 differ in the statistics that they store, which are not read.
VERSIONS_WITH_FILES_PER_EPISODE = ("v2.0", "v2.1")
SUPPORTED_VERSIONS = (*VERSIONS_WITH_FILES_PER_EPISODE, "v3.0")
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNKS_SIZE = 1000  # files per chunk folder
# Not part of the format: what the recorder knew and a later evaluation has to agree with (renderer, image size, ...). A copy
# in a feature's `info` outlives LeRobot's edits, which keep the features and drop the key beside them.
CONVENTIONS_KEY = "nora15_conventions"
DEFAULT_ACTION_KEY = "action"
DEFAULT_STATE_KEY = "observation.state"
# What this package's recordings call a feature now, and called it before.
_RENAMED = {"executed_action": "action.executed"}

# Columns every data file carries besides the recorded features.
INDEX_FEATURES = {
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
    "frame_index": {"dtype": "int64", "shape": (1,), "names": None},
    "episode_index": {"dtype": "int64", "shape": (1,), "names": None},
    "index": {"dtype": "int64", "shape": (1,), "names": None},
    "task_index": {"dtype": "int64", "shape": (1,), "names": None},
}


def stored_conventions(info: Mapping[str, Any]) -> dict[str, Any]:
    """The conventions in `meta/info.json`, or their copy in a feature; empty without either."""
    places = [info, *(feature.get("info") or {} for feature in info["features"].values())]
    return next((place[CONVENTIONS_KEY] for place in places if CONVENTIONS_KEY in place), {})


def stored_key(features: Mapping[str, Any], key: str) -> str:
    """The name under which a dataset holds a feature, where it was recorded before or after the feature was renamed."""
    other = (_RENAMED | {old: new for new, old in _RENAMED.items()}).get(key)
    return other if key not in features and other in features else key


def is_camera(feature: Mapping[str, Any]) -> bool:
    """Whether a feature holds pictures, of colours or of depths."""
    return feature["dtype"] in ("image", "video")


def is_depth_map(feature: Mapping[str, Any]) -> bool:
    """Whether a camera is described as a depth camera, under LeRobot's current or former key."""
    described = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return bool(described.get("is_depth_map") or described.get("video.is_depth_map"))


def picture_shape(feature: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """
    Height, width and channels of a camera; `None` where its description tells no such shape.

    A description may be channels-first; the stored frames never are.
    """
    shape = tuple(feature["shape"])
    if len(shape) != 3:
        return None
    names = feature.get("names")
    named_so = isinstance(names, list) and names[:1] in (["channels"], ["channel"])
    channels_first = shape[0] in (1, 3, 4) and (named_so or shape[2] not in (1, 3, 4))
    return (*shape[1:], shape[0]) if channels_first else shape


def check_path_template(template: str, name: str, version: str, where: str) -> None:
    """Refuse a template that could name a file outside the dataset; symbolic links of the Hub cache stay allowed.

    Args:
        template (`str`): Value of `data_path` or `video_path`.
        name (`str`): Which of the two.
        version (`str`): Layout.
        where (`str`): File it was found in, for the message.
    """
    if not isinstance(template, str):
        raise ValueError(f"{where}: {name} is {template!r}, expected a path. Convert or record the dataset again.")
    parts = PurePosixPath(template).parts
    if (
        PurePosixPath(template).is_absolute()
        or ".." in parts
        or "\\" in template
        or ":" in (parts[0] if parts else "")
    ):
        raise ValueError(
            f"{where}: {name} {template!r} leaves the dataset's folder. Only relative paths below the folder, with '/' "
            "between the parts, are read."
        )
    fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    # One file per episode, or many episodes per file.
    per_episode = version in VERSIONS_WITH_FILES_PER_EPISODE
    known = {"episode_chunk", "episode_index"} if per_episode else {"chunk_index", "file_index"}
    known |= {"video_key"} if name == "video_path" else set()
    if fields - known:
        raise ValueError(
            f"{where}: {name} {template!r} uses {', '.join(sorted(fields - known))}; "
            f"{version} knows {', '.join(sorted(known))}."
        )


def check_video_key(key: str, where: str) -> None:
    """Refuse the name of a video feature that would lead its files out of the folder `video_path` means."""
    if "/" in key or "\\" in key or ":" in key or key in ("", ".", ".."):
        raise ValueError(
            f"{where}: video feature {key!r} cannot be part of a path below the dataset's folder. Rename the feature."
        )


def path_pattern(template: str, video_key: str = "") -> str:
    """Glob that matches every file a path template can name (for one camera, where the template has cameras)."""
    return re.sub(r"\{[^}]*\}", "*", template.replace("{video_key}", video_key))


__all__ = [
    "CHUNKS_SIZE",
    "CONVENTIONS_KEY",
    "DATA_PATH",
    "DEFAULT_ACTION_KEY",
    "DEFAULT_STATE_KEY",
    "EPISODES_PATH",
    "INDEX_FEATURES",
    "INFO_PATH",
    "STATS_PATH",
    "SUPPORTED_VERSIONS",
    "TASKS_PATH",
    "VERSIONS_WITH_FILES_PER_EPISODE",
    "VIDEO_PATH",
    "check_path_template",
    "check_video_key",
    "is_camera",
    "is_depth_map",
    "path_pattern",
    "picture_shape",
    "stored_conventions",
    "stored_key",
]
