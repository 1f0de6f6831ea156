# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 <command>`: finds the command, parses its options, runs it, and turns its errors into exit codes."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from .execution import execute, exit_code
from .parser import CommandParser, PlainParser

COMMANDS = {
    "quickstart": "run the pipeline in a simulator, from demonstrations to a preference-tuned policy",
    "demonstrations": "record the scripted experts of a simulator as a LeRobot dataset",
    "sft": "train a policy on LeRobot datasets",
    "world-model": "train a world model on a LeRobot dataset",
    "preferences": "sample a policy's candidates at states of a dataset, score them and form pairs",
    "dpo": "tune a policy on preferences with flow DPO",
    "rounds": "tune a policy in rounds of preferences: collect states, label, tune, evaluate",
    "imagine": "show what a world model imagines: film strips, energy curves, ranking accuracy",
    "evaluate": "measure the success of a policy in closed loop in a simulator, with intervals",
    "serve": "serve a policy to robots and benchmarks",
    "demo": "show a policy and its world model in the browser, in a simulator or on uploaded pictures",
    "view": "show the pairs of a preference set in the browser",
    "doctor": "check a policy before it moves a robot",
    "stats": "compute action and state statistics of a LeRobot dataset",
    "convert": "convert a published policy or world model to a repo that AutoModel and AutoProcessor load",
    "card": "write the README.md of a model, adapter or dataset folder",
    "push": "upload a model, adapter or dataset folder to its repo on the Hub",
    "push-all": "upload all artefacts of a folder, such as a quickstart's, to repos of one namespace",
}


@dataclass(frozen=True)
class ParsedCommand:
    """A command with its options, ready to run."""

    name: str
    run: Callable[[], int | None]


def parse(argv: Sequence[str] | None = None) -> ParsedCommand:
    """
    Parses a command line, by default that of the process.

    Raises:
        SystemExit: With 0 after `--help`, with 2 when the command line or its YAML file is wrong; the message is printed.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = PlainParser(
        prog="nora15", description="NORA-1.5: robot policies, world models and preference post-training on the Hub."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    # The rest is for the command's own parser, which is not imported before its name is known.
    called = "nora15"
    try:
        name = parser.parse_args(argv[:1]).command
        called = f"nora15 {name}"
        module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        options = CommandParser(module.ARGUMENTS, prog=called, description=module.__doc__).parse(argv[1:])
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{called}: {error}\n")
    return ParsedCommand(called, partial(execute, module.run, options))


def run(command: ParsedCommand) -> int:
    """
    Runs a command.

    Returns:
        `int`: 0 on success, 1 when the doctor found errors, 2 when the inputs are wrong, 130 after Ctrl-C.
    """
    return exit_code(command.name, command.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses a command line and runs its command; returns the exit code of [`run`]."""
    return run(parse(argv))


__all__ = ["COMMANDS", "ParsedCommand", "main", "parse", "run"]
