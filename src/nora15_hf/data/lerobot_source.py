# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A LeRobot dataset with its features chosen: what map-style and streaming readers have in common."""

import copy
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypedDict

import numpy as np

from ..embodiment.embodiment import Camera, Embodiment
from ..simulation.environment import camera_name
from .feature_names import feature_names
from .lerobot_download import DatasetFiles, locate_dataset
from .lerobot_layout import (
    DEFAULT_ACTION_KEY,
    DEFAULT_STATE_KEY,
    is_camera,
    is_depth_map,
    path_pattern,
    picture_shape,
    stored_conventions,
    stored_key,
)
from .lerobot_metadata import LeRobotMetadata, load_metadata
from .told_embodiment import told_embodiment

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class LeRobotSource:
    """Metadata of a dataset and the features that samples are made of; see [`open_source`]."""

    files: DatasetFiles
    metadata: LeRobotMetadata
    image_sizes: dict[str, tuple[int, int]]
    camera_names: tuple[str, ...]
    state_key: str | None
    action_key: str
    action_names: tuple[str, ...] | None
    state_names: tuple[str, ...] | None
    chunk_size: int
    dataset_key: str
    told: Embodiment
    # Order in which the recorded dimensions are given out; None: as recorded.
    action_order: tuple[int, ...] | None = None
    state_order: tuple[int, ...] | None = None

    @property
    def video_keys(self) -> list[str]:
        """Those of the chosen cameras that are stored as video."""
        return [key for key in self.image_sizes if key in self.metadata.episodes.videos]

    def episode_positions(self, episodes: Sequence[int] | None) -> np.ndarray:
        """Positions in the episode table of the episodes with these indices, ascending; all of them for `None`."""
        index = self.metadata.episodes.index
        if episodes is None:
            return np.arange(len(index))
        unknown = sorted(set(episodes) - set(index.tolist()))
        if unknown:
            raise ValueError(
                f"`episodes` names {unknown[0]}, which is not in the dataset: it has {len(index)} episodes, "
                f"{index[0]} to {index[-1]}."
            )
        if len(set(episodes)) != len(episodes) or len(episodes) == 0:
            raise ValueError("`episodes` must name at least one episode, and none twice. Use `None` for all of them.")
        return np.flatnonzero(np.isin(index, episodes))

    def fetch(self, positions: np.ndarray) -> None:
        """Make the data and video files present that hold the episodes at these positions of the episode table."""
        episodes, info = self.metadata.episodes, self.metadata.info
        if len(positions) == len(episodes):
            patterns = [path_pattern(info["data_path"])]
            patterns += [path_pattern(info["video_path"], key) for key in self.video_keys]
        else:
            holders = [episodes.file] + [episodes.videos[key].file for key in self.video_keys]
            patterns = sorted({holder[position] for holder in holders for position in positions.tolist()})
        self.files.fetch(patterns)


class LeRobotReader:
    """Properties that every reader of a LeRobot dataset has."""

    _source: LeRobotSource
    # Positions of the selected episodes in the episode table.
    _positions: np.ndarray

    @property
    def root(self) -> Path:
        """Local folder of the dataset."""
        return self._source.files.root

    @property
    def repo_id(self) -> str | None:
        """Name of a dataset from the Hub, `None` for a local folder."""
        return self._source.files.repo_id

    @property
    def revision(self) -> str | None:
        """Commit of a dataset from the Hub, `None` for a local folder."""
        return self._source.files.revision

    @property
    def dataset_key(self) -> str:
        """Name under which statistics are kept."""
        return self._source.dataset_key

    @property
    def episode_indices(self) -> np.ndarray:
        """Indices of the selected episodes, int64, ascending."""
        return self._source.metadata.episodes.index[self._positions]

    @property
    def image_keys(self) -> list[str]:
        """Cameras, in the order of `Sample["images"]`."""
        return list(self._source.image_sizes)

    @property
    def state_key(self) -> str | None:
        """State feature, `None` without one."""
        return self._source.state_key

    @property
    def action_key(self) -> str:
        """Action feature."""
        return self._source.action_key

    @property
    def chunk_size(self) -> int:
        """Actions per sample, H."""
        return self._source.chunk_size

    @property
    def action_dim(self) -> int:
        """Width A of the actions."""
        return self.info["features"][self.action_key]["shape"][0]

    @property
    def state_dim(self) -> int:
        """Width S of the states, 0 without a state feature."""
        return 0 if self.state_key is None else self.info["features"][self.state_key]["shape"][0]

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras, in the order of `image_keys`; see [`Embodiment`]."""
        return self._source.camera_names

    @property
    def action_names(self) -> tuple[str, ...] | None:
        """Names of the A action dimensions, in the order of `Sample["actions"]`; `None` where nobody tells them."""
        return self._source.action_names

    @property
    def state_names(self) -> tuple[str, ...] | None:
        """Names of the S state dimensions, in the order of `Sample["state"]`; `None` where nobody tells them."""
        return self._source.state_names

    @property
    def recorded_order(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Of actions and of states the place in the recording of each dimension that is given out; `None`: its own."""
        return self._source.action_order, self._source.state_order

    @property
    def embodiment(self) -> Embodiment:
        """
        The contract of the data: what features, frame rate and the recorder's conventions tell.

        What features cannot tell (roles of cameras, units, which actions are changes, the gripper's sign) is read from the
        item `"embodiment"` of the conventions, in the form of [`Embodiment.to_dict`] and in the recorded order.
        """
        source, told = self._source, self._source.told
        described = told.cameras or {}
        gripper = told.gripper or self.conventions.get("gripper")
        actions, states = (self.action_dim, source.action_order), (self.state_dim, source.state_order)
        return Embodiment(
            cameras={
                name: Camera(height=height, width=width, role=described[name].role if name in described else None)
                for name, (height, width) in zip(self.camera_names, source.image_sizes.values(), strict=True)
            },
            action_dim=self.action_dim,
            action_names=self.action_names,
            action_units=_in_order(told.action_units, *actions),
            delta_actions=_in_order(told.delta_actions, *actions),
            gripper=None if gripper is None else str(gripper),
            state_dim=self.state_dim,
            state_names=self.state_names,
            state_units=_in_order(told.state_units, *states),
            control_rate=self.fps,
            chunk_size=self.chunk_size,
        )

    def arranged(self, like: Embodiment) -> Self:
        """
        This dataset with the cameras, actions and states in another order: that of `like`, where both name the same ones.

        Cameras that `like` does not have are left out; it must not have others. Whether the rest agrees is not checked here,
        see [`~nora15_hf.data.fit_dataset`].
        """
        source = self._source
        cameras = self.camera_names if like.cameras is None else tuple(like.cameras)
        keys = dict(zip(source.camera_names, source.image_sizes, strict=True))
        arranged = replace(
            source,
            image_sizes={keys[name]: source.image_sizes[keys[name]] for name in cameras},
            camera_names=cameras,
            **_reordered("action", source.action_names, like.action_names, source.action_order),
            **_reordered("state", source.state_names, like.state_names, source.state_order),
        )
        return self if arranged == source else self._with_source(arranged)

    def _with_source(self, source: LeRobotSource) -> Self:
        """A copy with the same rows, described by another source."""
        arranged = copy.copy(self)
        arranged._source = source
        return arranged

    @property
    def info(self) -> dict:
        """Content of `meta/info.json`."""
        return self._source.metadata.info

    @property
    def fps(self) -> float:
        """Frames, and therefore actions, per second."""
        return self.info["fps"]

    @property
    def conventions(self) -> dict:
        """What the recorder noted about how the data came about (renderer, image size, ...); empty when nothing."""
        return stored_conventions(self.info)


def open_source(
    root_or_repo: str | Path,
    revision: str | None,
    token: str | None,
    image_keys: Sequence[str] | Mapping[str, str] | None,
    state_key: str | None,
    action_key: str | None,
    chunk_size: int,
    dataset_key: str | None,
    action_names: Sequence[str] | None = None,
    state_names: Sequence[str] | None = None,
) -> LeRobotSource:
    """Read the metadata of a dataset and check the chosen features; arguments and errors as [`LeRobotDataset`]."""
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` is {chunk_size}; it must be at least 1 action per sample.")
    files = locate_dataset(root_or_repo, revision, token)
    metadata = load_metadata(files.root)
    features = metadata.info["features"]
    if image_keys is None:
        image_keys = _colour_cameras(metadata)
    if isinstance(image_keys, str):
        raise TypeError(f"`image_keys` is the string {image_keys!r}; expected a list of cameras, [{image_keys!r}].")
    chosen = list(image_keys.values() if isinstance(image_keys, Mapping) else image_keys)
    repeated = sorted({key for key in chosen if chosen.count(key) > 1}, key=str)
    if repeated:
        raise ValueError(
            f"`image_keys` names {', '.join(map(repr, repeated))} twice; a policy receives each camera once. Remove one of them."
        )
    if not isinstance(image_keys, Mapping):
        short = Counter(map(camera_name, chosen))
        image_keys = {key if short[camera_name(key)] > 1 else camera_name(key): key for key in chosen}
    if state_key == DEFAULT_STATE_KEY and DEFAULT_STATE_KEY not in features:
        state_key = None
    if action_key is None:
        action_key = DEFAULT_ACTION_KEY
    action_key = stored_key(features, action_key)
    check_vector_feature(metadata, action_key, "action_key")
    if state_key is not None:
        check_vector_feature(metadata, state_key, "state_key")
    key = dataset_key if dataset_key is not None else Path(root_or_repo).resolve().name
    told = told_embodiment(stored_conventions(metadata.info), metadata.info, repr(key))
    # For recordings whose features have no names.
    if action_names is None and action_key == DEFAULT_ACTION_KEY:
        action_names = told.action_names
    if state_names is None and state_key == DEFAULT_STATE_KEY:
        state_names = told.state_names
    return LeRobotSource(
        files=files,
        metadata=metadata,
        image_sizes={key: _image_size(metadata, key) for key in image_keys.values()},
        camera_names=tuple(image_keys),
        state_key=state_key,
        action_key=action_key,
        action_names=_dimension_names(features, action_key, action_names, "action_names"),
        state_names=_dimension_names(features, state_key, state_names, "state_names"),
        chunk_size=chunk_size,
        dataset_key=key,
        told=told,
    )


def _dimension_names(
    features: Mapping[str, dict], key: str | None, given: Sequence[str] | None, argument: str
) -> tuple[str, ...] | None:
    """What the caller calls the dimensions of a vector feature, or else the dataset."""
    if given is None:
        names = None if key is None else feature_names(features[key])
        return None if names is None else tuple(names)
    width = 0 if key is None else features[key]["shape"][0]
    if isinstance(given, str) or len(given) != width or len(set(given)) != width:
        raise ValueError(
            f"`{argument}` is {given!r}; expected {width} different names, one for each dimension of {key!r} in the "
            "recorded order."
        )
    return tuple(given)


def _in_order(told: tuple | None, width: int, order: tuple[int, ...] | None) -> tuple | None:
    """Values per recorded dimension, in the order of a source; values for a column of another width are ignored."""
    if told is None or len(told) != width:
        return None
    return told if order is None else tuple(told[number] for number in order)


def _reordered(
    kind: str, names: tuple[str, ...] | None, wanted: tuple[str, ...] | None, order: tuple[int, ...] | None
) -> dict[str, tuple | None]:
    """Names and order of a source's dimensions as in `wanted`, or unchanged if `wanted` is not a permutation of them."""
    if names is not None and wanted is not None and names != wanted and sorted(names) == sorted(wanted):
        places = tuple(names.index(name) for name in wanted)
        order = places if order is None else tuple(order[place] for place in places)
        names = wanted
    return {f"{kind}_names": names, f"{kind}_order": order}


def split_positions(positions: np.ndarray, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of episodes for training and for validation, both ascending; see [`LeRobotDataset.split_by_episode`]."""
    if not 0 < validation_fraction < 1:
        raise ValueError(
            f"`validation_fraction` is {validation_fraction}; it must lie between 0 and 1, both excluded."
        )
    count = len(positions)
    if count < 2:
        raise ValueError(f"A split needs at least 2 episodes, {count} selected. Record or select more.")
    held_out = min(max(round(validation_fraction * count), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return positions[np.sort(order[held_out:])], positions[np.sort(order[:held_out])]


def _colour_cameras(metadata: LeRobotMetadata) -> list[str]:
    """All cameras but those that a policy cannot see, which are said."""
    cameras = {key: feature for key, feature in metadata.info["features"].items() if is_camera(feature)}
    others = {key: reason for key, feature in cameras.items() if (reason := _why_no_colours(feature))}
    if others:
        logger.warning(
            f"{metadata.root}: {'; '.join(f'camera {key!r} is left out because it {reason}' for key, reason in others.items())}."
        )
    return [key for key in cameras if key not in others]


def _why_no_colours(feature: dict) -> str | None:
    """Why a camera shows no RGB pictures; `None` where it does."""
    if is_depth_map(feature):
        return "is a depth map, not a colour image, according to its `is_depth_map` in meta/info.json"
    shape = picture_shape(feature)
    if shape is None or shape[2] != 3:
        return f"has shape {tuple(feature['shape'])}, expected (height, width, 3) or (3, height, width)"
    return None


def _image_size(metadata: LeRobotMetadata, key: str) -> tuple[int, int]:
    """Height and width of a camera."""
    feature = metadata.feature(key, "image_keys", "an image or video feature")
    if not is_camera(feature):
        raise ValueError(f"`image_keys` {key!r} has dtype {feature['dtype']!r}, expected 'image' or 'video'.")
    if reason := _why_no_colours(feature):
        colours = [
            name for name, each in metadata.info["features"].items() if is_camera(each) and not _why_no_colours(each)
        ]
        raise ValueError(f"`image_keys` {key!r} {reason}. Cameras with colour images: {', '.join(colours) or 'none'}.")
    return picture_shape(feature)[:2]


def check_vector_feature(metadata: LeRobotMetadata, key: str, argument: str) -> None:
    """Refuses a feature that is not a numeric vector; `argument` is the argument that named it."""
    feature = metadata.feature(key, argument, "a vector feature")
    if len(feature["shape"]) != 1 or feature["dtype"] in ("image", "video", "string"):
        raise ValueError(
            f"`{argument}` {key!r} has dtype {feature['dtype']!r} and shape {tuple(feature['shape'])}, expected a "
            f"numeric vector (width,). Choose another feature{', or `None` for no state' if argument == 'state_key' else ''}."
        )


__all__ = [
    "LeRobotReader",
    "LeRobotSource",
    "Sample",
    "check_vector_feature",
    "open_source",
    "split_positions",
]
