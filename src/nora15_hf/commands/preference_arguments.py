# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the command that builds preference sets."""

from dataclasses import dataclass, field
from pathlib import Path

from . import option_types
from .feature_arguments import FeatureArguments
from .library_defaults import library_choices, library_defaults
from .options_without_effect import refuse_without_effect

PRESETS = library_choices("preferences/rewards.py", "REWARD_PRESETS")
BUILDING = library_defaults("preferences/dataset_builder.py", "build_preferences")
PRESET = library_defaults("preferences/rewards.py", "preset_reward")
STALE = library_defaults("preferences/pair_sources.py", "StaleAgainstFresh")
INTERVENTIONS = library_defaults("preferences/pair_sources.py", "Interventions")
SUCCESS = library_defaults("preferences/pair_sources.py", "EpisodeSuccess")
NUM_STATES = 1500
OF_REWARDS = (
    "reward",
    "world_model",
    "goal",
    "released_horizon",
    "standardize",
    "gripper_weight",
    "masked_dims",
    "num_candidates",
    "num_noisy_negatives",
    "pairing",
    "reward_weights",
    "check",
)
"""Options that decide how candidates are ranked and paired."""
GROUND_TRUTH = library_defaults("preferences/rewards.py", "GroundTruthActionReward")
SELECTION = library_defaults("preferences/states.py", "select_states")
FAST = library_defaults("control/chunk_samplers.py", "FastSampler")


@dataclass
class BuildArguments(FeatureArguments):
    """Policy, demonstrations and reward, and how candidates are drawn and paired."""

    policy: str = field(metadata={"parse": option_types.folder_or_hub_id, "help": "Folder or Hub id of the policy."})
    demonstrations: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or Hub id of a LeRobot dataset that the policy knows.",
        }
    )
    output: Path = field(metadata={"parse": option_types.output_folder, "help": "Folder of the preference dataset."})
    policy_revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "Branch, tag or commit of the policy."}
    )
    demonstrations_revision: str | None = field(
        default=None, metadata={"revision_of": ("demonstrations",), "help": "Branch, tag or commit of the dataset."}
    )
    dataset_key: str | None = field(
        default=None, metadata={"help": "Dataset key of the demonstrations in the policy."}
    )
    reward: str = field(
        default="paper",
        metadata={
            "help": "Reward preset; ground_truth needs no world model, success needs demonstrations from a simulator.",
            "choices": [*PRESETS, "ground_truth", "success"],
        },
    )
    world_model: str | None = field(
        default=None,
        metadata={"parse": option_types.folder_or_hub_id, "help": "Folder or Hub id, for the reward presets."},
    )
    pairs_from: str | None = field(
        default=None,
        metadata={
            "help": "Pairs that need no reward: the chunk from the present observation against a stale one, a human's "
            "interventions against the policy, or the beginning of episodes that succeeded against those that failed.",
            "choices": ["stale", "interventions", "success"],
        },
    )
    stale_steps: int = field(
        default=STALE["steps"],
        metadata={"parse": option_types.positive, "help": "Age of a stale observation in control steps."},
    )
    intervention_key: str = field(
        default=INTERVENTIONS["key"], metadata={"help": "Column that is not 0 where a human acted."}
    )
    success_key: str = field(
        default=SUCCESS["key"],
        metadata={"help": "Column that is not 0 in some frame of an episode that succeeded."},
    )
    success_frames: int = field(
        default=SUCCESS["num_frames"],
        metadata={"parse": option_types.positive, "help": "First frames of an episode that pairs are made of."},
    )
    goal: str = field(
        default=PRESET["goal"],
        metadata={
            "help": "The world model's goal frame; released_end is the eighth from the end, as in the released labels.",
            "choices": library_choices("preferences/rewards.py", "GOALS"),
        },
    )
    released_horizon: bool = field(
        default=PRESET["released_horizon"],
        metadata={"help": "Ignore the last action of every chunk, as the released labelling code does."},
    )
    reward_weights: dict[str, float] | str | None = field(
        default=None,
        metadata={
            "parse": option_types.weights,
            "help": "Of the parts of a reward preset, for example world_model=1,ground_truth=0.04 (default: the preset's).",
        },
    )
    standardize: bool = field(
        default=PRESET["standardize"],
        metadata={"help": "Scale each reward to mean 0 and standard deviation 1 among the candidates of a state."},
    )
    gripper_weight: float = field(
        default=GROUND_TRUTH["gripper_weight"],
        metadata={
            "parse": option_types.non_negative_number,
            "help": "Weight of the gripper in the deviation from the demonstration.",
        },
    )
    masked_dims: list[int] = field(
        default_factory=list,
        metadata={"each": option_types.non_negative, "help": "Dimensions excluded from that deviation."},
    )
    num_states: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": f"States drawn without replacement (default: {NUM_STATES}, with --pairs-from all where there are fewer).",
        },
    )
    states: str = field(
        default=SELECTION["strategy"],
        metadata={
            "help": "How the states are drawn.",
            "choices": library_choices("preferences/states.py", "STRATEGIES"),
        },
    )
    complete_chunks: bool = field(
        default=SELECTION["complete_chunks"],
        metadata={"help": "Skip states whose demonstrated chunk extends beyond the end of the episode."},
    )
    sampler: str = field(default="flow", metadata={"help": "How candidates are sampled.", "choices": ["flow", "fast"]})
    num_steps: int | None = field(
        default=None,
        metadata={"parse": option_types.positive, "help": "Solver steps of the flow; default: those of the policy."},
    )
    temperature: float = field(
        default=FAST["temperature"],
        metadata={
            "parse": option_types.positive_number,
            "help": "Of the samples: of FAST tokens, or of the noise that the flow begins with.",
        },
    )
    num_candidates: int = field(
        default=BUILDING["num_candidates"],
        metadata={"parse": option_types.positive, "help": "Candidates per state."},
    )
    num_noisy_negatives: int = field(
        default=BUILDING["num_noisy_negatives"],
        metadata={
            "parse": option_types.non_negative,
            "help": "Noisy copies of candidates, which can only be rejected.",
        },
    )
    noise_std: float = field(
        default=BUILDING["noise_std"],
        metadata={
            "parse": option_types.positive_number,
            "help": "Standard deviation of their noise, in normalised units.",
        },
    )
    pairing: str = field(
        default=BUILDING["pairing"],
        metadata={
            "help": "Which candidates form a pair.",
            "choices": library_choices("preferences/pairs.py", "PAIRINGS"),
        },
    )
    min_margin: float = field(
        default=BUILDING["min_margin"],
        metadata={
            "parse": option_types.non_negative_number,
            "help": "Smallest difference of rewards that forms a pair.",
        },
    )
    batch_size: int = field(
        default=BUILDING["batch_size"], metadata={"parse": option_types.positive, "help": "States per pass."}
    )
    shard_size: int = field(
        default=BUILDING["shard_size"],
        metadata={"parse": option_types.positive, "help": "States per file, each labelled by one process."},
    )
    dtype: str | None = field(
        default=None,
        metadata={
            "help": "Of policy and world model (default: bfloat16 on GPUs, float32 on the CPU).",
            "choices": ["float32", "bfloat16"],
        },
    )
    two_devices: bool = field(
        default=False,
        metadata={"help": "Two GPUs for each process, one for the policy and one for the world model."},
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "parse": option_types.non_negative,
            "help": "Processes that decode and prepare images ahead (default: 4 for each process with GPUs, 0 on the CPU).",
        },
    )
    check: bool = field(
        default=False,
        metadata={
            "help": "Only rank demonstrated chunks against noised, shuffled and reversed ones by the reward, and write the result "
            "to reward_check/ in the output folder."
        },
    )
    check_episodes: list[int] | None = field(
        default=None,
        metadata={
            "parse": option_types.indices,
            "help": "Comma-separated episode indices for --check (default: those held out from the world model's training, or all "
            "of a dataset that it was not trained on)",
        },
    )
    seed: int = field(
        default=BUILDING["seed"],
        metadata={"parse": option_types.seed, "help": "Seed of states, noise and random choices."},
    )

    def __post_init__(self):
        if self.pairs_from is None and self.reward in PRESETS and self.world_model is None:
            raise ValueError(f"--reward {self.reward} needs --world_model. Without one use --reward ground_truth.")
        refuse_without_effect(
            self,
            {
                **dict.fromkeys(
                    ("world_model", "reward_weights", "goal", "released_horizon"),
                    (self.reward in PRESETS, f"with --reward {self.reward}, which uses no world model"),
                ),
                **dict.fromkeys(
                    ("gripper_weight", "masked_dims", "standardize"),
                    (self.reward != "success", "with --reward success, which uses no demonstrated actions"),
                ),
                "num_steps": (self.sampler == "flow", f"with --sampler {self.sampler}"),
                "noise_std": (self.num_noisy_negatives > 0, "without --num_noisy_negatives"),
                "check_episodes": (self.check, "without --check"),
                "stale_steps": (self.pairs_from == "stale", "without --pairs_from stale"),
                "intervention_key": (self.pairs_from == "interventions", "without --pairs_from interventions"),
                **dict.fromkeys(
                    ("success_key", "success_frames"), (self.pairs_from == "success", "without --pairs_from success")
                ),
            },
        )
        refuse_without_effect(
            self,
            dict.fromkeys(
                OF_REWARDS,
                (self.pairs_from is None, f"with --pairs_from {self.pairs_from}, which ranks no candidates"),
            ),
        )


__all__ = ["NUM_STATES", "PRESETS", "BuildArguments"]
