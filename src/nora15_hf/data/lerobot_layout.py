# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Names, paths and columns of the LeRobot layouts v2.1 and v3.0."""

import re
from pathlib import PurePosixPath
from string import Formatter

SUPPORTED_VERSIONS = ("v2.1", "v3.0")
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNKS_SIZE = 1000  # files per chunk folder
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
# Fields that the path templates may use, per layout: v2.1 has one file per episode, v3.0 many episodes per file.
PATH_FIELDS = {
    ("v2.1", "data_path"): {"episode_chunk", "episode_index"},
    ("v3.0", "data_path"): {"chunk_index", "file_index"},
    ("v2.1", "video_path"): {"episode_chunk", "episode_index", "video_key"},
    ("v3.0", "video_path"): {"chunk_index", "file_index", "video_key"},
}


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
    known = PATH_FIELDS[version, name]
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
    "EPISODES_PATH",
    "INDEX_FEATURES",
    "INFO_PATH",
    "STATS_PATH",
    "SUPPORTED_VERSIONS",
    "TASKS_PATH",
    "VIDEO_PATH",
    "check_path_template",
    "check_video_key",
    "path_pattern",
]
