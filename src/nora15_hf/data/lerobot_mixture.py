# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Several LeRobot datasets as one, each with its share of the samples and with its own dataset key."""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch

from ..embodiment.junctions import MIXTURE, check_junction
from .lerobot_dataset import LeRobotDataset, Sample
from .lerobot_source import LeRobotReader


class MixtureReader:
    """Properties that every mixture has, map-style or streaming; [`check_members`] has seen to it that members agree."""

    members: Sequence[LeRobotReader]

    def with_members(self, members: Sequence[LeRobotReader]) -> Self:
        """This mixture of other views of the same members, as [`~LeRobotReader.arranged`] makes them."""
        mixture = copy.copy(self)
        mixture.members = list(members)
        return mixture

    @property
    def dataset_keys(self) -> list[str]:
        """Keys of the members, in their order."""
        return [member.dataset_key for member in self.members]

    @property
    def chunk_size(self) -> int:
        """Actions per sample, H."""
        return self.members[0].chunk_size

    @property
    def action_dim(self) -> int:
        """Width A of the actions."""
        return self.members[0].action_dim


class LeRobotMixture(MixtureReader, torch.utils.data.Dataset):
    """Weighted mixture of map-style datasets, whose cameras and dimensions are matched by name.

    An epoch holds `samples_per_epoch` samples, each member's share of them as its weight says. A member's frames are used
    as evenly as possible: a member of 100 frames with 250 samples gives every frame twice and 50 of them, drawn anew in
    each epoch, once more. Shuffling is the sampler's task; the order here is member after member.

    Args:
        datasets (`Sequence[LeRobotDataset]`): Members; each sample keeps the `dataset_key` of its own.
        weights (`Sequence[float]`, *optional*):
            Share of the samples, one positive number per member; they need not add up to 1. By default the number of
            frames, so that an epoch holds every frame once.
        samples_per_epoch (`int`, *optional*): Defaults to the number of frames of all members.
        seed (`int`, defaults to 0): Same seed and epoch, same samples.
        allow_mixed_fps (`bool`, defaults to `False`):
            Accept members of different frame rates, whose chunks then last differently long.

    Raises:
        ValueError: No member, two members with one key, unusable weights, or members that differ in action width, chunk
            size, cameras, names or units of actions, gripper or (unless allowed) frame rate.

    Example:
        ```python
        mixture = LeRobotMixture([kitchen, drawers], weights=[0.7, 0.3])
        statistics = {member.dataset_key: compute_statistics(member)["action"] for member in mixture.members}
        ```
    """

    def __init__(
        self,
        datasets: Sequence[LeRobotDataset],
        weights: Sequence[float] | None = None,
        *,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        allow_mixed_fps: bool = False,
    ):
        self.members = arranged_members(datasets, allow_mixed_fps)
        frames = np.array([len(member) for member in self.members])
        self.weights = normalized_weights(frames if weights is None else weights, len(self.members))
        self.seed = seed
        self.samples_per_epoch = int(frames.sum()) if samples_per_epoch is None else samples_per_epoch
        if self.samples_per_epoch < len(self.members):
            raise ValueError(
                f"`samples_per_epoch` is {self.samples_per_epoch} for {len(self.members)} members: each needs at least one."
            )
        self._allow_mixed_fps = allow_mixed_fps
        self._stop = np.rint(np.cumsum(self.weights) * self.samples_per_epoch).astype(np.int64)
        empty = np.flatnonzero(np.diff(self._stop, prepend=0) == 0)
        if empty.size:
            raise ValueError(
                f"`weights` give {self.members[empty[0]].dataset_key!r} no sample in an epoch of "
                f"{self.samples_per_epoch}. Raise its weight or `samples_per_epoch`, or leave it out."
            )
        # Shared, so that persistent data-loading workers see the epoch, too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._drawn_epoch = -1
        self._positions = np.empty(0, dtype=np.int64)

    def set_epoch(self, epoch: int) -> None:
        """Choose the samples of this epoch; transformers' Trainer and accelerate call it."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"`index` {index} is out of range: the mixture has {len(self)} samples per epoch.")
        epoch = int(self._epoch)
        if epoch != self._drawn_epoch:
            self._positions = self._draw(epoch)
            self._drawn_epoch = epoch
        member = int(np.searchsorted(self._stop, index, side="right"))
        return self.members[member][int(self._positions[index])]

    def split_by_episode(self, validation_fraction: float, seed: int) -> tuple["LeRobotMixture", "LeRobotMixture"]:
        """[`LeRobotDataset.split_by_episode`] of every member, as two mixtures.

        The training part keeps weights and samples per epoch; the validation part holds every frame once.
        """
        parts = [member.split_by_episode(validation_fraction, seed) for member in self.members]
        train, validation = (list(side) for side in zip(*parts, strict=True))
        return (
            LeRobotMixture(
                train,
                self.weights,
                samples_per_epoch=self.samples_per_epoch,
                seed=self.seed,
                allow_mixed_fps=self._allow_mixed_fps,
            ),
            LeRobotMixture(validation, seed=self.seed, allow_mixed_fps=self._allow_mixed_fps),
        )

    def _draw(self, epoch: int) -> np.ndarray:
        """Position in its member for each sample of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        parts = []
        for member, count in zip(self.members, np.diff(self._stop, prepend=0).tolist(), strict=True):
            rounds, rest = divmod(count, len(member))
            extra = np.sort(random.permutation(len(member))[:rest])
            parts += [np.tile(np.arange(len(member)), rounds), extra]
        return np.concatenate(parts)


def arranged_members(members: Sequence[LeRobotReader], allow_mixed_fps: bool) -> list[LeRobotReader]:
    """
    The members with the cameras, actions and states of the first one's order, matched by name.

    Raises:
        ValueError: Members that cannot train one policy together.
    """
    if not members:
        raise ValueError("The mixture has no members. Pass at least one dataset.")
    keys = [member.dataset_key for member in members]
    repeated = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
    if repeated is not None:
        raise ValueError(
            f"Two members have the dataset_key {repeated!r}, under which their statistics would be mixed up. Open one of "
            "them with another `dataset_key`."
        )
    first = members[0]
    for member in members[1:]:
        for what, ours, theirs, mend in (
            ("actions per chunk", first.chunk_size, member.chunk_size, "Open both with one `chunk_size`."),
            (
                "action dimensions",
                first.action_dim,
                member.action_dim,
                "Choose features of one width through `action_key`, or train a policy on each alone.",
            ),
            (
                "cameras",
                len(first.image_keys),
                len(member.image_keys),
                "Choose equally many through `image_keys`, in the same order of views.",
            ),
        ):
            if ours != theirs:
                raise ValueError(
                    f"Members {first.dataset_key!r} and {member.dataset_key!r} differ: {ours} and {theirs} {what}. {mend}"
                )
        if first.fps != member.fps and not allow_mixed_fps:
            raise ValueError(
                f"Members {first.dataset_key!r} and {member.dataset_key!r} differ: {first.fps} and {member.fps} frames per "
                f"second, so a chunk of {first.chunk_size} actions has different durations. Pass "
                "`allow_mixed_fps=True` if that is intended."
            )
    arranged: list[LeRobotReader] = []
    for member in members:
        # What the first one does not tell, a later one may.
        compared: set[str] = set()
        for earlier in arranged:
            check_junction(
                MIXTURE,
                earlier.embodiment,
                member.embodiment,
                names=(f"member {earlier.dataset_key!r}", f"member {member.dataset_key!r}"),
                leave_out=compared,
                arranged=True,
            )
            member = member.arranged(earlier.embodiment)
            compared |= earlier.embodiment.to_dict().keys() | {"picture_shapes"}
        arranged.append(member)
    return arranged


def normalized_weights(weights: Sequence[float], members: int) -> np.ndarray:
    """Weights that add up to 1, or a `ValueError`."""
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (members,) or not np.isfinite(values).all() or not (values > 0).all():
        raise ValueError(f"`weights` is {list(weights)}; expected {members} positive number(s), one per member.")
    return values / values.sum()


__all__ = ["LeRobotMixture", "MixtureReader", "arranged_members", "normalized_weights"]
