# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Samples candidates of a policy at states of a dataset, scores them and writes a preference dataset; with --check it tells
beforehand how often the reward prefers what was demonstrated. With
--pairs-from it writes pairs that need no reward: of stale observations, interventions or the success of whole episodes.

    nora15 preferences --config preferences_tiny.yaml --check
    nora15 preferences --config preferences_tiny.yaml
    accelerate launch -m nora15_hf.commands.preferences --config preferences_paper.yaml

The same command resumes an interrupted build, on any number of processes. Every option can also be given on the command line.
`nora15 push OUTPUT REPO` uploads the result.
"""

from ..runtime.thread_arguments import ThreadArguments
from .execution import run_script
from .preference_arguments import BuildArguments

__all__ = ["ARGUMENTS", "BuildArguments", "main", "run"]

ARGUMENTS = (BuildArguments, ThreadArguments)


def run(options: BuildArguments) -> None:
    from .preference_building import build, check

    (check if options.check else build)(options)


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


if __name__ == "__main__":
    main()
