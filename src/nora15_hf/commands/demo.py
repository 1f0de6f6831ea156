# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Shows a policy and its world model in the browser: chunks of actions are drawn for a simulator's picture or an uploaded one,
imagined, ranked by how near they lead to a goal, and the best is executed in the simulator. Needs the extra `demo`.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
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


ARGUMENTS = (DemoArguments, ThreadArguments)


def run(options: DemoArguments) -> None:
    if options.export_space is not None:
        _export(options)
        return
    listening, say_where = options.open_page()
    from .demo_serving import serve_demo

    serve_demo(options, listening, say_where)


def _export(options: DemoArguments) -> None:
    from ..apps.space import write_space

    for model in (options.policy, options.world_model):
        if Path(model).is_dir():
            raise ValueError(
                f"A Space cannot read the folder {model!r}: push it first (nora15 push), and name its Hub id."
            )
    chosen = {
        "--environment": options.environment,
        "--tasks": ",".join(options.tasks) or None,
        "--suite": ",".join(options.suite) or None,
        "--protocol": options.protocol,
        "--dataset-key": options.dataset_key,
        "--revision": options.revision,
        "--world-model-revision": options.world_model_revision,
    }
    given = [word for option, value in chosen.items() if value is not None for word in (option, value)]
    settings = [word for name, value in options.set.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    files = write_space(
        options.export_space,
        policy=options.policy,
        world_model=options.world_model,
        arguments=[
            *("demo", options.policy, "--world-model", options.world_model, "--candidates", str(options.candidates)),
            *given,
            *settings,
        ],
        requirement=options.requirement,
    )
    print(f"Written: {', '.join(map(str, files))}. Create a Space with the SDK Gradio and push them to it.")


__all__ = ["ARGUMENTS", "DemoArguments", "run"]
