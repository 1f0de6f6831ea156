# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Records demonstrations in a simulator, trains a small policy and a world model on them, builds preferences from imagined
outcomes, tunes the policy with flow DPO, evaluates every policy in closed loop and writes a report. Needs no GPU, no OpenGL
and no download.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..quickstart.config import QuickstartConfig
from ..runtime.thread_arguments import ThreadArguments
from ..simulation.environment_table import ENVIRONMENTS
from . import option_types
from .library_defaults import library_choices

DEFAULTS = QuickstartConfig()


@dataclass
class QuickstartArguments:
    """Where a quickstart writes, and what differs from [`QuickstartConfig`] or its `smoke`."""

    output: Path = field(
        metadata={"parse": option_types.output_folder, "help": "folder for models, datasets and report"}
    )
    environment: str | None = field(
        default=None,
        metadata={
            "choices": sorted(name for name, entry in ENVIRONMENTS.items() if entry.tasks),
            "help": f"a simulator with scripted experts (default: {DEFAULTS.environment})",
        },
    )
    tasks: list[str] | None = field(
        default=None,
        metadata={
            "parse": option_types.comma_separated,
            "help": f"comma-separated tasks of the environment (default: {','.join(DEFAULTS.tasks)})",
        },
    )
    episodes: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": f"demonstrations per task (default: {DEFAULTS.episodes})",
        },
    )
    evaluation_episodes: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "help": f"evaluation episodes per task and policy (default: {DEFAULTS.evaluation_episodes})",
        },
    )
    seed: int | None = field(
        default=None, metadata={"parse": option_types.seed, "help": f"random seed (default: {DEFAULTS.seed})"}
    )
    renderer: str | None = field(
        default=None,
        metadata={
            "choices": library_choices("simulation/metaworld/renderers.py", "RENDERERS"),
            "help": "how cameras are rendered: raycast needs no library and looks the same on every machine, auto uses OpenGL "
            f"where it works (default: {DEFAULTS.renderer})",
        },
    )
    smoke: bool = field(
        default=False,
        metadata={
            "flag": True,
            "help": "make everything tiny, to check that all stages run rather than to reach success",
        },
    )
    resume: bool = field(
        default=False,
        metadata={"flag": True, "help": "resume the run in --output after its last finished stage"},
    )
    overwrite: bool = field(default=False, metadata={"flag": True, "help": "remove an earlier run in --output first"})


ARGUMENTS = (QuickstartArguments, ThreadArguments)


def run(options: QuickstartArguments) -> None:
    # Imported here, since the other commands need none of it.
    from ..quickstart.quickstart import run_quickstart

    settings = {
        "environment": options.environment,
        "tasks": None if options.tasks is None else tuple(options.tasks),
        "episodes": options.episodes,
        "evaluation_episodes": options.evaluation_episodes,
        "seed": options.seed,
        "renderer": options.renderer,
    }
    make_config = QuickstartConfig.smoke if options.smoke else QuickstartConfig
    config = make_config(**{name: value for name, value in settings.items() if value is not None})
    run_quickstart(options.output, config, resume=options.resume, overwrite=options.overwrite)


__all__ = ["ARGUMENTS", "QuickstartArguments", "run"]
