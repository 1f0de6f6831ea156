# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Samples candidates of a policy at demonstrated states, scores them and writes a preference dataset.

    python examples/build_preferences.py --config examples/configs/preferences_tiny.yaml

Called again after an interruption it continues. Every option can be given on the command line too.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from trl import TrlParser

from nora15_hf import Nora15ForActionPrediction, Nora15Processor, VJEPA2ACModel, VJEPA2ACProcessor
from nora15_hf.data import LeRobotDataset
from nora15_hf.preferences import (
    REWARD_PRESETS,
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    build_preferences,
    preset_reward,
)
from nora15_hf.preferences.pairs import PAIRINGS

__all__ = ["BuildArguments", "main"]


@dataclass
class BuildArguments:
    """What the script needs besides what it writes down itself."""

    policy: str = field(metadata={"help": "Folder or repo of the policy."})
    demonstrations: str = field(metadata={"help": "Folder or repo of a LeRobot dataset that the policy knows."})
    output: str = field(metadata={"help": "Folder of the preference dataset."})
    reward: str = field(
        default="paper",
        metadata={"help": "Reward preset.", "choices": [*REWARD_PRESETS, "ground_truth"]},
    )
    world_model: str | None = field(default=None, metadata={"help": "Folder or repo; not for reward=ground_truth."})
    dataset_key: str | None = field(default=None, metadata={"help": "The policy's key of the demonstrations."})
    num_states: int = field(default=1500, metadata={"help": "States drawn uniformly without replacement."})
    num_candidates: int = field(default=5, metadata={"help": "Candidates per state."})
    num_steps: int | None = field(default=None, metadata={"help": "Solver steps; the policy's own by default."})
    pairing: str = field(default="best_worst", metadata={"help": "What makes a pair.", "choices": list(PAIRINGS)})
    min_margin: float = field(default=0.0, metadata={"help": "Smallest difference of rewards that makes a pair."})
    batch_size: int = field(default=32, metadata={"help": "States per pass."})
    seed: int = field(default=0, metadata={"help": "Of states, noise and random choices."})


def main(arguments: list[str] | None = None) -> None:
    (options,) = TrlParser(BuildArguments).parse_args_and_config(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = Nora15ForActionPrediction.from_pretrained(options.policy).to(device)
    processor = Nora15Processor.from_pretrained(options.policy)
    dataset = LeRobotDataset(
        options.demonstrations, chunk_size=policy.config.chunk_size, dataset_key=options.dataset_key
    )
    if options.reward == "ground_truth":
        reward = WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)})
    elif options.world_model is None:
        raise ValueError(f"--reward {options.reward} needs --world_model. Without one use --reward ground_truth.")
    else:
        world_model = VJEPA2ACModel.from_pretrained(options.world_model).to(device)
        reward = preset_reward(options.reward, world_model, VJEPA2ACProcessor.from_pretrained(options.world_model))
    states = np.random.default_rng(options.seed).permutation(len(dataset))[: options.num_states]
    preferences = build_preferences(
        options.output,
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=states.tolist(),
        reward=reward,
        num_candidates=options.num_candidates,
        sampler=FlowSampler(options.num_steps),
        pairing=options.pairing,
        min_margin=options.min_margin,
        batch_size=options.batch_size,
        seed=options.seed,
        provenance={"demonstrations": options.demonstrations},
    )
    print(f"{len(preferences)} pairs from {len(states)} states in {options.output}")


if __name__ == "__main__":
    main()
