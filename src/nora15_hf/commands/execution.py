# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
What all commands have in common when they run: progress without a terminal, `--threads` where they compute, and a line and an
exit code instead of a traceback where the inputs are wrong.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from ..runtime.progress import plain_progress
from ..runtime.thread_arguments import ThreadArguments
from .parser import CommandParser

# What an interrupted command leaves.
KEPT = {
    "nora15 quickstart": "finished stages are kept; --resume continues",
    "nora15 evaluate": "finished episodes are kept; --resume continues",
    "nora15 demonstrations": "the recording is not complete; remove its folder and call the command again",
    "nora15 rounds": "finished stages are kept; --resume continues",
}


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


def exit_code(name: str, work: Callable[[], int | None]) -> int:
    """
    What `work` returns, 2 when it refuses its inputs, and 130 after Ctrl-C; the reason is printed, behind the command's `name`.
    """
    try:
        return work() or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except SafetensorError as error:
        # Of a file that is damaged, or for which the disk has no room; not an OSError.
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except StrictDataclassError as error:
        # Of a configuration; not a ValueError, and in several lines.
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = KEPT.get(name, "run it again")
        print(f"\n{name}: interrupted; {again}.", file=sys.stderr)
        return 130


def run_script(
    arguments: Sequence[type], run: Callable[..., int | None], description: str, command_line: Sequence[str] | None
) -> None:
    """
    `main` of a command that is a script too, for `accelerate launch`.

    Args:
        arguments (`Sequence[type]`), description (`str`): See [`CommandParser`].
        run (`Callable`): See [`execute`].
        command_line (`Sequence[str]`, *optional*): That of the process by default.

    Raises:
        SystemExit: The command fails; see [`exit_code`].
    """
    parser = CommandParser(arguments, description=description)
    code = exit_code(Path(sys.argv[0]).name, lambda: execute(run, parser.parse(command_line)))
    if code:
        raise SystemExit(code)


__all__ = ["execute", "exit_code", "run_script"]
