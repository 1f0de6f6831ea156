# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pairs that need no reward, because where they come from says which chunk is the better one.

A source is made for a dataset, names the positions at which it has pairs, and gives for each of them two chunks, the better
one first. `build_preferences(..., pairs_from=source)` makes of them an ordinary preference dataset.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import ProcessorMixin

from ..data.dataset_fingerprint import samples_fingerprint
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from .candidates import Sampler, sample_candidates
from .rewards import RewardBatch

THUMBNAIL = (32, 32)


class PairContext(NamedTuple):
    """
    The states that pairs are wanted of, B of them.

    Attributes:
        policy ([`Nora15ForActionPrediction`]), processor ([`Nora15Processor`]): Whose chunks are compared.
        dataset ([`LeRobotDataset`]): That of the source, arranged for the policy.
        positions (`Sequence[int]`): Of the states in it.
        samples (`Sequence[Sample]`): `dataset[position]` of each.
        sampler ([`FlowSampler`] or [`FastSampler`]): How the policy's chunks are sampled.
        seed (`int`): Of their noise.
    """

    policy: Nora15ForActionPrediction
    processor: ProcessorMixin
    dataset: LeRobotDataset
    positions: Sequence[int]
    samples: Sequence[Sample]
    sampler: Sampler
    seed: int

    def sampled(self, samples: Sequence[Sample]) -> torch.Tensor:
        """One chunk of the policy for each observation, under the noise of the states: `(B, H, A)`, normalised."""
        samples = [sample | {"index": state["index"]} for sample, state in zip(samples, self.samples, strict=True)]
        # Of two, which is the fewest that there are candidates of; they share the backbone pass.
        candidates = sample_candidates(
            self.policy, self.processor, samples, num_candidates=2, sampler=self.sampler, seed=self.seed
        )
        return candidates[:, 0]

    def normalized(self, actions: np.ndarray) -> torch.Tensor:
        """Physical chunks `(B, H, A)` of the states as the policy's, float32."""
        states = np.stack([sample["state"] for sample in self.samples])
        normalized = self.processor.normalize_actions(actions, self.dataset.dataset_key, state=states)
        return torch.as_tensor(normalized, dtype=torch.float32)


class ChunkPairs(NamedTuple):
    """
    Two chunks for each of B states.

    Attributes:
        chunks (`torch.Tensor`): float32 `(B, 2, H, A)`, normalised; the better one first. NaN where FAST tokens spell none.
        mask (`np.ndarray`): bool `(B, H)`, the steps at which they are compared.
    """

    chunks: torch.Tensor
    mask: np.ndarray


class PairSource(Protocol):
    """What every source offers."""

    name: str
    """Of the column of `rewards`, which is 1 for the better chunk and 0 for the other."""
    positions: list[int]
    """Positions of the dataset at which there are pairs, ascending; see `select_states(..., among=...)`."""
    samples: str | None
    """[`~nora15_hf.data.dataset_fingerprint.samples_fingerprint`] of the dataset that the positions belong to."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that moves the pairs, in JSON types; `"pairs"` says in words what is compared."""

    def pairs(self, context: PairContext) -> ChunkPairs:
        """The pairs of some states."""


class GivenOrder:
    """The reward of pairs whose order is known: 1 for the first candidate, 0 for the others."""

    @property
    def settings(self) -> dict[str, Any]:
        return {"type": type(self).__name__}

    def score(self, batch: RewardBatch) -> torch.Tensor:
        scores = torch.zeros(batch.candidates.shape[:2])
        scores[:, 0] = 1.0
        return scores


class StaleAgainstFresh:
    """
    The chunk from the present observation against what is left of the one from some steps ago, as a robot has it that moves on
    while the policy computes (arXiv 2605.19294). Both start from the same noise, so that the observation alone makes the
    difference.

    Args:
        dataset ([`LeRobotDataset`]): Any recording.
        steps (`int`, *optional*, defaults to 2): Age of the stale observation in control steps. The chunks are compared at the
            `chunk_size - steps` steps that both have.

    Raises:
        ValueError: Fewer than one step, or as many as a chunk has; or no episode that is longer.
    """

    name = "fresh"

    def __init__(self, dataset: LeRobotDataset, steps: int = 2):
        if not 1 <= steps < dataset.chunk_size:
            raise ValueError(
                f"steps={steps} must lie between 1 and {dataset.chunk_size - 1}: a chunk of {dataset.chunk_size} actions that "
                "is older has nothing left."
            )
        self.steps = steps
        self.samples = samples_fingerprint(dataset)
        self.positions = [
            position
            for start, stop in zip(dataset.episodes["from"].tolist(), dataset.episodes["to"].tolist(), strict=True)
            for position in range(start + steps, stop)
        ]
        if not self.positions:
            raise ValueError(f"steps={steps}, but no episode of {dataset.dataset_key!r} has more frames than that.")

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "steps": self.steps,
            "pairs": f"the chunk from the present observation against the one from {self.steps} steps before, shifted",
        }

    def pairs(self, context: PairContext) -> ChunkPairs:
        earlier = [context.dataset[position - self.steps] for position in context.positions]
        fresh, stale = context.sampled(context.samples), context.sampled(earlier)
        # In physical units, since differences from the state are counted from another one now.
        physical = context.processor.unnormalize_actions(
            stale.numpy(), context.dataset.dataset_key, state=np.stack([sample["state"] for sample in earlier])
        )
        # The steps that are left; behind them the chunks are not compared.
        left = np.minimum(np.arange(context.dataset.chunk_size) + self.steps, context.dataset.chunk_size - 1)
        shifted = context.normalized(physical[:, left])
        compared = np.arange(context.dataset.chunk_size) < context.dataset.chunk_size - self.steps
        shifted[:, -self.steps :] = fresh[:, -self.steps :]
        return ChunkPairs(
            torch.stack([fresh, shifted], dim=1), np.broadcast_to(compared, (len(earlier), len(compared)))
        )


class Interventions:
    """
    What a human did who took over, against what the policy would have done there.

    Args:
        dataset ([`LeRobotDataset`]): A recording of the policy with a human who may take over.
        key (`str`, *optional*, defaults to `"intervention"`): Its column that says who acted: a number or a truth value per
            frame, 0 where it was the policy.

    Raises:
        ValueError: No such column, or one without a single intervention.
    """

    name = "intervention"

    def __init__(self, dataset: LeRobotDataset, key: str = "intervention"):
        self.key = key
        self.samples = samples_fingerprint(dataset)
        self._human = frame_flags(dataset, key)
        self.positions = np.flatnonzero(self._human).tolist()
        if not self.positions:
            raise ValueError(
                f"The column {key!r} of {dataset.dataset_key!r} is 0 in all {len(dataset)} frames: nobody took over, so that "
                "there are no pairs. Name the column that says where a human acted, or select episodes in which one did."
            )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "key": self.key,
            "pairs": "what a human did who took over against what the policy would have done there",
        }

    def pairs(self, context: PairContext) -> ChunkPairs:
        done = context.normalized(np.stack([sample["actions"] for sample in context.samples]))
        steps = np.arange(context.dataset.chunk_size)
        frames = np.minimum(np.array(context.positions)[:, None] + steps, len(self._human) - 1)
        # Behind the first step that is the policy's own again, the recording shows no human.
        return ChunkPairs(
            torch.stack([done, context.sampled(context.samples)], dim=1),
            np.logical_and.accumulate(self._human[frames], axis=1),
        )


class EpisodeSuccess:
    """
    What was done at the beginning of an episode that succeeded, against what was done at the same step of the failed episode of
    the same instruction whose first pictures are nearest: unpaired labels of whole episodes as pairs.

    Args:
        dataset ([`LeRobotDataset`]): A recording with both kinds of episodes.
        key (`str`, *optional*, defaults to `"next.success"`): Its column that is not 0 in some frame of an episode that
            succeeded.
        num_frames (`int`, *optional*, defaults to 5): First frames of an episode that pairs are made of. The later, the less the
            two episodes have in common.

    Raises:
        ValueError: Fewer than one frame, no such column, or no instruction with both kinds of episodes.
    """

    name = "success"

    def __init__(self, dataset: LeRobotDataset, key: str = "next.success", num_frames: int = 5):
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames} must be at least 1.")
        self.key, self.num_frames = key, num_frames
        self.samples = samples_fingerprint(dataset)
        flags = frame_flags(dataset, key)
        episodes = dataset.episodes
        bounds = list(zip(episodes["from"].tolist(), episodes["to"].tolist(), strict=True))
        success = [bool(flags[start:stop].any()) for start, stop in bounds]
        # Position of each frame with a pair to that of the frame it is compared with.
        self._counterparts: dict[int, int] = {}
        for instruction in {tasks[0] for tasks in episodes["tasks"]}:
            kinds: dict[bool, list[int]] = {True: [], False: []}
            for number, tasks in enumerate(episodes["tasks"]):
                if tasks[0] == instruction:
                    kinds[success[number]].append(number)
            if all(kinds.values()):
                self._pair_up(dataset, bounds, kinds[True], kinds[False])
        self.positions = sorted(self._counterparts)
        if not self.positions:
            raise ValueError(
                f"By the column {key!r} of {dataset.dataset_key!r}, {sum(success)} of {len(success)} episodes succeeded, and "
                "no instruction has both kinds. Record both, or name the column that tells them apart."
            )

    def _pair_up(
        self, dataset: LeRobotDataset, bounds: Sequence[tuple[int, int]], successes: list[int], failures: list[int]
    ) -> None:
        """The first frames of each success with those of the failure that begins most alike."""
        starts = np.stack([first_pictures(dataset, bounds[number][0]) for number in failures])
        for number in successes:
            distances = np.square(starts - first_pictures(dataset, bounds[number][0])).mean(axis=1)
            own, other = bounds[number], bounds[failures[int(distances.argmin())]]
            shared = min(self.num_frames, own[1] - own[0], other[1] - other[0])
            self._counterparts.update(
                zip(range(own[0], own[0] + shared), range(other[0], other[0] + shared), strict=True)
            )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "key": self.key,
            "num_frames": self.num_frames,
            "pairs": f"the first {self.num_frames} frames of an episode that succeeded against those of the failed one that "
            "begins most alike",
        }

    def pairs(self, context: PairContext) -> ChunkPairs:
        others = [context.dataset[self._counterparts[position]] for position in context.positions]
        # Both as actions at the state of the success.
        chunks = [
            context.normalized(np.stack([sample["actions"] for sample in samples]))
            for samples in (context.samples, others)
        ]
        return ChunkPairs(torch.stack(chunks, dim=1), np.stack([sample["action_mask"] for sample in others]))


def frame_flags(dataset: LeRobotDataset, key: str) -> np.ndarray:
    """
    bool `(N,)`, where a column of one number per frame is not 0.

    Raises:
        ValueError: An unknown column, or one of several numbers per frame.
    """
    values = dataset.column(key)
    if values.shape[1] != 1:
        raise ValueError(
            f"The column {key!r} of {dataset.dataset_key!r} has {values.shape[1]} numbers per frame, expected one that is 0 "
            "or not. Name another column."
        )
    return values[:, 0] != 0


def first_pictures(dataset: LeRobotDataset, position: int) -> np.ndarray:
    """All cameras of a frame in small, float32 `(n,)` from 0 to 1."""
    pictures = [Image.fromarray(dataset.frame(position, key)).resize(THUMBNAIL) for key in dataset.image_keys]
    return np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures]).ravel() / 255


__all__ = [
    "ChunkPairs",
    "EpisodeSuccess",
    "GivenOrder",
    "Interventions",
    "PairContext",
    "PairSource",
    "StaleAgainstFresh",
]
