# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LeRobot datasets (v2.0, v2.1 and v3.0) as a map-style PyTorch dataset of observations and action chunks."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .camera_frames import CameraFrames
from .lerobot_layout import DEFAULT_STATE_KEY, VERSIONS_WITH_FILES_PER_EPISODE, stored_key
from .lerobot_source import LeRobotReader, LeRobotSource, Sample, check_vector_feature, open_source, split_positions
from .lerobot_table import FrameTable, read_frame_table
from .parquet_images import ParquetImages
from .video_decoder import VideoDecoders
from .video_frames import VideoFrames

logger = logging.getLogger(__name__)

# Decoded frames of a dataset that are kept without being asked for.
CACHED_BYTES = 2**30


class LeRobotDataset(LeRobotReader, torch.utils.data.Dataset):
    """LeRobot dataset in layout v2.0, v2.1 or v3.0, with cameras stored as images in its parquet files or as video.

    Numeric columns are read at construction in one pass and checked against the episode table; frames are decoded
    when first asked for. Positions (`dataset[i]` and the `index` arguments) count the frames of the selected episodes;
    `Sample["index"]` is the row in the whole dataset. The two agree while all episodes are selected.

    An episode shorter than the chunk is no defect: its chunks are padded, as all chunks at the end of an episode are.

    Args:
        root_or_repo (`str` or `Path`): Local folder, or repo id of a dataset on the Hub (only needed files are fetched).
        revision (`str`, *optional*): Branch, tag or commit of the repo.
        token (`str`, *optional*): Hub token for private repos.
        image_keys (`list[str]` or `dict[str, str]`, *optional*):
            Cameras, in the order of `Sample["images"]`. By default all with colour pictures; depth cameras are left out. A
            dictionary from name to feature also says what a camera is called, where that is not the name of its feature:
            `{"top": "observation.images.cam_high"}`.
        state_key (`str` or `None`, defaults to `"observation.state"`):
            State feature of shape `(S,)`. `None` reads no state, and S is 0; so it is by default in a dataset that has
            no `"observation.state"`.
        action_key (`str`, *optional*): Action feature of shape `(A,)`. Defaults to `"action"`.
        action_names, state_names (`list[str]`, *optional*):
            What the dimensions are called, in the recorded order, where the dataset does not say so or calls them otherwise.
        chunk_size (`int`, defaults to 5): Actions per sample, H, one per frame at the dataset's own rate.
        episodes (`list[int]`, *optional*): Episode indices to keep; they stay in dataset order.
        dataset_key (`str`, *optional*): Name under which statistics are kept. Defaults to the last part of the name.
        cache_images (`bool`, *optional*):
            Keep decoded frames in memory, in each data-loading worker those that it decoded. By default while all frames
            together take at most 1 GiB.
        skip_bad_episodes (`bool`, defaults to `False`):
            Leave out, with a warning, episodes whose rows are inconsistent or whose videos do not reach from their first
            to their last frame, instead of raising; `skipped_episodes` lists them. Opens every video at construction.
            A frame that is damaged inside a good file is still an error when it is read.

    Raises:
        FileNotFoundError: The dataset or one of its files is missing, or a writer was not finalised.
        ValueError: An unknown format, an unknown key or episode, or inconsistent data (named with file and row).

    Example:
        ```python
        dataset = LeRobotDataset("demonstrations", chunk_size=5)
        dataset[0]["actions"].shape
        ```
    """

    def __init__(
        self,
        root_or_repo: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        image_keys: Sequence[str] | Mapping[str, str] | None = None,
        state_key: str | None = DEFAULT_STATE_KEY,
        action_key: str | None = None,
        action_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        chunk_size: int = 5,
        episodes: Sequence[int] | None = None,
        dataset_key: str | None = None,
        cache_images: bool | None = None,
        skip_bad_episodes: bool = False,
    ):
        source = open_source(
            root_or_repo,
            revision,
            token,
            image_keys,
            state_key,
            action_key,
            chunk_size,
            dataset_key,
            action_names,
            state_names,
        )
        self._read(source, source.episode_positions(episodes), cache_images, skip_bad_episodes)
        if not self.num_episodes:
            raise ValueError(
                f"No good episode is left in {source.files.root}: {next(iter(self.skipped_episodes.values()))}"
            )

    @classmethod
    def from_source(
        cls,
        source: LeRobotSource,
        positions: np.ndarray,
        *,
        skip_bad_episodes: bool = False,
        check_precision: bool = False,
    ) -> "LeRobotDataset":
        """Dataset, empty when all are bad, of the episodes at some positions of a source's episode table.

        Frames are not cached.
        """
        dataset = cls.__new__(cls)
        dataset._read(source, positions, False, skip_bad_episodes, check_precision)
        return dataset

    def _read(
        self,
        source: LeRobotSource,
        positions: np.ndarray,
        cache_images: bool | None,
        skip_bad_episodes: bool,
        check_precision: bool = True,
    ) -> None:
        source.fetch(positions)
        self._source = source
        self._table = read_frame_table(
            source.metadata, positions, source.action_key, source.state_key, skip_bad_episodes, check_precision
        )
        # As recorded, by key, in the rows of the table; shared with the parts of a split.
        self._columns = {source.action_key: self._table.actions}
        if source.state_key is not None:
            self._columns[source.state_key] = self._table.states
        self._table = _arranged(self._table, source.action_order, source.state_order)
        if cache_images is None:
            pixels = sum(height * width for height, width in source.image_sizes.values())
            cache_images = 3 * pixels * len(self._table.episode) <= CACHED_BYTES
        self._decoders = VideoDecoders(source.files.root, self.fps)
        self._cameras = {key: self._camera(key, size, cache_images) for key, size in source.image_sizes.items()}
        self._opened = self._cameras
        skipped = self._table.skipped
        if skip_bad_episodes:
            skipped = skipped | self._bad_videos()
        elif self.info["codebase_version"] not in VERSIONS_WITH_FILES_PER_EPISODE:
            # Opening as many files as there are episodes would take too long.
            for key in source.video_keys:
                self._cameras[key].check_files()
        index = source.metadata.episodes.index
        self._skipped_episodes = {int(index[position]): skipped[position] for position in sorted(skipped)}
        if skipped:
            logger.warning(
                f"{len(skipped)} of {len(positions)} episodes of {self.dataset_key!r} are bad and were skipped. The first, "
                f"episode {next(iter(self._skipped_episodes))}: {next(iter(self._skipped_episodes.values()))}"
            )
            positions = np.setdiff1d(positions, list(skipped))
        self._select_episodes(positions, np.flatnonzero(np.isin(self._table.episode, positions)))

    def _camera(self, key: str, size: tuple[int, int], cache: bool) -> CameraFrames:
        videos = self._source.metadata.episodes.videos
        if key in videos:
            return VideoFrames(self._decoders, self._table, key, size, cache, videos[key])
        return ParquetImages(self._source.files.root, self._table, key, size, cache)

    def _bad_videos(self) -> dict[int, str]:
        """Positions of episodes whose first or last frame cannot be read from a video, with the reason."""
        bad = {}
        present, first = np.unique(self._table.episode, return_index=True)
        last = np.append(first[1:], len(self._table.episode)) - 1
        for key in self._source.video_keys:
            for position, *rows in zip(present.tolist(), first.tolist(), last.tolist(), strict=True):
                try:
                    self._cameras[key].check_episode(*rows)
                except (OSError, ValueError) as error:
                    bad.setdefault(position, str(error))
        return bad

    def _select_episodes(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Keep the episodes at `positions` of the episode table, whose frames lie at `rows` of the frame table."""
        table = self._source.metadata.episodes
        length = table.length[positions]
        stop = np.cumsum(length)
        self._rows = rows
        self._positions = positions
        self._episode_of_row = np.repeat(np.arange(len(positions)), length)
        self._episodes = {
            "index": table.index[positions],
            "from": stop - length,
            "to": stop,
            "length": length,
            "tasks": self._tasks(positions, rows, stop),
        }

    def _tasks(self, positions: np.ndarray, rows: np.ndarray, stop: np.ndarray) -> list[list[str]]:
        """Instructions of each episode, from the episode table or else in the order of its frames."""
        metadata = self._source.metadata
        if metadata.episodes.tasks is not None:
            return [metadata.episodes.tasks[position] for position in positions.tolist()]
        of_episode = np.split(self._table.task_index[rows], stop[:-1])
        return [[metadata.tasks[index] for index in dict.fromkeys(each.tolist())] for each in of_episode]

    @property
    def episodes(self) -> dict[str, np.ndarray | list]:
        """Table of the selected episodes, one column per key.

        `index` int64 (episode index in the whole dataset), `from` and `to` int64 (positions in this dataset, `to`
        excluded), `length` int64, `tasks` a list of lists of instructions.
        """
        return self._episodes

    @property
    def num_episodes(self) -> int:
        """Number of selected episodes."""
        return len(self._episodes["index"])

    @property
    def skipped_episodes(self) -> dict[int, str]:
        """Index and defect of each episode that `skip_bad_episodes` left out."""
        return self._skipped_episodes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        row = self._row(index)
        last = self.last_frame_index(index)
        chunk = index + np.arange(self.chunk_size)
        table, metadata = self._table, self._source.metadata
        position, frame = int(table.episode[row]), int(table.frame_index[row])
        return {
            "images": [camera.read(row) for camera in self._cameras.values()],
            "instruction": metadata.tasks[int(table.task_index[row])],
            "actions": table.actions[self._rows[np.minimum(chunk, last)]],
            "action_mask": chunk <= last,
            "state": table.states[row].copy(),
            "episode_index": int(metadata.episodes.index[position]),
            "frame_index": frame,
            "index": int(metadata.episodes.start[position]) + frame,
            "dataset_key": self.dataset_key,
        }

    @property
    def opened_keys(self) -> list[str]:
        """Features of all opened cameras, also of those that [`~LeRobotDataset.arranged`] left out."""
        return list(self._opened)

    def frame(self, index: int, key: str | None = None) -> np.ndarray:
        """One image.

        Args:
            index (`int`): Position in this dataset.
            key (`str`, *optional*): Feature of an opened camera, also one that `arranged` left out; the first one by default.

        Returns:
            `np.ndarray`: uint8 `(height, width, 3)`.
        """
        if key is None:
            if not self._cameras:
                raise ValueError("The dataset was opened without cameras. Name at least one in `image_keys`.")
            key = self.image_keys[0]
        if key not in self._opened:
            raise ValueError(f"`key` {key!r} is not an opened camera. Opened: {', '.join(self.opened_keys)}.")
        return self._opened[key].read(self._row(index))

    def last_frame_index(self, index: int) -> int:
        """Position of the last frame of the episode that holds `index`: the end goal."""
        self._row(index)
        return int(self._episodes["to"][self._episode_of_row[index]]) - 1

    def first_frame_index(self, index: int) -> int:
        """Position of the first frame of the episode that holds `index`."""
        self._row(index)
        return int(self._episodes["from"][self._episode_of_row[index]])

    def subgoal_index(self, index: int, steps: int) -> int:
        """Position `steps` frames after `index`, at most the last frame of the episode."""
        return min(index + steps, self.last_frame_index(index))

    def episode_arrays(self, episode: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames of the first camera and actions of one episode.

        Args:
            episode (`int`): Position in `episodes`, `0 ... num_episodes - 1`.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: uint8 `(F, height, width, 3)` and float32 `(F, A)`.
        """
        if not 0 <= episode < self.num_episodes:
            raise IndexError(f"`episode` {episode} is out of range: {self.num_episodes} episodes are selected.")
        rows = range(self._episodes["from"][episode], self._episodes["to"][episode])
        return np.stack([self.frame(row) for row in rows]), self._table.actions[self._rows[rows]]

    def all_actions(self) -> np.ndarray:
        """Every action once, float32 `(N, A)`, in physical units."""
        return self._table.actions[self._rows]

    def all_states(self) -> np.ndarray:
        """Every state once, float32 `(N, S)`."""
        return self._table.states[self._rows]

    def column(self, key: str) -> np.ndarray:
        """
        Every value of a vector feature once, whether or not the dataset was opened with it; read when first asked for.

        Args:
            key (`str`): A numeric feature of shape `(W,)`, as `"executed_action"`.

        Returns:
            `np.ndarray`: float32 `(N, W)`, one row per frame of this dataset.

        Raises:
            ValueError: An unknown key, one that is no such feature, or a value that is not finite.
        """
        key = stored_key(self.info["features"], key)
        if key not in self._columns:
            check_vector_feature(self._source.metadata, key, "key")
            present = np.unique(self._table.episode)
            table = read_frame_table(
                self._source.metadata, present, key, None, skip_bad_episodes=bool(self._skipped_episodes)
            )
            for defect in table.skipped.values():
                raise ValueError(defect)
            self._columns[key] = table.actions
        return self._columns[key][self._rows]

    def split_by_episode(self, validation_fraction: float, seed: int) -> tuple["LeRobotDataset", "LeRobotDataset"]:
        """Two datasets that share no episode; columns and decoded frames stay shared in memory.

        Args:
            validation_fraction (`float`): Share of the episodes for validation, between 0 and 1; at least one each.
            seed (`int`): Same seed, same split.

        Returns:
            `tuple[LeRobotDataset, LeRobotDataset]`: Training and validation part, episodes in dataset order.
        """
        train, validation = split_positions(self._positions, validation_fraction, seed)
        return self._subset(train), self._subset(validation)

    def _subset(self, positions: np.ndarray) -> "LeRobotDataset":
        subset = copy.copy(self)
        subset._select_episodes(positions, self._rows[np.isin(self._table.episode[self._rows], positions)])
        return subset

    def _with_source(self, source: LeRobotSource) -> "LeRobotDataset":
        arranged = super()._with_source(source)
        arranged._cameras = {key: self._opened[key] for key in source.image_sizes}
        recorded = replace(
            self._table,
            actions=self._columns[source.action_key],
            states=self._table.states if source.state_key is None else self._columns[source.state_key],
        )
        arranged._table = _arranged(recorded, source.action_order, source.state_order)
        return arranged

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"`index` {index} is out of range: the dataset has {len(self)} frames.")
        return int(self._rows[index])


def _arranged(table: FrameTable, action_order: Sequence[int] | None, state_order: Sequence[int] | None) -> FrameTable:
    """A table as recorded, with the dimensions of actions and states in another order."""
    if action_order is not None:
        table = replace(table, actions=table.actions[:, list(action_order)])
    if state_order is not None:
        table = replace(table, states=table.states[:, list(state_order)])
    return table


__all__ = ["LeRobotDataset", "Sample"]
