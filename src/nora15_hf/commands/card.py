# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Reads sizes, conventions, hyper-parameters, provenance and counts from the folder and writes its card. Facts that are neither
in the folder nor given here are "not stated" in the card.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..cards.card_info import TrainingStage
from . import option_types
from .library_defaults import library_defaults

DEFAULTS = library_defaults("hub/describe.py", "AuthorFacts")


@dataclass
class CardArguments:
    """The folder, and the [`~nora15_hf.hub.AuthorFacts`] about it."""

    folder: Path = field(
        metadata={
            "positional": True,
            "parse": option_types.existing_folder,
            "help": "policy, world model, adapter, preference dataset or demonstrations",
        }
    )
    repo_id: str | None = field(
        default=None,
        metadata={"parse": option_types.hub_id, "help": "Hub id for the usage snippet (default: the folder's name)"},
    )
    name: str | None = field(default=None, metadata={"help": "title (default: last part of the Hub id)"})
    stage: TrainingStage | None = field(
        default=None, metadata={"help": "stage of training (default: read from the training's run.json)"}
    )
    base_model: str | None = field(
        default=None, metadata={"parse": option_types.hub_id, "help": "Hub id of what training started from"}
    )
    datasets: list[str] = field(
        default_factory=list,
        metadata={
            "parse": option_types.comma_separated,
            "help": "comma-separated Hub ids of the datasets trained on",
        },
    )
    action_space: str | None = field(default=None, metadata={"help": "meaning and unit of the action dimensions"})
    gripper: str | None = field(default=None, metadata={"help": "meaning of the gripper's sign"})
    example_instruction: str | None = field(default=None, metadata={"help": "instruction for the usage snippet"})
    evaluation: Path | None = field(
        default=None,
        metadata={
            "parse": option_types.existing_file,
            "metavar": "FILE",
            "help": "results.json of nora15 evaluate, or JSON of closed-loop results: environment, environment_id, results (task to "
            "[successes, episodes]), conventions",
        },
    )
    license: str = field(default=DEFAULTS["license"], metadata={"help": "licence of the artefact"})


ARGUMENTS = (CardArguments,)


def run(options: CardArguments) -> None:
    from ..hub import AuthorFacts, read_evaluation, write_card

    facts = AuthorFacts(
        repo_id=options.repo_id,
        stage=options.stage,
        name=options.name,
        base_model=options.base_model,
        datasets=tuple(options.datasets),
        action_space=options.action_space,
        gripper=options.gripper,
        example_instruction=options.example_instruction,
        evaluation=None if options.evaluation is None else read_evaluation(options.evaluation, options.folder),
        license=options.license,
    )
    print(write_card(options.folder, facts))


__all__ = ["ARGUMENTS", "CardArguments", "run"]
