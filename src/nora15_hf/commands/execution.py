# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What all commands have in common when they run: progress without a terminal, and `--threads` where they compute."""

from collections.abc import Callable, Sequence
from typing import Any

from ..runtime.progress import plain_progress
from ..runtime.thread_arguments import ThreadArguments


@plain_progress()
def execute(run: Callable[..., int | None], options: Sequence[Any]) -> int | None:
    """
    Runs a command and returns its exit code.

    Args:
        run (`Callable`): `run` of the command's module.
        options (`Sequence`): An instance of each of its `ARGUMENTS`. Their [`ThreadArguments`] take effect here and are not
            handed on.
    """
    own = []
    for each in options:
        if isinstance(each, ThreadArguments):
            # Imported here: it needs torch, which commands without these arguments do without.
            from ..runtime.cpu_threads import choose_threads

            choose_threads(each.threads)
        else:
            own.append(each)
    return run(*own)


__all__ = ["execute"]
