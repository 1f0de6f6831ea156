# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Samples candidates of a policy at states of a dataset, scores them and writes a preference dataset.

    nora15 preferences --config preferences_tiny.yaml

Called again after an interruption it continues. Every option can be given on the command line too.
`nora15 push OUTPUT REPO` uploads the result.
"""

import inspect
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch

from ..clips import ClipConventions
from ..data import LeRobotDataset
from ..hub import write_card
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..preferences import (
    REWARD_PRESETS,
    FastSampler,
    FlowSampler,
    GroundTruthActionReward,
    MetricActions,
    WeightedReward,
    build_preferences,
    preset_reward,
    select_states,
)
from ..preferences.pairs import PAIRINGS
from ..preferences.preference_figures import write_preference_figures
from ..preferences.rewards import GOALS
from ..preferences.states import STRATEGIES
from ..repo_files.fingerprint import artefact_name
from ..runtime.thread_arguments import ThreadArguments
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from .execution import execute
from .parser import CommandParser

__all__ = ["ARGUMENTS", "BuildArguments", "main", "run"]

# Their defaults are those of the options.
BUILDING = inspect.signature(build_preferences).parameters
PRESET = inspect.signature(preset_reward).parameters
SELECTION = inspect.signature(select_states).parameters


@dataclass
class BuildArguments:
    """Policy, demonstrations and reward, and how candidates are drawn and paired."""

    policy: str = field(metadata={"help": "Folder or Hub id of the policy."})
    demonstrations: str = field(metadata={"help": "Folder or Hub id of a LeRobot dataset that the policy knows."})
    output: str = field(metadata={"help": "Folder of the preference dataset."})
    policy_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the policy."})
    demonstrations_revision: str | None = field(default=None, metadata={"help": "The same of the dataset."})
    dataset_key: str | None = field(default=None, metadata={"help": "The policy's key of the demonstrations."})
    reward: str = field(
        default="paper",
        metadata={
            "help": "Reward preset; ground_truth needs no world model, success needs demonstrations from a simulator.",
            "choices": [*REWARD_PRESETS, "ground_truth", "success"],
        },
    )
    world_model: str | None = field(default=None, metadata={"help": "Folder or Hub id, for the reward presets."})
    goal: str = field(
        default=PRESET["goal"].default,
        metadata={
            "help": "The world model's goal frame; released_end is the eighth from the end, as in the released labels.",
            "choices": list(GOALS),
        },
    )
    released_horizon: bool = field(
        default=PRESET["released_horizon"].default,
        metadata={"help": "Ignore the last action of every chunk, as the released labelling code does."},
    )
    standardize: bool = field(
        default=PRESET["standardize"].default,
        metadata={"help": "Bring each reward to mean 0 and deviation 1 among a state's candidates."},
    )
    gripper_weight: float = field(
        default=inspect.signature(GroundTruthActionReward).parameters["gripper_weight"].default,
        metadata={"help": "Of the gripper in the deviation from the demonstration."},
    )
    masked_dims: list[int] = field(default_factory=list, metadata={"help": "Dimensions left out of that deviation."})
    num_states: int = field(default=1500, metadata={"help": "States drawn without replacement."})
    states: str = field(
        default=SELECTION["strategy"].default, metadata={"help": "How they are drawn.", "choices": list(STRATEGIES)}
    )
    complete_chunks: bool = field(
        default=SELECTION["complete_chunks"].default,
        metadata={"help": "Leave out states whose demonstrated chunk runs past the episode's end."},
    )
    sampler: str = field(default="flow", metadata={"help": "How candidates are sampled.", "choices": ["flow", "fast"]})
    num_steps: int | None = field(
        default=None, metadata={"help": "Solver steps of flow; the policy's own by default."}
    )
    temperature: float = field(default=FastSampler.temperature, metadata={"help": "Of FAST tokens."})
    num_candidates: int = field(default=BUILDING["num_candidates"].default, metadata={"help": "Candidates per state."})
    num_noisy_negatives: int = field(
        default=BUILDING["num_noisy_negatives"].default,
        metadata={"help": "Noisy copies of candidates, only to be rejected."},
    )
    noise_std: float = field(
        default=BUILDING["noise_std"].default, metadata={"help": "Their noise, in normalised units."}
    )
    pairing: str = field(
        default=BUILDING["pairing"].default, metadata={"help": "What makes a pair.", "choices": list(PAIRINGS)}
    )
    min_margin: float = field(
        default=BUILDING["min_margin"].default, metadata={"help": "Smallest difference of rewards that makes a pair."}
    )
    batch_size: int = field(default=BUILDING["batch_size"].default, metadata={"help": "States per pass."})
    seed: int = field(default=BUILDING["seed"].default, metadata={"help": "Of states, noise and random choices."})


ARGUMENTS = (BuildArguments, ThreadArguments)


def make_reward(
    options: BuildArguments, processor: Nora15Processor, dataset: LeRobotDataset, device: str, stack: ExitStack
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
    if options.world_model is None:
        raise ValueError(f"--reward {options.reward} needs --world_model. Without one use --reward ground_truth.")
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


def run(options: BuildArguments) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = Nora15ForActionPrediction.from_pretrained(options.policy, revision=options.policy_revision).to(device)
    processor = Nora15Processor.from_pretrained(options.policy, revision=options.policy_revision)
    dataset = LeRobotDataset(
        options.demonstrations,
        revision=options.demonstrations_revision,
        chunk_size=policy.config.chunk_size,
        dataset_key=options.dataset_key,
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


def main(arguments: list[str] | None = None) -> None:
    execute(run, CommandParser(ARGUMENTS, description=__doc__).parse(arguments))


if __name__ == "__main__":
    main()
