# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From a batch of states to its preference rows: pictures made ready by data-loading workers, then policy, rewards and pairs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin

from ..control.chunk_samplers import FlowSampler
from ..control.prepared_samples import PreparedSamples, sample_inputs
from ..data.lerobot_dataset import LeRobotDataset, Sample
from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from .candidates import Sampler, noisy_negatives, sample_candidates
from .pair_sources import PairContext, PairSource
from .pairs import select_pairs
from .preference_record import PreferenceCounts, PreferenceSettings
from .preference_rows import encoded_pictures, preference_rows
from .reward_decisions import DecisionSums
from .rewards import DecodedFrames, RewardBatch, WeightedReward


@dataclass(frozen=True)
class StateBatch:
    """
    States that go through the policy together.

    Attributes:
        number (`int`): Of the batch in the whole set.
        positions (`list[int]`): Of the states in the dataset.
        frames (`dict[str, list[int]]`): Camera to the frames that the rewards need, see [`FrameReward`].
    """

    number: int
    positions: list[int]
    frames: dict[str | None, list[int]]


@dataclass
class PreparedStates(PreparedSamples):
    """
    What policy, rewards and rows need of a batch of states, on the CPU.

    Attributes:
        decoded (`dict[str, DecodedFrames]`): For the rewards.
        pictures (`list[list[bytes]]`): The cameras of each state, as rows keep them.
        others: As in [`PreparedSamples`].
    """

    decoded: dict[str | None, DecodedFrames]
    pictures: list[list[bytes]]

    def pin_memory(self) -> "PreparedStates":
        """As in [`PreparedSamples`], frames for the rewards included."""
        self.decoded = {key: replace(each, pictures=each.pictures.pin_memory()) for key, each in self.decoded.items()}
        return super().pin_memory()


@dataclass(frozen=True)
class StatePreparation:
    """Turns a [`StateBatch`] into [`PreparedStates`], in a data-loading worker; of the policy it knows the processor alone."""

    dataset: LeRobotDataset
    processor: ProcessorMixin

    def __call__(self, batch: StateBatch) -> PreparedStates:
        samples = [self.dataset[position] for position in batch.positions]
        return PreparedStates(
            samples,
            sample_inputs(self.processor, samples),
            {
                key: DecodedFrames(
                    positions,
                    torch.from_numpy(np.stack([self.dataset.frame(position, key) for position in positions])),
                )
                for key, positions in batch.frames.items()
            },
            [encoded_pictures(sample) for sample in samples],
        )


@dataclass
class LabelledStates:
    """
    Attributes:
        rows (`list[dict]`): See [`~nora15_hf.preferences.preference_rows.preference_rows`].
        counts ([`PreferenceCounts`]): What became of the states.
        decisions ([`DecisionSums`]): What each reward had to do with it.
    """

    rows: list[dict[str, Any]]
    counts: PreferenceCounts
    decisions: DecisionSums


@dataclass(frozen=True)
class Labelling:
    """What is the same for all batches of a run."""

    policy: Nora15ForActionPrediction
    processor: ProcessorMixin
    dataset: LeRobotDataset
    reward: WeightedReward
    sampler: Sampler
    settings: PreferenceSettings
    pairs_from: PairSource | None = None

    def label(self, batches: Sequence[StateBatch], prepared: Iterable[PreparedStates]) -> LabelledStates:
        """
        Candidates of some batches of states, scored and paired.

        On a GPU a batch is scored while the policy samples the next, so that policy and world model keep two devices busy.
        On a CPU the two would only take it from each other.
        """
        # Drawn from by the policy's thread alone, one batch after the other.
        sampled = self._sampled(batches, prepared)
        if self.policy.device.type == "cpu":
            return self._joined(map(self._scored, batches, sampled))
        with ThreadPoolExecutor(max_workers=1) as scoring:
            return self._joined(scoring.map(self._scored, batches, sampled))

    def _sampled(
        self, batches: Sequence[StateBatch], prepared: Iterable[PreparedStates]
    ) -> Iterator[tuple[PreparedStates, torch.Tensor]]:
        for batch, states in zip(batches, prepared, strict=True):
            if self.pairs_from is None:
                yield states, all_candidates(self.policy, self.processor, states, self.settings, self.sampler)
            else:
                yield self._paired(batch, states)

    def _paired(self, batch: StateBatch, prepared: PreparedStates) -> tuple[PreparedStates, torch.Tensor]:
        """The states with the steps at which their two chunks are compared, and these chunks, `(B, 2, H, A)`."""
        samples, seed = prepared.samples, self.settings.seed
        context = PairContext(self.policy, self.processor, self.dataset, batch.positions, samples, self.sampler, seed)
        pairs = self.pairs_from.pairs(context)
        prepared.samples = [
            sample | {"action_mask": sample["action_mask"] & mask}
            for sample, mask in zip(samples, pairs.mask, strict=True)
        ]
        return prepared, pairs.chunks

    def _joined(self, labelled: Iterable[LabelledStates]) -> LabelledStates:
        whole = LabelledStates([], PreferenceCounts(), DecisionSums.none(list(self.reward.rewards)))
        for part in labelled:
            whole.rows += part.rows
            whole.counts += part.counts
            whole.decisions += part.decisions
        return whole

    def _scored(self, states: StateBatch, sampled: tuple[PreparedStates, torch.Tensor]) -> LabelledStates:
        settings = self.settings
        prepared, candidates = sampled
        usable = (~candidates.isnan().flatten(1).any(1)).nonzero().flatten().tolist()
        counts = PreferenceCounts(states=len(candidates), undecodable=len(candidates) - len(usable))
        if counts.undecodable and isinstance(self.sampler, FlowSampler):
            lost = next(position for row, position in enumerate(states.positions) if row not in usable)
            raise ValueError(
                f"The policy's flow gave candidates that are not finite at dataset position {lost}. Check its weights, or label with "
                "dtype=torch.float32."
            )
        if not usable:
            return LabelledStates([], counts, DecisionSums.none(list(self.reward.rewards)))
        batch = reward_batch(
            self.dataset,
            self.processor,
            [states.positions[i] for i in usable],
            [prepared.samples[i] for i in usable],
            candidates[usable],
            prepared.decoded,
        )
        scores = self.reward.score_each(batch)
        reward = self.reward.combine(scores)

        def pairs(of: torch.Tensor):
            return select_pairs(
                of.numpy(),
                batch.candidates.numpy(),
                pairing=settings.pairing,
                min_margin=settings.min_margin,
                num_negatives=settings.num_noisy_negatives,
                seed=settings.seed,
                indices=[sample["index"] for sample in batch.samples],
            )

        selection = pairs(reward)
        counts += PreferenceCounts(
            ties=int(selection.is_tie.sum()), too_close=int(selection.is_close.sum()), pairs=int(selection.kept.sum())
        )
        rows = preference_rows(
            batch,
            [prepared.pictures[i] for i in usable],
            scores,
            reward,
            selection,
            seed=settings.seed,
            sampling_batch=states.number,
        )
        decisions = DecisionSums.of_batch(scores, self.reward.weights, self.reward.standardize, selection, pairs)
        return LabelledStates(rows, counts, decisions)


def reward_batch(
    dataset: LeRobotDataset,
    processor: ProcessorMixin,
    positions: Sequence[int],
    samples: Sequence[Sample],
    candidates: torch.Tensor,
    decoded: Mapping[str | None, DecodedFrames],
) -> RewardBatch:
    """What rewards score: states with their candidates, normalised `(B, N, H, A)`, beside their demonstrated chunks."""
    return RewardBatch(
        dataset=dataset,
        indices=positions,
        samples=samples,
        candidates=candidates,
        actions=demonstrated_chunks(dataset, processor, samples),
        action_mask=torch.from_numpy(np.stack([sample["action_mask"] for sample in samples])),
        decoded=decoded,
    )


def demonstrated_chunks(dataset: LeRobotDataset, processor: ProcessorMixin, samples: Sequence[Sample]) -> torch.Tensor:
    """What was demonstrated at some states, normalised as the policy's actions, float32 `(B, H, A)`."""
    actions = processor.normalize_actions(
        np.stack([sample["actions"] for sample in samples]),
        dataset.dataset_key,
        state=np.stack([sample["state"] for sample in samples]),
    )
    return torch.as_tensor(actions, dtype=torch.float32)


def all_candidates(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    prepared: PreparedStates,
    settings: PreferenceSettings,
    sampler: Sampler,
) -> torch.Tensor:
    """Sampled candidates, followed by noise-injected negatives, `(B, N, H, A)` on the CPU."""
    samples = prepared.samples
    candidates = sample_candidates(
        policy,
        processor,
        samples,
        num_candidates=settings.num_candidates,
        sampler=sampler,
        seed=settings.seed,
        inputs=prepared.inputs,
    )
    if not settings.num_noisy_negatives:
        return candidates
    negatives = noisy_negatives(
        candidates,
        [sample["index"] for sample in samples],
        count=settings.num_noisy_negatives,
        std=settings.noise_std,
        seed=settings.seed,
    )
    return torch.cat([candidates, negatives], dim=1)


__all__ = [
    "LabelledStates",
    "Labelling",
    "PreparedStates",
    "StateBatch",
    "StatePreparation",
    "all_candidates",
    "demonstrated_chunks",
    "reward_batch",
]
