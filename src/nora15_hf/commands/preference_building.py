# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 preferences` does with its options."""

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from ..clips import ClipConventions
from ..data import LeRobotDataset
from ..data.dataset_fingerprint import dataset_fingerprint
from ..hub import write_card
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..preferences import (
    EpisodeSuccess,
    FastSampler,
    FlowSampler,
    GroundTruthActionReward,
    Interventions,
    PairSource,
    StaleAgainstFresh,
    WeightedReward,
    build_preferences,
    check_reward,
    select_states,
)
from ..preferences.preference_figures import write_preference_figures
from ..preferences.preference_record import preference_info
from ..preferences.reward_check import REWARD_CHECK_FOLDER
from ..preferences.reward_loading import load_reward
from ..repo_files.fingerprint import artefact_name
from ..runtime.device import usable_device
from ..runtime.shared_work import ProcessPlace, process_place
from ..simulation.simulation_pool import SimulationPool
from .preference_arguments import NUM_STATES, PRESETS, BuildArguments

__all__ = ["build", "check"]


@dataclass(frozen=True)
class _Placement:
    """Where the models of this process compute, and in which type."""

    policy: torch.device
    world_model: torch.device
    dtype: torch.dtype

    @classmethod
    def chosen(cls, options: BuildArguments, place: ProcessPlace) -> "_Placement":
        first = second = usable_device()
        if options.two_devices:
            count = torch.cuda.device_count()
            if count < 2:
                raise ValueError(f"--two_devices needs two GPUs, this machine has {count}. Leave it out.")
            first, second = (torch.device("cuda", (2 * place.local_index + number) % count) for number in range(2))
        dtype = options.dtype or ("float32" if first.type == "cpu" else "bfloat16")
        return cls(first, second, {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype])


def build(options: BuildArguments) -> None:
    """Writes the preference dataset; the first of several processes then also its figures and its card."""
    place = process_place()
    placement = _Placement.chosen(options, place)
    policy = Nora15ForActionPrediction.from_pretrained(
        options.policy, revision=options.policy_revision, dtype=placement.dtype
    ).to(placement.policy)
    processor = Nora15Processor.from_pretrained(options.policy, revision=options.policy_revision)
    dataset = _demonstrations(options, policy.config.chunk_size)
    source = _source(options, dataset)
    available = NUM_STATES if source is None else len(source.positions)
    states = select_states(
        dataset,
        options.num_states or min(NUM_STATES, available),
        strategy=options.states,
        complete_chunks=options.complete_chunks,
        among=None if source is None else source.positions,
        seed=options.seed,
    )
    with ExitStack() as stack:
        preferences = build_preferences(
            options.output,
            policy=policy,
            processor=processor,
            dataset=dataset,
            indices=states,
            reward=None if source is not None else _reward(options, processor, dataset, placement, stack),
            pairs_from=source,
            num_candidates=options.num_candidates,
            sampler=(
                FlowSampler(options.num_steps, options.temperature)
                if options.sampler == "flow"
                else FastSampler(temperature=options.temperature)
            ),
            num_noisy_negatives=options.num_noisy_negatives,
            noise_std=options.noise_std,
            pairing=options.pairing,
            min_margin=options.min_margin,
            shard_size=options.shard_size,
            batch_size=options.batch_size,
            seed=options.seed,
            provenance={
                "demonstrations": artefact_name(options.demonstrations),
                "demonstrations_revision": options.demonstrations_revision,
                "policy_revision": options.policy_revision,
            },
            place=place,
            dataloader_num_workers=options.dataloader_num_workers,
        )
    if not place.is_main:
        return
    write_preference_figures(options.output, preferences)
    write_card(options.output)
    print(f"{len(preferences)} pairs from {len(states)} states in {options.output}\n")
    print(preference_info(preferences).record.decisions.text())


def check(options: BuildArguments) -> None:
    """Tells how often the reward prefers demonstrated chunks to spoiled ones, and writes it to the output folder."""
    place = process_place()
    if not place.is_main:
        return
    processor = Nora15Processor.from_pretrained(options.policy, revision=options.policy_revision)
    dataset = _demonstrations(options, processor.chunk_size)
    among = _held_out_states(options, dataset)
    with ExitStack() as stack:
        result = check_reward(
            processor=processor,
            dataset=dataset,
            indices=select_states(
                dataset,
                min(options.num_states or NUM_STATES, _num_complete(dataset, among)),
                strategy=options.states,
                complete_chunks=True,
                among=among,
                seed=options.seed,
            ),
            reward=_reward(options, processor, dataset, _Placement.chosen(options, place), stack),
            batch_size=options.batch_size,
            seed=options.seed,
        )
    folder = options.output / REWARD_CHECK_FOLDER
    result.save(folder)
    print(result.text())
    print(f"\n{folder}")


def _demonstrations(options: BuildArguments, chunk_size: int) -> LeRobotDataset:
    return LeRobotDataset(
        options.demonstrations,
        revision=options.demonstrations_revision,
        chunk_size=chunk_size,
        dataset_key=options.dataset_key,
        **options.features(),
    )


def _source(options: BuildArguments, dataset: LeRobotDataset) -> PairSource | None:
    match options.pairs_from:
        case None:
            return None
        case "stale":
            return StaleAgainstFresh(dataset, options.stale_steps)
        case "interventions":
            return Interventions(dataset, options.intervention_key)
        case "success":
            return EpisodeSuccess(dataset, options.success_key, options.success_frames)


def _reward(
    options: BuildArguments,
    processor: Nora15Processor,
    dataset: LeRobotDataset,
    placement: _Placement,
    stack: ExitStack,
) -> WeightedReward:
    pool = None
    if options.reward == "success":
        pool = stack.enter_context(SimulationPool.of_recording(dataset.conventions))
    return load_reward(
        options.reward,
        processor,
        dataset,
        world_model=options.world_model,
        pool=pool,
        device=placement.world_model,
        dtype=placement.dtype,
        ground_truth=GroundTruthActionReward(options.gripper_weight, masked_dims=options.masked_dims),
        standardize=options.standardize,
        goal=options.goal,
        released_horizon=options.released_horizon,
        weights=options.reward_weights,
    )


def _held_out_states(options: BuildArguments, dataset: LeRobotDataset) -> list[int]:
    """Positions of the frames of the episodes that are looked at."""
    known = dataset.episodes["index"].tolist()
    chosen = options.check_episodes
    if chosen is None and options.reward in PRESETS:
        conventions = ClipConventions.from_pretrained(options.world_model)
        if dataset_fingerprint(dataset) == conventions.dataset_fingerprint:
            chosen = list(conventions.held_out_episodes)
            if not chosen:
                raise ValueError(
                    f"The world model {options.world_model} was trained on all episodes of {options.demonstrations}. Name "
                    "--check_episodes, and keep in mind that it knows them."
                )
    if unknown := sorted(set(chosen or ()) - set(known)):
        raise ValueError(
            f"--check_episodes: {unknown} are not among the {len(known)} episodes of {options.demonstrations}."
        )
    bounds = zip(known, dataset.episodes["from"], dataset.episodes["to"], strict=True)
    wanted = [np.arange(start, stop) for index, start, stop in bounds if chosen is None or index in chosen]
    return np.concatenate(wanted).tolist()


def _num_complete(dataset: LeRobotDataset, among: list[int]) -> int:
    """How many of these states have a complete chunk."""
    return sum(position + dataset.chunk_size - 1 <= dataset.last_frame_index(position) for position in among)
