# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the command that shows a policy and its world model in the browser."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from . import option_types
from .environment_arguments import EnvironmentArguments
from .options_without_effect import refuse_without_effect
from .page_arguments import PageArguments


@dataclass(kw_only=True)
class DemoArguments(EnvironmentArguments, PageArguments):
    """The two models, the simulator, and what is drawn."""

    policy: str = field(
        metadata={"positional": True, "parse": option_types.folder_or_hub_id, "help": "the policy: folder or Hub id"}
    )
    world_model: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "folder or Hub id of a world model that was trained for the policy",
        }
    )
    environment: str | None = field(
        default=None,
        metadata={
            "parse": option_types.environment_or_none,
            "help": "simulator, or none to show uploaded pictures only (default: the one that the policy's data was recorded in)",
        },
    )
    candidates: int = field(
        default=5, metadata={"parse": option_types.positive, "help": "chunks that are drawn for each state at first"}
    )
    dataset_key: str | None = field(
        default=None,
        metadata={"help": "which of the policy's statistics (default: those of the simulator, where that is clear)"},
    )
    device: str | None = field(
        default=None, metadata={"help": "for example cpu or cuda:0 (default: a GPU where there is one)"}
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "branch, tag or commit of the policy's repo"}
    )
    world_model_revision: str | None = field(
        default=None,
        metadata={"revision_of": ("world_model",), "help": "branch, tag or commit of the world model's repo"},
    )
    export_space: Path | None = field(
        default=None,
        metadata={
            "parse": option_types.new_folder,
            "metavar": "FOLDER",
            "help": "write a folder that is a Hugging Face Space with this demo, and show nothing",
        },
    )
    requirement: str = field(
        default="nora15_hf[demo,sim]",
        metadata={
            "help": "with --export-space: what pip installs there to have this package, for example a wheel's address"
        },
    )

    def __post_init__(self):
        exported = self.export_space is not None
        shown = not exported, "with --export_space, which shows nothing"
        simulated = self.environment != "none", "with --environment none"
        refuse_without_effect(
            self,
            {
                "requirement": (exported, "without --export_space"),
                **dict.fromkeys((each.name for each in fields(PageArguments)), shown),
                "device": shown,
                **dict.fromkeys(("tasks", "suite", "protocol", "set"), simulated),
            },
        )


__all__ = ["DemoArguments"]
