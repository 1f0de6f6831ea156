# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From argument dataclasses to a command's options, and from a command line or a YAML file to their instances."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from trl import TrlParser

from . import option_types
from .options_without_effect import refuse_revisions_of_folders

CONFIGS = Path(__file__).parent / "configs"

# Options of transformers' TrainingArguments, whose fields say less than what training needs.
_TRAINING_TYPES = {
    "output_dir": option_types.output_folder,
    "seed": option_types.seed,
    "data_seed": option_types.seed,
    "per_device_train_batch_size": option_types.positive,
    "per_device_eval_batch_size": option_types.positive,
    "gradient_accumulation_steps": option_types.positive,
    "dataloader_num_workers": option_types.non_negative,
    "num_train_epochs": option_types.positive_number,
    "logging_steps": option_types.positive_number,
    "eval_steps": option_types.positive_number,
    "save_steps": option_types.positive_number,
    "save_total_limit": option_types.positive,
    "learning_rate": option_types.non_negative_number,
    "weight_decay": option_types.non_negative_number,
    "max_grad_norm": option_types.non_negative_number,
}


@dataclass(frozen=True)
class _YamlValue:
    """A value of a YAML file, as a default that argparse leaves alone."""

    value: Any


class _ErrorsRaise:
    """argparse ends the process and prints all options with every error; a caller may want to do otherwise."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. --help lists the options.")


class PlainParser(_ErrorsRaise, argparse.ArgumentParser):
    """argparse's parser, with a `ValueError` for a wrong command line."""


class CommandParser(_ErrorsRaise, TrlParser):
    """
    TRL's parser: a field's name, type and default make an option, its metadata holds the help and what else argparse knows,
    and `--config FILE` replaces defaults by those of a YAML file, whose values must be what the command line takes. Metadata
    may further hold:

    - `positional`: whether the value is given by its place, without the option's name;
    - `flag`: whether the option takes no value, so that a positional one may follow it: `--dry-run FOLDER`;
    - `parse`: a function that reads the whole value, one of [`~nora15_hf.commands.option_types`];
    - `each`: the same for each member of a list;
    - `revision_of`: the fields that hold the repo of which the value is a branch, tag or commit.

    Args:
        arguments (`Sequence[type]`): Dataclasses, with no field name in common.
        description (`str`): The command's module docstring; its first paragraph is shown by `--help`.
        prog (`str`, *optional*): The command as the user calls it; default: the script's name.
    """

    def __init__(self, arguments: Sequence[type], *, description: str, prog: str | None = None):
        self._config = PlainParser(prog=prog, add_help=False, allow_abbrev=False)
        self._config.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file of options, or the name of one that the package ships; the command line overrides it",
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
        each: Callable[[str], Any] | None = None,
        revision_of: Sequence[str] = (),
        **settings: Any,
    ) -> argparse.Action:
        """As in argparse, with the additions that the class names."""
        parse = parse or _TRAINING_TYPES.get(names[0].removeprefix("--"))
        # TRL gives --two_words and --two-words: one is enough in --help, and [`parse`] understands both.
        names = tuple(name for name in names if "_" not in name)
        if flag:
            settings = {"action": "store_true", "default": settings.get("default"), "help": settings["help"]}
        if parse is not None:
            settings.pop("nargs", None)
        if positional:
            names = (names[0].removeprefix("--"),)
            # One that may be left out has a default.
            settings["nargs"] = None if settings.pop("required", False) else "?"
        if parse or each:
            settings["type"] = parse or each
        return super().add_argument(*names, **settings)

    def parse(self, arguments: Sequence[str] | None = None) -> list[Any]:
        """
        An instance of each dataclass, from a command line, by default that of the process.

        Raises:
            FileNotFoundError: There is no such YAML file.
            ValueError: The command line or the YAML file is wrong, or a dataclass refuses its values.
        """
        arguments = [_with_hyphens(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
        config, arguments = self._config.parse_known_args(arguments)
        if config.config is not None:
            arguments += ["--config", str(find_config(config.config))]
        try:
            *parsed, of_config, of_command_line = self.parse_args_and_config(
                arguments, return_remaining_strings=True, separate_remaining_strings=True
            )
        except yaml.YAMLError as error:
            raise ValueError(f"{config.config} is not valid YAML: {' '.join(str(error).split())}.") from error
        if of_command_line:
            self.error(f"unrecognized arguments: {' '.join(of_command_line)}")
        if of_config:
            unknown = ", ".join(key.removeprefix("--") for key in of_config[::2])
            raise ValueError(f"{config.config} has keys that are not options: {unknown}. --help lists the options.")
        parsed = parsed[: len(self.dataclass_types)]
        for options in parsed:
            refuse_revisions_of_folders(options)
        return parsed

    def set_defaults_with_config(self, **settings: Any) -> list[str]:
        """As in TRL, whose parser takes over values of a YAML file without a look at them."""
        return super().set_defaults_with_config(**{name: _YamlValue(value) for name, value in settings.items()})

    def parse_known_args(self, args=None, namespace=None) -> tuple[argparse.Namespace, list[str]]:
        """As in argparse; also reads the values of the YAML file over which the command line does not win."""
        namespace, rest = super().parse_known_args(args, namespace)
        hints = {}
        for arguments in self.dataclass_types:
            hints |= get_type_hints(arguments)
        for action in self._actions:
            value = vars(namespace).get(action.dest)
            if isinstance(value, _YamlValue):
                setattr(namespace, action.dest, self._checked(action, hints[action.dest], value.value))
        return namespace, rest

    def _checked(self, action: argparse.Action, hint: Any, value: Any) -> Any:
        """A value of a YAML file as the command line would give it."""
        kinds = {get_origin(kind) or kind for kind in (get_args(hint) or (hint,))} | {get_origin(hint)}
        option, found = action.dest, f"found {value!r}"
        is_flag = action.nargs == 0
        if (value is None and NoneType in kinds) or (isinstance(value, dict) and dict in kinds):
            return value
        if value is None or isinstance(value, dict):
            raise ValueError(f"{option} in the YAML file: expected a value, {found}.")
        if isinstance(value, list):
            if list not in kinds:
                raise ValueError(f"{option} in the YAML file: expected one value, {found}.")
            if any(each is None or isinstance(each, list | dict) for each in value):
                raise ValueError(f"{option} in the YAML file: expected a list of single values, {found}.")
            if action.nargs != "+" and action.type is str:
                return value
        elif action.nargs == "+":
            raise ValueError(f"{option} in the YAML file: expected a list, {found}. Put it into brackets: [{value}].")
        if is_flag:
            if not isinstance(value, bool):
                raise ValueError(f"{option} in the YAML file: expected true or false, {found}.")
            return value
        # Where the command line has commas instead of several words, a list has them, too.
        texts = value if action.nargs == "+" else [",".join(map(str, value)) if isinstance(value, list) else value]
        try:
            values = [self._get_value(action, str(text)) for text in texts]
            for each in values:
                self._check_value(action, each)
        except argparse.ArgumentError as error:
            raise ValueError(f"{option} in the YAML file: {error.message}.") from error
        return values if action.nargs == "+" else values[0]


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default unless there is none or the help states it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if (
            action.default is None
            or action.default is False
            or action.default in ([], {})
            or "default:" in action.help
        ):
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


__all__ = ["CONFIGS", "CommandParser", "PlainParser", "find_config"]
