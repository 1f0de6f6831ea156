# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the command that evaluates policies in closed loop."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..simulation.environment import FIRST_EVALUATION_SEED
from . import option_types
from .environment_arguments import EnvironmentArguments
from .flow_arguments import FlowArguments
from .library_defaults import library_defaults
from .options_without_effect import refuse_without_effect

POOL = library_defaults("simulation/simulation_pool.py", "SimulationPool")
EPISODES = 25


@dataclass
class EvaluateArguments(FlowArguments, EnvironmentArguments):
    """The policy, the episodes, and where results go."""

    policy: str = field(
        metadata={
            "positional": True,
            "parse": option_types.policy,
            "help": "folder, Hub id, or address of a policy server (ws://host:port)",
        }
    )
    output: Path = field(
        metadata={
            "parse": option_types.output_folder,
            "help": "folder for results, videos and logs of this evaluation",
        }
    )
    episodes: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": f"per task (default: all official initial states where there are some, otherwise {EPISODES})",
        },
    )
    first_seed: int = field(
        default=FIRST_EVALUATION_SEED,
        metadata={"parse": option_types.seed, "help": "of a task's first episode; training uses lower ones"},
    )
    n_action_steps: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": "actions executed of each chunk (default: the protocol's, otherwise the whole chunk)",
        },
    )
    decoder: Literal["flow", "fast"] | None = field(
        default=None, metadata={"help": "action expert, or likeliest FAST tokens of the backbone (default: flow)"}
    )
    dataset_key: str | None = field(
        default=None,
        metadata={"help": "which of the policy's statistics (default: those of the environment, where that is clear)"},
    )
    base_model: str | None = field(
        default=None,
        metadata={"parse": option_types.folder_or_hub_id, "help": "of a policy repo that holds adapters"},
    )
    control: Literal["swapped_instruction", "shuffled_images"] | None = field(
        default=None, metadata={"help": "spoil an input, to see whether the policy uses it"}
    )
    slots: int = field(
        default=POOL["num_slots"],
        metadata={
            "parse": option_types.positive,
            "help": "episodes that run in parallel, the batch size of the policy",
        },
    )
    workers: int | None = field(
        default=None,
        metadata={"parse": option_types.positive, "help": "simulator processes (default: one per CPU)"},
    )
    timeout: float = field(
        default=POOL["timeout"],
        metadata={
            "parse": option_types.positive_number,
            "help": "seconds after which an environment that does not respond is restarted",
        },
    )
    record: int = field(
        default=0,
        metadata={"parse": option_types.non_negative, "help": "videos of the first so many episodes of each task"},
    )
    resume: bool = field(default=False, metadata={"flag": True, "help": "resume the evaluation in --output"})
    overwrite: bool = field(
        default=False, metadata={"flag": True, "help": "remove an earlier evaluation in --output first"}
    )
    compare: Path | None = field(
        default=None,
        metadata={
            "parse": option_types.existing_path,
            "metavar": "RESULTS",
            "help": "folder or results.json of another evaluation, for a paired test on the same episodes",
        },
    )
    write_card: bool = field(
        default=False, metadata={"flag": True, "help": "put the result into the card in the policy's folder"}
    )
    device: str | None = field(
        default=None, metadata={"help": "for example cpu or cuda:0 (default: a GPU if there is one)"}
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "branch, tag or commit of the policy's repo"}
    )
    api_key_file: Path | None = field(
        default=None,
        metadata={"parse": option_types.existing_file, "metavar": "FILE", "help": "with the key of the policy server"},
    )

    def __post_init__(self):
        served = option_types.is_server(self.policy), f"on {self.policy}, which is not the address of a policy server"
        refuse_without_effect(self, {"api_key_file": served})


__all__ = ["EPISODES", "EvaluateArguments"]
