# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Preference tuning in rounds: collects states, samples candidates of the current policy, ranks and pairs them, runs flow DPO,
evaluates the policy against that of the round before and against continued supervised training, and starts again.

    nora15 rounds --config rounds_tiny.yaml
    accelerate launch -m nora15_hf.commands.rounds --config rounds_tiny.yaml

Every stage leaves a finished folder; --resume continues after the last one.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
from . import option_types
from .execution import run_script
from .library_defaults import library_choices, library_defaults
from .options_without_effect import refuse_without_effect

__all__ = ["ARGUMENTS", "RoundsArguments", "main", "run"]

ROUNDS = library_defaults("rounds/config.py", "RoundsConfig")


@dataclass
class RoundsArguments:
    """Options of [`~nora15_hf.rounds.config.RoundsConfig`], and the folder of the run."""

    policy: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or Hub id of the policy that the first round starts from.",
        }
    )
    demonstrations: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "Folder or Hub id of a LeRobot dataset that the policy was trained on. The control is trained on it.",
        }
    )
    output: Path = field(metadata={"parse": option_types.output_folder, "help": "Folder of the run."})
    policy_revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "Branch, tag or commit of the policy."}
    )
    demonstrations_revision: str | None = field(
        default=None, metadata={"revision_of": ("demonstrations",), "help": "Branch, tag or commit of the dataset."}
    )
    dataset_key: str | None = field(default=None, metadata={"help": "The policy's key of the demonstrations."})
    rounds: int = field(
        default=ROUNDS["rounds"],
        metadata={
            "parse": option_types.positive,
            "help": "Largest number of rounds. A finished run can be continued with more.",
        },
    )
    states_from: str = field(
        default=ROUNDS["states_from"],
        metadata={
            "help": "Where the states of a round come from: the demonstrations, states that the current policy reaches in the "
            "simulator, or your recordings (--episodes).",
            "choices": library_choices("rounds/config.py", "STATES_FROM"),
        },
    )
    episodes: list[str] = field(
        default_factory=list,
        metadata={
            "each": option_types.folder_or_hub_id,
            "help": "Folder or Hub id of a LeRobot dataset for each round, with --states-from episodes.",
        },
    )
    reached_episodes: int = field(
        default=ROUNDS["reached_episodes"],
        metadata={
            "parse": option_types.positive,
            "help": "Episodes per task and round, with --states-from simulator.",
        },
    )
    max_policy_steps: int = field(
        default=ROUNDS["max_policy_steps"],
        metadata={
            "parse": option_types.positive,
            "help": "Largest number of the policy's steps in such an episode, after which the expert finishes it.",
        },
    )
    num_states: int = field(
        default=ROUNDS["num_states"],
        metadata={"parse": option_types.positive, "help": "States per round, or all if there are fewer."},
    )
    num_candidates: int = field(
        default=ROUNDS["num_candidates"],
        metadata={"parse": option_types.at_least_two, "help": "Candidates per state."},
    )
    reward: str = field(
        default=ROUNDS["reward"],
        metadata={
            "help": "Reward preset; ground_truth needs no world model, success needs demonstrations from a simulator.",
            "choices": [*library_choices("preferences/rewards.py", "REWARD_PRESETS"), "ground_truth", "success"],
        },
    )
    world_model: str | None = field(
        default=None,
        metadata={"parse": option_types.folder_or_hub_id, "help": "Folder or Hub id, for the reward presets."},
    )
    refresh_steps: int = field(
        default=ROUNDS["refresh_steps"],
        metadata={
            "parse": option_types.non_negative,
            "help": "Training steps of the world model on the new episodes of each round.",
        },
    )
    refresh_batch_size: int = field(
        default=ROUNDS["refresh_batch_size"],
        metadata={"parse": option_types.positive, "help": "Clips per such step."},
    )
    refresh_learning_rate: float = field(
        default=ROUNDS["refresh_learning_rate"],
        metadata={"parse": option_types.positive_number, "help": "Peak learning rate of these steps."},
    )
    reference: str = field(
        default=ROUNDS["reference"],
        metadata={
            "help": "Reference of flow DPO: the policy of the previous round, or the first policy of the run.",
            "choices": library_choices("rounds/config.py", "REFERENCES"),
        },
    )
    steps: int = field(
        default=ROUNDS["steps"],
        metadata={
            "parse": option_types.positive,
            "help": "Steps of flow DPO in a round, and of continued supervised training.",
        },
    )
    batch_size: int = field(
        default=ROUNDS["batch_size"],
        metadata={"parse": option_types.positive, "help": "Rows per step over all processes."},
    )
    learning_rate: float = field(
        default=ROUNDS["learning_rate"],
        metadata={"parse": option_types.positive_number, "help": "Of both trainings."},
    )
    beta: float = field(
        default=ROUNDS["beta"],
        metadata={"parse": option_types.positive_number, "help": "Strength of the preference in flow DPO."},
    )
    tasks: list[str] = field(
        default_factory=list,
        metadata={
            "parse": option_types.comma_separated,
            "help": "Comma-separated tasks of the simulator (default: those of the demonstrations).",
        },
    )
    evaluation_episodes: int = field(
        default=ROUNDS["evaluation_episodes"],
        metadata={
            "parse": option_types.non_negative,
            "help": "Evaluation episodes per task; with 0 nothing is evaluated and no control is trained.",
        },
    )
    n_action_steps: int = field(
        default=ROUNDS["n_action_steps"],
        metadata={"parse": option_types.positive, "help": "Actions executed of each chunk."},
    )
    temperature: float = field(
        default=ROUNDS["temperature"],
        metadata={
            "parse": option_types.non_negative_number,
            "help": "Of the noise that the flow begins with when the policy acts in the simulator; candidates are sampled at 1.",
        },
    )
    tolerated_loss: float = field(
        default=ROUNDS["tolerated_loss"],
        metadata={
            "parse": option_types.non_negative_number,
            "help": "How far the success rate may fall in a round before the run stops.",
        },
    )
    num_workers: int | None = field(
        default=None,
        metadata={"parse": option_types.positive, "help": "Simulator processes (default: one per CPU)."},
    )
    hub_model_id: str | None = field(
        default=None,
        metadata={
            "parse": option_types.hub_id,
            "help": "Push each round that was not lost to this repo, with the tag round-N, and its datasets to repos beside it.",
        },
    )
    seed: int = field(
        default=ROUNDS["seed"],
        metadata={"parse": option_types.seed, "help": "Of states, candidates and training."},
    )
    resume: bool = field(default=False, metadata={"flag": True, "help": "Continue the run in --output."})
    overwrite: bool = field(default=False, metadata={"flag": True, "help": "Remove an earlier run in --output first."})

    def __post_init__(self):
        evaluated = bool(self.evaluation_episodes)
        acts = evaluated or self.states_from == "simulator"
        refuse_without_effect(
            self,
            {
                **dict.fromkeys(
                    ("reached_episodes", "max_policy_steps"),
                    (self.states_from == "simulator", f"with --states_from {self.states_from}"),
                ),
                **dict.fromkeys(
                    ("refresh_batch_size", "refresh_learning_rate"),
                    (self.refresh_steps > 0, "without --refresh_steps"),
                ),
                "tolerated_loss": (evaluated, "with --evaluation_episodes 0"),
                **dict.fromkeys(
                    ("n_action_steps", "temperature"),
                    (acts, "with --evaluation_episodes 0, where the policy never acts in a simulator"),
                ),
                **dict.fromkeys(
                    ("tasks", "num_workers"),
                    (
                        acts or self.reward == "success",
                        "with --evaluation_episodes 0, where nothing else needs a simulator",
                    ),
                ),
            },
        )


ARGUMENTS = (RoundsArguments, ThreadArguments)


def run(options: RoundsArguments) -> None:
    from ..rounds.config import RoundsConfig

    values = {each.name: getattr(options, each.name) for each in fields(RoundsConfig)}
    config = RoundsConfig(**values | {"episodes": tuple(options.episodes), "tasks": tuple(options.tasks)})
    # Imported here, since wrong options need none of it.
    from ..rounds.rounds import run_rounds

    report = run_rounds(options.output, config, resume=options.resume, overwrite=options.overwrite)
    print(f"\n{report.describe()}")


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


if __name__ == "__main__":
    main()
