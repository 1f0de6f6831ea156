# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How a world model reads a LeRobot dataset: camera, action column, units. Stored next to its weights in `clips.json`."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import cached_file

from ..actions.normalization import ActionStatistics, NormalizationMode, normalize, select_dataset_key
from ..data.dataset_fingerprint import dataset_fingerprint
from ..data.lerobot_dataset import LeRobotDataset
from ..data.lerobot_layout import stored_key
from ..data.statistics import compute_statistics
from ..embodiment.comparison import differing_ranges
from ..embodiment.embodiment import Embodiment
from ..embodiment.junctions import (
    ACTION_ITEMS,
    IMAGINATION,
    NORMALIZATION_ITEMS,
    STATE_ITEMS,
    WORLD_MODEL,
    check_junction,
)
from ..nora15 import Nora15Processor
from ..repo_files.checkpoint import Checkpoint
from ..repo_files.json_files import checked_fields
from ..repo_files.stored_tensors import find_file
from ..repo_files.verified_download import verified
from ..vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, pose_difference

logger = logging.getLogger(__name__)

CLIPS_FILE = "clips.json"
POSE_DIM = 7


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ClipConventions:
    """
    What a world model was trained on, so that whoever uses it reads a dataset in the same way.

    Make one with [`~ClipConventions.of_dataset`], [`~ClipConventions.of_policy`] or [`~ClipConventions.metric`].

    Args:
        dataset (`str`): Repo id, or the name of a local folder.
        dataset_fingerprint (`str`): See [`dataset_fingerprint`].
        image_key (`str`): The camera.
        action_key (`str`, *optional*): Column of the actions; None: differences between consecutive poses.
        state_key (`str`, *optional*): Column of the poses in the metric convention.
        statistics ([`ActionStatistics`], *optional*), normalization_mode (`str`, *optional*):
            How actions are normalised; both None in the metric convention.
        clip_actions (`bool`, *optional*, defaults to `False`): Whether normalised actions are clipped to [-1, 1].
        held_out_episodes (`tuple[int, ...]`, *optional*): Episodes of the dataset that were not trained on.
        embodiment ([`Embodiment`], *optional*): The contract of the dataset; of models from before it was kept, None.
    """

    dataset: str
    dataset_fingerprint: str
    image_key: str
    action_key: str | None
    state_key: str | None = None
    statistics: ActionStatistics | None = None
    normalization_mode: NormalizationMode | None = None
    clip_actions: bool = False
    held_out_episodes: tuple[int, ...] = ()
    embodiment: Embodiment | None = None

    @property
    def contract(self) -> Embodiment:
        """What a policy has to agree with whose actions this world model judges."""
        recorded = self.embodiment or Embodiment()
        if self.statistics is None:
            return recorded
        return replace(
            recorded,
            normalization=f"{self.normalization_mode}{', clipped' if self.clip_actions else ''}",
            action_statistics=self.statistics.fingerprint(self.normalization_mode),
        )

    @property
    def action_source(self) -> str:
        """The meaning of the actions, for a card."""
        return f"column `{self.action_key}`" if self.action_key else "differences between consecutive poses"

    @property
    def action_scale(self) -> str:
        """The units of the model's actions, for a card."""
        if self.normalization_mode is None:
            return "metres and radians"
        mode = {
            "q01_q99": "1 % and 99 % quantiles",
            "min_max": "minimum and maximum",
            "mean_std": "mean and deviation",
        }
        return f"{mode[self.normalization_mode]} of the training actions, as stored in `{CLIPS_FILE}`"

    @property
    def state_input(self) -> str:
        """The model's state input, for a card."""
        return f"poses, column `{self.state_key}`" if self.state_key else "zeros"

    @classmethod
    def of_dataset(
        cls, dataset: LeRobotDataset, mode: NormalizationMode = "q01_q99", held_out_episodes: Sequence[int] = ()
    ) -> "ClipConventions":
        """
        Actions normalised by the statistics of the selected episodes.

        Args:
            dataset ([`LeRobotDataset`]): The training episodes, opened with one camera and the column of the
                **executed** actions: where a demonstrator's wish differs, what was executed moved the robot.
            mode (`str`, *optional*, defaults to `"q01_q99"`): See [`~nora15_hf.actions.normalization.normalize`].
            held_out_episodes (`Sequence[int]`, *optional*): To be written down.
        """
        return cls(
            **_identity(dataset),
            action_key=dataset.action_key,
            statistics=compute_statistics(dataset)["action"],
            normalization_mode=mode,
            held_out_episodes=tuple(held_out_episodes),
        )

    @classmethod
    def of_policy(
        cls,
        dataset: LeRobotDataset,
        processor: Nora15Processor,
        dataset_key: str | None = None,
        held_out_episodes: Sequence[int] = (),
    ) -> "ClipConventions":
        """
        Actions normalised as a policy's: what a world model needs that shall judge its candidates.

        Args:
            dataset ([`LeRobotDataset`]): As for [`~ClipConventions.of_dataset`].
            processor ([`Nora15Processor`]): The policy's.
            dataset_key (`str`, *optional*): Whose statistics, where the policy has several.
            held_out_episodes (`Sequence[int]`, *optional*): To be written down.

        Raises:
            ValueError: A policy of differences from the state at the start of a chunk; an unknown key; actions of other names,
                units or order than the policy's, which its statistics do not belong to.
        """
        if processor.delta_action_mask is not None:
            raise ValueError(
                "`processor` makes actions relative to the state at the start of a chunk (delta_action_mask): the same "
                "motion has a different value in every chunk, so a clip of frames has no actions in these units. Use a "
                "policy of absolute or per-step actions, or ClipConventions.of_dataset."
            )
        key = select_dataset_key(processor.norm_stats, dataset_key)
        check_junction(
            WORLD_MODEL,
            processor.embodiment(key),
            dataset.embodiment,
            names=("policy", f"dataset {dataset.dataset_key!r}"),
            leave_out=[item for item in WORLD_MODEL.items if item not in ACTION_ITEMS],
        )
        return cls(
            **_identity(dataset),
            action_key=dataset.action_key,
            statistics=processor.norm_stats[key],
            normalization_mode=processor.normalization_mode,
            clip_actions=processor.clip_actions,
            held_out_episodes=tuple(held_out_episodes),
        )

    @classmethod
    def metric(cls, dataset: LeRobotDataset, held_out_episodes: Sequence[int] = ()) -> "ClipConventions":
        """
        Poses as states, differences between consecutive poses as actions (DROID).

        Args:
            dataset ([`LeRobotDataset`]): Opened with one camera and a `state_key` that holds position (m), extrinsic
                xyz Euler angles (rad) and gripper closedness.
            held_out_episodes (`Sequence[int]`, *optional*): To be written down.

        Raises:
            ValueError: States that are no such poses.
        """
        check_poses(dataset.state_dim, dataset.state_key)
        return cls(
            **_identity(dataset),
            action_key=None,
            state_key=dataset.state_key,
            held_out_episodes=tuple(held_out_episodes),
        )

    @classmethod
    def of_model(cls, model: VJEPA2ACModel) -> "ClipConventions | None":
        """The conventions in the folder or repo that a model was loaded from; None if it has none."""
        source, options = model.config.name_or_path, {"revision": vars(model.config).get("_commit_hash")}
        try:
            found = find_file(source, CLIPS_FILE, **options) if source else None
        # The folder has been removed since.
        except OSError:
            found = None
        return None if found is None else cls.from_pretrained(source, **options)

    def of_other_dataset(self, dataset: LeRobotDataset, held_out_episodes: Sequence[int] = ()) -> "ClipConventions":
        """
        These conventions, with their normalisation, for the training of their model on another dataset.

        Args:
            dataset ([`LeRobotDataset`]): As for [`~ClipConventions.of_dataset`].
            held_out_episodes (`Sequence[int]`, *optional*): To be written down.

        Raises:
            ValueError: Actions of another width than those of the model.
        """
        if dataset.action_dim != len(self.statistics):
            raise ValueError(
                f"The model was trained on actions of {len(self.statistics)} dimensions, `dataset` has {dataset.action_dim} "
                f"(action_key={dataset.action_key!r})."
            )
        _, differing = differing_ranges(
            self.statistics, compute_statistics(dataset)["action"], self.normalization_mode
        )
        if differing.size:
            logger.warning(
                f"The actions of dataset {dataset.dataset_key!r} have other ranges than those that the world model was trained on, in "
                f"dimension(s) {differing.tolist()}. They are normalised with the statistics of the model."
            )
        return replace(
            self, **_identity(dataset), action_key=dataset.action_key, held_out_episodes=tuple(held_out_episodes)
        )

    @property
    def action_convention(self) -> str:
        """The `action_convention` that a model's configuration must have."""
        return "metric" if self.statistics is None else "normalized"

    def check_same_clips(self, other: "ClipConventions", names: tuple[str, str] = ("training", "evaluation")) -> None:
        """
        Refuses clips whose conventions, `other`, give the same pictures or numbers another meaning: to evaluate on, or to train
        on a model that has learnt these.

        Raises:
            EmbodimentError: Lists what differs.
        """
        mine, theirs = self.contract, other.contract
        differing = [
            f"{name.replace('_', ' ')}: {names[0]} {ours!r}, {names[1]} {found!r} (make both with one ClipConventions)"
            for name in NORMALIZATION_ITEMS
            if (ours := getattr(mine, name)) != (found := getattr(theirs, name))
        ]
        check_junction(IMAGINATION, mine, theirs, names=(f"{names[0]} clips", f"{names[1]} clips"), found=differing)

    def renamed(
        self,
        image_keys: Sequence[str] | Mapping[str, str] | None = None,
        action_key: str | None = None,
        state_key: str | None = None,
    ) -> "ClipConventions":
        """
        These conventions for a dataset whose features have other names; arguments as those of [`LeRobotDataset`], of which
        those that are left out stay as they are.

        Raises:
            ValueError: Not one camera.
        """
        keys = list(image_keys.values() if isinstance(image_keys, Mapping) else image_keys or [self.image_key])
        if len(keys) != 1:
            raise ValueError(f"image_keys={keys}: a world model uses one camera; name one.")
        names = {"image_key": keys[0], "action_key": action_key, "state_key": state_key}
        return dataclasses.replace(self, **{name: key for name, key in names.items() if key is not None})

    def open_dataset(
        self,
        root_or_repo: str | Path,
        revision: str | None = None,
        episodes: Sequence[int] | None = None,
        cache_images: bool = False,
    ) -> LeRobotDataset:
        """A dataset with this camera and these columns; arguments as those of [`LeRobotDataset`]."""
        columns = {} if self.action_key is None else {"action_key": self.action_key}
        cameras = None if self.embodiment is None else self.embodiment.cameras
        return LeRobotDataset(
            root_or_repo,
            revision=revision,
            # By the name of the model's camera, also where the dataset calls it otherwise.
            image_keys=[self.image_key] if cameras is None else dict.fromkeys(cameras, self.image_key),
            state_key=self.state_key,
            episodes=episodes,
            cache_images=cache_images,
            **columns,
        )

    def check_dataset(self, dataset: LeRobotDataset) -> None:
        """
        Compares the contract of a dataset of any robot with that of the world model; states may be other ones.

        Raises:
            EmbodimentError: The dataset was recorded otherwise than what the world model was trained on.
        """
        check_junction(
            IMAGINATION,
            self.contract,
            dataset.embodiment,
            names=("world model", f"dataset {dataset.dataset_key!r}"),
            leave_out=STATE_ITEMS,
        )

    def actions_and_states(self, dataset: LeRobotDataset) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Actions `(N, A)` and states `(N, S)` (None in the normalised convention) of a dataset's N frames, float32, in
        the model's units. In the metric convention the last action of an episode, after which nothing follows, is 0.

        Raises:
            ValueError: The dataset was opened with another camera or other columns.
        """
        opened = {"image_key": dataset.image_keys, "action_key": dataset.action_key, "state_key": dataset.state_key}
        expected = {"image_key": [self.image_key], "action_key": self.action_key, "state_key": self.state_key}
        if self.action_key is not None:
            expected["action_key"] = stored_key(dataset.info["features"], self.action_key)
        names = dataset.action_names, None if self.embodiment is None else self.embodiment.action_names
        if self.statistics is not None and None not in names:
            opened["action_names"], expected["action_names"] = names
        for name, value in expected.items():
            # What a convention does not read may be anything.
            if value is not None and opened[name] != value:
                raise ValueError(
                    f"`dataset` was opened with {name} {opened[name]!r}, these conventions read {value!r}. Open it through "
                    "ClipConventions.open_dataset."
                )
        if self.statistics is not None:
            actions = normalize(
                dataset.all_actions(), self.statistics, self.normalization_mode, clip=self.clip_actions
            )
            return torch.from_numpy(actions), None
        states = torch.from_numpy(dataset.all_states())
        actions = pose_difference(states, states.roll(-1, 0))
        actions[torch.from_numpy(dataset.episodes["to"]) - 1] = 0
        return actions, states

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `clips.json` into a model's folder."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.statistics is not None:
            content["statistics"] = self.statistics.to_dict()
        if self.embodiment is not None:
            content["embodiment"] = self.embodiment.to_dict()
        Path(folder, CLIPS_FILE).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    @verified
    def from_pretrained(cls, name_or_path: str | Path, revision: str | None = None) -> "ClipConventions":
        """
        Reads `clips.json` of a world model.

        Args:
            name_or_path (`str` or `Path`): The model's folder or repo.
            revision (`str`, *optional*): Branch, tag or commit of the repo.

        Raises:
            OSError: It arrived damaged twice.
            ValueError: There is none, or it does not hold what [`~ClipConventions.save_pretrained`] writes.
        """
        path = cached_file(name_or_path, CLIPS_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
        if path is None:
            Checkpoint(name_or_path, {"revision": revision}).refuse_other_model(VJEPA2ACConfig.model_type)
            raise ValueError(
                f"The world model {str(name_or_path)!r} has no {CLIPS_FILE}, which says how it reads a dataset. Write it "
                "into its folder with the save_pretrained of ClipConventions.metric, of_policy or of_dataset."
            )
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["statistics"] is not None:
                content["statistics"] = ActionStatistics.from_dict(content["statistics"])
            content["held_out_episodes"] = tuple(content["held_out_episodes"])
            if content.get("embodiment") is None:
                logger.warning(
                    f"{path} does not say which actions its world model was trained on, so they cannot be compared with "
                    "a policy's. Train it again to record them."
                )
            else:
                content["embodiment"] = Embodiment.from_dict(content["embodiment"], f"embodiment of {path}")
            conventions = checked_fields(cls(**content), CLIPS_FILE)
            if (conventions.statistics is None) != (conventions.normalization_mode is None):
                raise ValueError("statistics and normalization_mode belong together, but one of them is null")
            return conventions
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not describe clips ({type(error).__name__}: {error}). Fetch the model again, or train it "
                "with this version."
            ) from error


def check_poses(width: int, key: str | None) -> None:
    """Refuses a column (state_key) that cannot hold the poses of the metric convention."""
    if width != POSE_DIM:
        raise ValueError(
            f"The dataset has states of {width} dimensions (state_key={key!r}); the metric convention needs poses of "
            f"{POSE_DIM}: position, Euler angles, gripper. Name their column."
        )


def _identity(dataset: LeRobotDataset) -> dict[str, Any]:
    if len(dataset.image_keys) != 1:
        raise ValueError(
            f"`dataset` is opened with the cameras {dataset.image_keys}; a world model uses one. Open it with "
            "image_keys=[...] naming one."
        )
    return {
        "dataset": dataset.repo_id or dataset.root.resolve().name,
        "dataset_fingerprint": dataset_fingerprint(dataset),
        "image_key": dataset.image_keys[0],
        "embodiment": replace(dataset.embodiment, chunk_size=None),
    }


__all__ = ["CLIPS_FILE", "ClipConventions", "check_poses"]
