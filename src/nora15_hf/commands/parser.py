# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From argument dataclasses to a command's options, and from a command line or a YAML file to their instances."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trl import TrlParser

CONFIGS = Path(__file__).parent / "configs"


class CommandParser(TrlParser):
    """
    TRL's parser: a field's name, type and default make an option, its metadata holds the help and what else argparse knows,
    and `--config FILE` replaces defaults by those of a YAML file. Metadata may further hold:

    - `positional`: whether the value is given by its place, without the option's name;
    - `flag`: whether the option takes no value, so that a positional one may follow it: `--dry-run FOLDER`;
    - `parse`: a function that reads the whole value, for example [`comma_separated`].

    Args:
        arguments (`Sequence[type]`): Dataclasses, with no field name in common.
        description (`str`): The command's module docstring; its first paragraph is shown by `--help`.
        prog (`str`, *optional*): The command as the user calls it; default: the script's name.
    """

    def __init__(self, arguments: Sequence[type], *, description: str, prog: str | None = None):
        self._config = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
        self._config.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file of options, or the name of one that the package ships; the command line wins over it",
        )
        super().__init__(
            arguments,
            prog=prog,
            description=description.strip().split("\n\n")[0],
            parents=[self._config],
            formatter_class=_HelpFormatter,
        )

    def add_argument(
        self,
        *names: str,
        positional: bool = False,
        flag: bool = False,
        parse: Callable[[str], Any] | None = None,
        **settings: Any,
    ) -> argparse.Action:
        """As in argparse, with the additions that the class names."""
        # TRL gives --two_words and --two-words: one is enough in --help, and [`parse`] understands both.
        names = tuple(name for name in names if "_" not in name)
        if positional:
            del settings["required"]
            names = (names[0].removeprefix("--"),)
        if flag:
            settings = {"action": "store_true", "default": settings.get("default"), "help": settings["help"]}
        if parse is not None:
            del settings["nargs"]
            settings["type"] = parse
        return super().add_argument(*names, **settings)

    def parse(self, arguments: Sequence[str] | None = None) -> list[Any]:
        """
        An instance of each dataclass, from a command line, by default that of the process.

        Raises:
            FileNotFoundError: There is no such YAML file.
            ValueError: The YAML file has keys that are no options, or a dataclass refuses its values.
            SystemExit: The command line is wrong; says why.
        """
        arguments = [_with_hyphens(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
        config, arguments = self._config.parse_known_args(arguments)
        if config.config is not None:
            arguments += ["--config", str(find_config(config.config))]
        *parsed, of_config, of_command_line = self.parse_args_and_config(
            arguments, return_remaining_strings=True, separate_remaining_strings=True
        )
        if of_command_line:
            self.error(f"unrecognized arguments: {' '.join(of_command_line)}")
        if of_config:
            unknown = ", ".join(key.removeprefix("--") for key in of_config[::2])
            raise ValueError(f"{config.config} has keys that are no options: {unknown}. --help lists the options.")
        return parsed[: len(self.dataclass_types)]


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default unless there is none, or the help tells it in words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == [] or "default:" in action.help:
            return action.help
        return super()._get_help_string(action)


def _with_hyphens(argument: str) -> str:
    """The option `--two_words` as `--two-words`; values stay as they are."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def find_config(name: str) -> Path:
    """
    The YAML file of that path; otherwise the shipped one of that name, whose suffix may be left out.

    Raises:
        FileNotFoundError: There is neither.
    """
    shipped = {file.stem: file for file in sorted(CONFIGS.glob("*.yaml"))}
    if Path(name).is_file():
        return Path(name)
    if name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    raise FileNotFoundError(f"--config {name} is neither a file nor one of the shipped ones: {', '.join(shipped)}.")


def comma_separated(text: str) -> list[str]:
    """`"a, b"` to `["a", "b"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


__all__ = ["CONFIGS", "CommandParser", "comma_separated", "find_config"]
