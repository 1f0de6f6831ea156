# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LeRobot datasets (v2.1 and v3.0) as a map-style PyTorch dataset of observations and action chunks."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from huggingface_hub import snapshot_download

from .lerobot_images import ParquetImages
from .lerobot_metadata import (
    CONVENTIONS_KEY,
    LeRobotMetadata,
    data_path_pattern,
    download_metadata,
    load_metadata,
)
from .lerobot_table import read_frame_table

DEFAULT_ACTION_KEY = "action"
DEFAULT_STATE_KEY = "observation.state"


class Sample(TypedDict):
    """One observation with the action chunk that begins there. H is the chunk size, A and S are the widths."""

    images: list[np.ndarray]  # uint8 (height, width, 3), one per camera
    instruction: str
    actions: np.ndarray  # float32 (H, A), physical units; the last action is repeated past the episode's end
    action_mask: np.ndarray  # bool (H,), False where the action is such a repetition
    state: np.ndarray  # float32 (S,)
    episode_index: int
    frame_index: int
    index: int  # row in the whole dataset, whatever episodes are selected
    dataset_key: str


class LeRobotDataset(torch.utils.data.Dataset):
    """LeRobot dataset with images embedded in its parquet files, layouts v2.1 and v3.0.

    Numeric columns are read at construction in one pass and checked against the episode table; images are decoded
    when first asked for. Positions (`dataset[i]` and the `index` arguments) count the frames of the selected episodes;
    `Sample["index"]` is the row in the whole dataset. The two agree while all episodes are selected.

    Args:
        root_or_repo (`str` or `Path`): Local folder, or repo id of a dataset on the Hub (only needed files are fetched).
        revision (`str`, *optional*): Branch, tag or commit of the repo.
        token (`str`, *optional*): Hub token for private repos.
        image_keys (`list[str]`, *optional*): Cameras, in the order of `Sample["images"]`. All by default.
        state_key (`str`, *optional*):
            State feature of shape `(S,)`. Defaults to `"observation.state"` where it exists, otherwise S is 0.
        action_key (`str`, *optional*): Action feature of shape `(A,)`. Defaults to `"action"`.
        chunk_size (`int`, defaults to 5): Actions per sample, H, one per frame at the dataset's own rate.
        episodes (`list[int]`, *optional*): Episode indices to keep; they stay in dataset order.
        dataset_key (`str`, *optional*): Name under which statistics are kept. Defaults to the last part of the name.
        cache_images (`bool`, defaults to `True`):
            Keep decoded frames in memory. Set to `False` for datasets larger than the memory.

    Raises:
        FileNotFoundError: The dataset or one of its files is missing, or a writer was not finalised.
        ValueError: An unknown format, an unknown key or episode, video features, or inconsistent data (named with
            file and row).

    Example:
        ```python
        dataset = LeRobotDataset("demonstrations", chunk_size=5)
        dataset[0]["actions"].shape
        ```

    Attributes:
        repo_id, revision (`str` or `None`): Name and commit of a dataset from the Hub; None for a local folder.
    """

    def __init__(
        self,
        root_or_repo: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        image_keys: list[str] | None = None,
        state_key: str | None = None,
        action_key: str | None = None,
        chunk_size: int = 5,
        episodes: Sequence[int] | None = None,
        dataset_key: str | None = None,
        cache_images: bool = True,
    ):
        if chunk_size < 1:
            raise ValueError(f"`chunk_size` is {chunk_size}; it must be at least 1 action per sample.")
        self.chunk_size = chunk_size
        root = download_metadata(root_or_repo, revision, token)
        metadata = load_metadata(root)
        features = metadata.info["features"]
        if image_keys is None:
            image_keys = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
        if state_key is None and DEFAULT_STATE_KEY in features:
            state_key = DEFAULT_STATE_KEY
        if action_key is None:
            action_key = DEFAULT_ACTION_KEY
        self.image_keys = list(image_keys)
        self.state_key = state_key
        self.action_key = action_key
        self.dataset_key = dataset_key if dataset_key is not None else Path(root_or_repo).resolve().name

        sizes = {key: _image_size(metadata, key) for key in self.image_keys}
        _check_vector_feature(metadata, action_key, "action_key")
        if state_key is not None:
            _check_vector_feature(metadata, state_key, "state_key")
        positions = _episode_positions(metadata, episodes)
        if not Path(root_or_repo).is_dir():
            _download_data(str(root_or_repo), metadata, positions, token)

        is_local = Path(root_or_repo).is_dir()
        self.repo_id = None if is_local else str(root_or_repo)
        # The folder of a snapshot is named after its commit.
        self.revision = None if is_local else root.name
        self._metadata = metadata
        self._table = read_frame_table(metadata, positions, action_key, state_key)
        self._images = {
            key: ParquetImages(root, self._table, key, sizes[key], cache_images) for key in self.image_keys
        }
        self._select_episodes(positions, np.arange(len(self._table.index)))

    def _select_episodes(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Keep the episodes at `positions` of the episode table, whose frames lie at `rows` of the frame table."""
        table = self._metadata.episodes
        length = table["length"][positions]
        stop = np.cumsum(length)
        self._rows = rows
        self._positions = positions
        self._episode_of_row = np.repeat(np.arange(len(positions)), length)
        self._episodes = {
            "index": table["index"][positions],
            "from": stop - length,
            "to": stop,
            "length": length,
            "tasks": [table["tasks"][position] for position in positions.tolist()],
        }

    @property
    def info(self) -> dict:
        """Content of `meta/info.json`."""
        return self._metadata.info

    @property
    def root(self) -> Path:
        """Local folder of the dataset."""
        return self._metadata.root

    @property
    def fps(self) -> float:
        """Frames, and therefore actions, per second."""
        return self.info["fps"]

    @property
    def conventions(self) -> dict:
        """What the recorder noted about how the data came about (renderer, image size, ...); empty when nothing."""
        return self.info.get(CONVENTIONS_KEY, {})

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
    def action_dim(self) -> int:
        """Width A of the actions."""
        return self._table.actions.shape[1]

    @property
    def state_dim(self) -> int:
        """Width S of the states, 0 without a state feature."""
        return self._table.states.shape[1]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        row = self._row(index)
        last = self.last_frame_index(index)
        chunk = index + np.arange(self.chunk_size)
        return {
            "images": [self.frame(index, key) for key in self.image_keys],
            "instruction": self._metadata.tasks[int(self._table.task_index[row])],
            "actions": self._table.actions[self._rows[np.minimum(chunk, last)]],
            "action_mask": chunk <= last,
            "state": self._table.states[row].copy(),
            "episode_index": int(self._table.episode_index[row]),
            "frame_index": int(self._table.frame_index[row]),
            "index": int(self._table.index[row]),
            "dataset_key": self.dataset_key,
        }

    def frame(self, index: int, key: str | None = None) -> np.ndarray:
        """One image.

        Args:
            index (`int`): Position in this dataset.
            key (`str`, *optional*): Camera; the first one by default.

        Returns:
            `np.ndarray`: uint8 `(height, width, 3)`.
        """
        if not self.image_keys:
            raise ValueError("The dataset was opened without cameras. Name at least one in `image_keys`.")
        if key is None:
            key = self.image_keys[0]
        if key not in self._images:
            raise ValueError(f"`key` {key!r} is no opened camera. Opened: {', '.join(self.image_keys)}.")
        return self._images[key].read(self._row(index))

    def last_frame_index(self, index: int) -> int:
        """Position of the last frame of the episode that holds `index`: the end goal."""
        self._row(index)
        return int(self._episodes["to"][self._episode_of_row[index]]) - 1

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

    def split_by_episode(self, validation_fraction: float, seed: int) -> tuple["LeRobotDataset", "LeRobotDataset"]:
        """Two datasets that share no episode; columns and decoded frames stay shared in memory.

        Args:
            validation_fraction (`float`): Share of the episodes for validation, between 0 and 1; at least one each.
            seed (`int`): Same seed, same split.

        Returns:
            `tuple[LeRobotDataset, LeRobotDataset]`: Training and validation part, episodes in dataset order.
        """
        if not 0 < validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` is {validation_fraction}; it must lie between 0 and 1, both excluded."
            )
        if self.num_episodes < 2:
            raise ValueError(
                f"A split needs at least 2 episodes, {self.num_episodes} selected. Record or select more."
            )
        held_out = min(max(round(validation_fraction * self.num_episodes), 1), self.num_episodes - 1)
        order = np.random.default_rng(seed).permutation(self.num_episodes)
        return self._subset(np.sort(order[held_out:])), self._subset(np.sort(order[:held_out]))

    def _subset(self, episodes: np.ndarray) -> "LeRobotDataset":
        subset = copy.copy(self)
        subset._select_episodes(self._positions[episodes], self._rows[np.isin(self._episode_of_row, episodes)])
        return subset

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"`index` {index} is out of range: the dataset has {len(self)} frames.")
        return int(self._rows[index])


def _image_size(metadata: LeRobotMetadata, key: str) -> tuple[int, int]:
    """Height and width of an image feature. Only its description may be channels-first; stored images never are."""
    feature = metadata.feature(key, "image_keys", "an image feature")
    if feature["dtype"] == "video":
        raise ValueError(
            f"Feature {key!r} is stored as video, which is not supported yet: only images embedded in the parquet "
            "files are read. Use a copy of the dataset with images, or leave the camera out through `image_keys`."
        )
    if feature["dtype"] != "image":
        raise ValueError(f"`image_keys` {key!r} has dtype {feature['dtype']!r}, expected 'image'.")
    shape = feature["shape"]
    if len(shape) != 3 or 3 not in (shape[0], shape[2]):
        raise ValueError(
            f"`image_keys` {key!r} has shape {tuple(shape)}, expected (height, width, 3) or (3, height, width)."
        )
    return (shape[0], shape[1]) if shape[2] == 3 else (shape[1], shape[2])


def _check_vector_feature(metadata: LeRobotMetadata, key: str, argument: str) -> None:
    feature = metadata.feature(key, argument, "a vector feature")
    if len(feature["shape"]) != 1 or feature["dtype"] in ("image", "video", "string"):
        raise ValueError(
            f"`{argument}` {key!r} has dtype {feature['dtype']!r} and shape {tuple(feature['shape'])}, expected a "
            "numeric vector (width,). Choose another feature."
        )


def _episode_positions(metadata: LeRobotMetadata, episodes: Sequence[int] | None) -> np.ndarray:
    index = metadata.episodes["index"]
    if episodes is None:
        return np.arange(len(index))
    unknown = sorted(set(episodes) - set(index.tolist()))
    if unknown:
        raise ValueError(
            f"`episodes` names {unknown[0]}, which the dataset does not hold: it has {len(index)} episodes, "
            f"{index[0]} to {index[-1]}."
        )
    if len(set(episodes)) != len(episodes) or len(episodes) == 0:
        raise ValueError("`episodes` must name at least one episode, and none twice. Use `None` for all of them.")
    return np.flatnonzero(np.isin(index, episodes))


def _download_data(repo: str, metadata: LeRobotMetadata, positions: np.ndarray, token: str | None) -> None:
    """Fetch the data files that hold some episodes, at the very commit the metadata came from."""
    if len(positions) == len(metadata.episodes["index"]):
        patterns = [data_path_pattern(metadata.info["data_path"])]
    else:
        patterns = sorted({metadata.episodes["file"][position] for position in positions.tolist()})
    # The folder of a snapshot is named after its commit.
    snapshot_download(repo, repo_type="dataset", revision=metadata.root.name, token=token, allow_patterns=patterns)


__all__ = ["LeRobotDataset", "Sample"]
