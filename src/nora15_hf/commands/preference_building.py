# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 preferences` does with its options."""

from contextlib import ExitStack

import torch

from ..clips import ClipConventions
from ..data import LeRobotDataset
from ..hub import write_card
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..preferences import (
    FastSampler,
    FlowSampler,
    GroundTruthActionReward,
    MetricActions,
    WeightedReward,
    build_preferences,
    preset_reward,
    select_states,
)
from ..preferences.preference_figures import write_preference_figures
from ..repo_files.fingerprint import artefact_name
from ..runtime.device import usable_device
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from .preferences import BuildArguments

__all__ = ["build", "make_reward"]


def make_reward(
    options: BuildArguments,
    processor: Nora15Processor,
    dataset: LeRobotDataset,
    device: torch.device,
    stack: ExitStack,
) -> WeightedReward:
    ground_truth = GroundTruthActionReward(options.gripper_weight, masked_dims=options.masked_dims)
    if options.reward == "ground_truth":
        return WeightedReward({"ground_truth": (ground_truth, 1.0)}, options.standardize)
    if options.reward == "success":
        # Imported here, since they need the simulator.
        from ..preferences.simulator_reward import SimulatorSuccessReward
        from ..simulation.simulation_pool import SimulationPool

        pool = stack.enter_context(SimulationPool.of_recording(dataset.conventions))
        return WeightedReward({"success": (SimulatorSuccessReward(pool, processor, dataset, discount=0.99), 1.0)})
    world_model = VJEPA2ACModel.from_pretrained(options.world_model).to(device)
    conventions = ClipConventions.from_pretrained(options.world_model)
    metric_actions = None
    if world_model.config.action_convention == "metric":
        metric_actions = MetricActions(processor, dataset, conventions.state_key)
    return preset_reward(
        options.reward,
        world_model,
        VJEPA2ACProcessor.from_pretrained(options.world_model),
        goal=options.goal,
        released_horizon=options.released_horizon,
        standardize=options.standardize,
        ground_truth=ground_truth,
        conventions=conventions,
        metric_actions=metric_actions,
    )


def build(options: BuildArguments) -> None:
    """Writes the preference dataset, its figures and its card."""
    device = usable_device()
    policy = Nora15ForActionPrediction.from_pretrained(options.policy, revision=options.policy_revision).to(device)
    processor = Nora15Processor.from_pretrained(options.policy, revision=options.policy_revision)
    dataset = LeRobotDataset(
        options.demonstrations,
        revision=options.demonstrations_revision,
        chunk_size=policy.config.chunk_size,
        dataset_key=options.dataset_key,
        **options.features(),
    )
    states = select_states(
        dataset,
        options.num_states,
        strategy=options.states,
        complete_chunks=options.complete_chunks,
        seed=options.seed,
    )
    with ExitStack() as stack:
        preferences = build_preferences(
            options.output,
            policy=policy,
            processor=processor,
            dataset=dataset,
            indices=states,
            reward=make_reward(options, processor, dataset, device, stack),
            num_candidates=options.num_candidates,
            sampler=(
                FlowSampler(options.num_steps)
                if options.sampler == "flow"
                else FastSampler(temperature=options.temperature)
            ),
            num_noisy_negatives=options.num_noisy_negatives,
            noise_std=options.noise_std,
            pairing=options.pairing,
            min_margin=options.min_margin,
            batch_size=options.batch_size,
            seed=options.seed,
            provenance={
                "demonstrations": artefact_name(options.demonstrations),
                "demonstrations_revision": options.demonstrations_revision,
                "policy_revision": options.policy_revision,
            },
        )
    write_preference_figures(options.output, preferences)
    write_card(options.output)
    print(f"{len(preferences)} pairs from {len(states)} states in {options.output}")
