# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Writes LeRobot v3.0 datasets, with cameras as images embedded in the parquet files or as video."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData
from PIL import Image

from ..actions.float32_precision import check_held
from ..cards.dataset_configs import dataset_configs
from .feature_statistics import channel_histogram, image_statistics, vector_statistics
from .lerobot_layout import (
    CHUNKS_SIZE,
    CONVENTIONS_KEY,
    DATA_PATH,
    DEFAULT_ACTION_KEY,
    EPISODES_PATH,
    INDEX_FEATURES,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
)
from .told_embodiment import told_embodiment
from .video_writer import CODECS, VideoWriter

EPISODES_PER_TABLE_FILE = 10_000  # one row with its statistics takes a few kB
NUMERIC_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64")
CAMERA_DTYPES = ("image", "video")
# Only data/ holds rows: meta/ is parquet too.
DATA_FILES = "data/*/*.parquet"


class LeRobotWriter:
    """Writes a LeRobot v3.0 dataset episode by episode. Same input, same bytes, except for what video encoders write.

    The dataset can be read after [`~LeRobotWriter.finalize`], by this package, by LeRobot and by
    `datasets.load_dataset(root)`.

    Args:
        root (`str` or `Path`): Folder to create; it may exist when it is empty.
        fps (`float`): Frames per second.
        features (`dict[str, dict]`):
            Feature name to `{"dtype", "shape"}` and optionally `"names"`, as in LeRobot's `info.json`. Cameras have
            shape `(height, width, 3)` and dtype `"image"` (PNG in the parquet files, exact) or `"video"` (mp4, smaller
            and lossy; even height and width); everything else a numeric dtype and a shape of rank 1 to 5.
            The index columns (`timestamp`, `frame_index`, `episode_index`, `index`, `task_index`) are added.
        robot_type (`str`): Name of the robot.
        conventions (`dict`, *optional*): What a user of the data has to agree with (renderer, image size, action
            convention, ...); kept in `info.json` and returned by `LeRobotDataset.conventions`. A copy in the description of
            the action, or of the first numeric feature, outlives the edits of LeRobot's tools, which also refuse to merge
            datasets that differ in it.
        recording (`dict`, *optional*): Further conventions that hold for this very recording alone (seeds, failures); they
            are gone after such an edit.
        max_file_size_mb (`int`, defaults to 100): A data file is closed before it grows beyond this.
        video_codec (`str`, defaults to `"h264"`): Or `"av1"`, smaller and slower to write; LeRobot's own default.
        max_video_file_size_mb (`int`, defaults to 200): A video file is closed with the episode that reaches this.

    Raises:
        FileExistsError: `root` is not empty.
        ValueError: A feature description cannot be stored, an argument is out of range, or the item `"embodiment"` of the
            conventions contradicts features or `fps`.
        ImportError: A video feature without PyAV.

    Example:
        ```python
        features = {
            "observation.image": {"dtype": "image", "shape": (84, 84, 3)},
            "observation.state": {"dtype": "float32", "shape": (4,)},
            "action": {"dtype": "float32", "shape": (4,)},
        }
        writer = LeRobotWriter("demonstrations", fps=80, features=features, robot_type="metaworld_sawyer")
        writer.add_episode(
            "open the drawer",
            {
                "observation.image": np.zeros((30, 84, 84, 3), np.uint8),
                "observation.state": np.zeros((30, 4), np.float32),
                "action": np.zeros((30, 4), np.float32),
            },
        )
        writer.finalize()
        ```
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fps: float,
        features: dict[str, dict],
        robot_type: str,
        conventions: dict | None = None,
        recording: dict | None = None,
        max_file_size_mb: int = 100,
        video_codec: str = "h264",
        max_video_file_size_mb: int = 200,
    ):
        if not fps > 0:
            raise ValueError(f"`fps` is {fps}; it must be a positive number of frames per second.")
        for name, limit in (
            ("max_file_size_mb", max_file_size_mb),
            ("max_video_file_size_mb", max_video_file_size_mb),
        ):
            if limit <= 0:
                raise ValueError(f"`{name}` is {limit}; it must be positive.")
        if video_codec not in CODECS:
            raise ValueError(f"`video_codec` is {video_codec!r}, expected one of {', '.join(map(repr, CODECS))}.")
        self.root = Path(root)
        self.fps = fps
        self.robot_type = robot_type
        self.max_file_size_mb = max_file_size_mb
        self.max_video_file_size_mb = max_video_file_size_mb
        self.conventions = {} if conventions is None else conventions
        self.recording = {} if recording is None else recording
        for name, content in (("conventions", self.conventions), ("recording", self.recording)):
            try:
                json.dumps(content)
            except TypeError as error:
                raise ValueError(
                    f"`{name}` cannot be written as JSON ({error}). Use plain strings and numbers."
                ) from error
        self.features = {key: _checked_feature(key, feature) for key, feature in features.items()}
        told = {"features": self.features, "fps": fps}
        told_embodiment({**self.conventions, **self.recording}, told, repr(self.root.name))
        self._stored_features = self.features | INDEX_FEATURES
        self._hf_features = datasets.Features(
            {
                key: _hf_feature(feature)
                for key, feature in self._stored_features.items()
                if feature["dtype"] != "video"
            }
        )
        self._videos = {
            key: VideoWriter(self.root, key, fps, feature["shape"][:2], video_codec, max_video_file_size_mb)
            for key, feature in self.features.items()
            if feature["dtype"] == "video"
        }
        if self.root.exists() and any(self.root.iterdir()):
            raise FileExistsError(
                f"`root` {self.root} is not empty. Choose another folder, or remove it first if it may be lost."
            )
        self.root.mkdir(parents=True, exist_ok=True)

        self._tasks: dict[str, int] = {}
        self._episodes: list[dict] = []
        self._num_frames = 0
        self._num_files = 0
        self._file = None
        self._parquet = None
        self._values = {key: [] for key, feature in self._stored_features.items() if not _is_camera(feature)}
        self._histograms = {
            key: np.zeros((3, 256), dtype=np.int64) for key, feature in self.features.items() if _is_camera(feature)
        }
        self._finalized = False

    def add_episode(self, task: str, frames: dict[str, np.ndarray]) -> None:
        """Append one episode. Nothing is written when its data are refused.

        Args:
            task (`str`): Instruction.
            frames (`dict[str, np.ndarray]`):
                One array `(F, *shape)` per feature, `(F, 1)` for shape `(1,)`. Cameras are uint8 `(F, height, width, 3)`.
                Numbers may come in another precision of the same kind and are stored in the feature's dtype.

        Raises:
            RuntimeError: The dataset is finalised.
            ValueError: An empty task; missing, unknown, empty or unequally long arrays; a wrong shape or dtype; NaN.
        """
        if self._finalized:
            raise RuntimeError(f"{self.root} is finalised; no episode can be added. Write a new dataset.")
        if not task.strip():
            raise ValueError("`task` is empty. Pass the instruction that the episode follows.")
        if set(frames) != set(self.features):
            raise ValueError(
                f"`frames` holds {sorted(frames)}, expected exactly the features of the dataset: {sorted(self.features)}."
            )
        arrays = {key: _checked_array(key, feature, frames[key]) for key, feature in self.features.items()}
        lengths = {key: len(array) for key, array in arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(
                f"`frames` must hold equally many frames, at least one, for each feature; found {lengths}."
            )

        episode_index, length = len(self._episodes), next(iter(lengths.values()))
        task_index = self._tasks.setdefault(task, len(self._tasks))
        frame_index = np.arange(length)
        arrays |= {
            "timestamp": (frame_index / self.fps).astype(np.float32)[:, None],
            "frame_index": frame_index[:, None],
            "episode_index": np.full((length, 1), episode_index),
            "index": self._num_frames + frame_index[:, None],
            "task_index": np.full((length, 1), task_index),
        }
        self._append(arrays)
        videos = {}
        for key, video in self._videos.items():
            videos |= {f"videos/{key}/{name}": value for name, value in video.add_episode(arrays[key]).items()}
        self._episodes.append(
            {
                "episode_index": episode_index,
                "tasks": [task],
                "length": length,
                "dataset_from_index": self._num_frames,
                "dataset_to_index": self._num_frames + length,
                "data/chunk_index": (self._num_files - 1) // CHUNKS_SIZE,
                "data/file_index": (self._num_files - 1) % CHUNKS_SIZE,
                "meta/episodes/chunk_index": episode_index // EPISODES_PER_TABLE_FILE // CHUNKS_SIZE,
                "meta/episodes/file_index": episode_index // EPISODES_PER_TABLE_FILE % CHUNKS_SIZE,
                **videos,
                **self._episode_statistics(arrays),
            }
        )
        self._num_frames += length

    def finalize(self) -> Path:
        """Close the data files and write the `meta/` folder. Until then the dataset cannot be read.

        Returns:
            `Path`: The dataset's root.

        Raises:
            ValueError: No episode was added.
        """
        if self._finalized:
            raise RuntimeError(f"{self.root} is already finalised.")
        if not self._episodes:
            raise ValueError(f"No episode was added to {self.root}. Call `add_episode` at least once.")
        self._close_file()
        for video in self._videos.values():
            video.close()
        self._finalized = True
        (self.root / "meta").mkdir()
        for first in range(0, len(self._episodes), EPISODES_PER_TABLE_FILE):
            rows = self._episodes[first : first + EPISODES_PER_TABLE_FILE]
            path = self.root / EPISODES_PATH.format(
                chunk_index=rows[0]["meta/episodes/chunk_index"], file_index=rows[0]["meta/episodes/file_index"]
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), path)
        tasks = pd.DataFrame({"task_index": list(self._tasks.values())}, index=pd.Index(self._tasks, name="task"))
        tasks.to_parquet(self.root / TASKS_PATH)
        statistics = {key: vector_statistics(np.concatenate(parts)) for key, parts in self._values.items()}
        statistics |= {key: image_statistics(part, self._num_frames) for key, part in self._histograms.items()}
        _write_json(
            self.root / STATS_PATH,
            {key: {name: value.tolist() for name, value in entry.items()} for key, entry in statistics.items()},
        )
        metadata = DatasetCardData(configs=dataset_configs(self.root, DATA_FILES))
        (self.root / "README.md").write_text(f"---\n{metadata.to_yaml()}\n---\n", encoding="utf-8")
        # Last, because its presence is what makes the folder a dataset.
        _write_json(self.root / INFO_PATH, self._info())
        return self.root

    def _info(self) -> dict:
        numeric = [key for key, feature in self.features.items() if not _is_camera(feature)]
        descriptions = {key: {"info": video.info()} for key, video in self._videos.items()}
        if self.conventions and numeric:
            key = DEFAULT_ACTION_KEY if DEFAULT_ACTION_KEY in numeric else numeric[0]
            descriptions[key] = {"info": {CONVENTIONS_KEY: self.conventions}}
        info = {
            "codebase_version": "v3.0",
            "robot_type": self.robot_type,
            "total_episodes": len(self._episodes),
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": self.max_file_size_mb,
            "video_files_size_in_mb": self.max_video_file_size_mb,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": {key: feature | descriptions.get(key, {}) for key, feature in self._stored_features.items()},
        }
        conventions = {**self.conventions, **self.recording}
        return info | ({CONVENTIONS_KEY: conventions} if conventions else {})

    def _append(self, arrays: dict[str, np.ndarray]) -> None:
        """Write one episode as one row group, in a new file when the present one would grow too large."""
        columns = {}
        for key, feature in self._stored_features.items():
            if feature["dtype"] == "video":
                continue
            if feature["dtype"] == "image":
                columns[key] = [
                    {"bytes": _encode_png(frame), "path": f"frame-{number:06d}.png"}
                    for number, frame in enumerate(arrays[key])
                ]
            else:
                columns[key] = arrays[key][:, 0] if feature["shape"] == (1,) else arrays[key]
        table = datasets.Dataset.from_dict(columns, features=self._hf_features).data.table
        if self._parquet is not None and self._file.tell() + table.nbytes > self.max_file_size_mb * 2**20:
            self._close_file()
        if self._parquet is None:
            chunk_index, file_index = divmod(self._num_files, CHUNKS_SIZE)
            path = self.root / DATA_PATH.format(chunk_index=chunk_index, file_index=file_index)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            self._parquet = pq.ParquetWriter(self._file, table.schema)
            self._num_files += 1
        self._parquet.write_table(table, row_group_size=len(table))

    def _close_file(self) -> None:
        self._parquet.close()
        self._file.close()
        self._parquet = None

    def _episode_statistics(self, arrays: dict[str, np.ndarray]) -> dict[str, list]:
        """Columns `stats/{feature}/{statistic}` of one episode; also adds it to the statistics of the dataset."""
        statistics = {}
        for key, array in arrays.items():
            if key in self._histograms:
                histogram = channel_histogram(array)
                self._histograms[key] += histogram
                entry = image_statistics(histogram, len(array))
            else:
                self._values[key].append(array)
                entry = vector_statistics(array)
            statistics |= {f"stats/{key}/{name}": value.tolist() for name, value in entry.items()}
        return statistics


def _checked_feature(key: str, feature: dict) -> dict:
    """The feature with a tuple for its shape and its `names` filled in."""
    if key in INDEX_FEATURES or "/" in key:
        raise ValueError(
            f"`features`: {key!r} cannot be used, it is an index column of the format or contains '/'. Rename it."
        )
    missing = [name for name in ("dtype", "shape") if name not in feature]
    if missing:
        raise ValueError(f"`features` {key!r} lacks {missing[0]!r}; expected {{'dtype': ..., 'shape': ...}}.")
    dtype, shape, names = feature["dtype"], tuple(feature["shape"]), feature.get("names")
    if dtype in CAMERA_DTYPES:
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
            raise ValueError(f"`features` {key!r}: {dtype} shape is {shape}, expected (height, width, 3).")
        if dtype == "video" and (shape[0] % 2 or shape[1] % 2):
            raise ValueError(
                f"`features` {key!r}: video shape is {shape}, but colours are stored for squares of 2 x 2 pixels. Use an "
                "even height and width, or dtype 'image'."
            )
        names = ["height", "width", "channels"]
    elif dtype not in NUMERIC_DTYPES:
        raise ValueError(
            f"`features` {key!r}: dtype {dtype!r} is unknown, expected 'image', 'video' or one of {NUMERIC_DTYPES}."
        )
    elif not 1 <= len(shape) <= 5 or min(shape) < 1:
        raise ValueError(f"`features` {key!r}: shape is {shape}, expected 1 to 5 positive sizes.")
    return {"dtype": dtype, "shape": shape, "names": names}


def _is_camera(feature: dict) -> bool:
    return feature["dtype"] in CAMERA_DTYPES


def _hf_feature(feature: dict) -> object:
    """The `datasets` type of a feature, as LeRobot v3.0 stores it."""
    shape, dtype = feature["shape"], feature["dtype"]
    if dtype == "image":
        return datasets.Image()
    if shape == (1,):
        return datasets.Value(dtype)
    if len(shape) == 1:
        return datasets.List(datasets.Value(dtype), length=shape[0])
    arrays = {2: datasets.Array2D, 3: datasets.Array3D, 4: datasets.Array4D, 5: datasets.Array5D}
    return arrays[len(shape)](shape, dtype)


def _checked_array(key: str, feature: dict, array: np.ndarray) -> np.ndarray:
    dtype = np.dtype("uint8" if _is_camera(feature) else feature["dtype"])
    if array.shape[1:] != feature["shape"]:
        expected = ", ".join(map(str, ("frames", *feature["shape"])))
        raise ValueError(f"`frames` {key!r} has shape {array.shape}, expected ({expected}).")
    if array.dtype == dtype == np.uint8:
        return array
    if _is_camera(feature) or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"`frames` {key!r} has dtype {array.dtype}, expected {dtype}. Convert it explicitly.")
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is reported below
        cast = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(
            f"`frames` {key!r} holds numbers that do not fit {dtype}. Record the feature in a wider dtype."
        )
    wrong = np.argwhere(~np.isfinite(cast))
    if len(wrong):
        raise ValueError(
            f"`frames` {key!r} is {cast[tuple(wrong[0])]} at frame {wrong[0][0]}; only finite numbers are recorded. "
            "Drop the episode or repair the value."
        )
    if dtype == np.float32 and len(array):
        check_held(array.reshape(len(array), -1), cast.reshape(len(cast), -1), f"`frames` {key!r}")
    return cast


def _encode_png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Half the time of the default level for files 10 % larger.
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


__all__ = ["LeRobotWriter"]
