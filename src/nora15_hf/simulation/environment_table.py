# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The table of environments: the class for each name. A simulator is imported only when it is used."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .environment import Environment, EnvironmentSpec, Task, find_task, unknown_name
from .libero.libero_tasks import LIBERO_SUITES, LIBERO_TASKS
from .libero.protocols import PROTOCOLS
from .metaworld.metaworld_tasks import METAWORLD_SUITES, METAWORLD_TASKS


@dataclass(frozen=True)
class TableEntry:
    """An environment.

    Attributes:
        environment (`str`): `"module:Class"`, an [`Environment`]; a module that begins with a dot is in this folder. Worker
            processes import it, so it has to be on the search path.
        tasks (`Mapping[str, Task]`): its tasks by name, which can be listed without the simulator; empty
            where only the spec knows them, since they depend on the settings.
        suites (`Mapping[str, tuple[str, ...]]`, *optional*): groups of tasks that are evaluated together, by name.
        protocols (`tuple[str, ...]`, *optional*): named sets of rules, values of the environment's setting `protocol`; the
            first is its default.
    """

    environment: str
    tasks: Mapping[str, Task]
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()

    def select_tasks(self, tasks: Sequence[str] = (), suites: Sequence[str] = ()) -> list[str]:
        """
        Names of the tasks that are asked for, each once: those of the suites, then the single ones; all tasks if neither is given.

        Raises:
            ValueError: an unknown suite or task; the message names the nearest ones.
        """
        for suite in suites:
            if suite not in self.suites:
                raise unknown_name("suite", suite, self.suites)
        for task in tasks:
            find_task(self.tasks, task)
        wanted = [task for suite in suites for task in self.suites[suite]] + list(tasks)
        return list(dict.fromkeys(wanted or self.tasks))

    def describe(self, settings: Mapping[str, Any]) -> EnvironmentSpec:
        """
        The spec under some settings; the simulator is imported.

        Raises:
            ValueError: an unknown setting, whose nearest names the message lists, or a value of another kind; and what the
                environment raises.
            ImportError: the simulator is not installed.
        """
        known = self.setting_names()
        environment = import_environment(self.environment)
        hints = get_type_hints(environment.describe)
        for name, value in settings.items():
            if name not in known:
                raise unknown_name("setting", name, known)
            _check_kind(name, value, hints.get(name, Any))
        return environment.describe(**settings)

    def setting_names(self) -> list[str]:
        """The settings of the environment, which is imported."""
        return list(signature(import_environment(self.environment).describe).parameters)

    def settings_in(self, conventions: Mapping[str, Any]) -> dict[str, Any]:
        """The environment's settings out of conventions, which hold each under its own name."""
        return {name: conventions[name] for name in self.setting_names() if name in conventions}

    def check_protocol(self, protocol: str) -> None:
        """Refuses a protocol that the environment does not have; the message names those that it has."""
        if protocol not in self.protocols:
            raise unknown_name("protocol", protocol, self.protocols)


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    Sequence: "a list",
    Mapping: "a dictionary",
    NoneType: "null",
}


def _check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuses a setting that is not of the kind that its annotation names; a list is any sequence, as JSON knows one kind."""
    kinds = [
        get_origin(kind) or kind for kind in (get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
    ]
    if not any(_is_a(value, kind) for kind in kinds):
        expected = " or ".join(_KINDS.get(kind, str(kind)) for kind in kinds)
        raise ValueError(f"The setting {name!r} is {value!r}; expected {expected}.")


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    # To Python, true and false are whole numbers.
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, {float: (int, float), tuple: (list, tuple), Sequence: (list, tuple)}.get(kind, kind))


ENVIRONMENTS: dict[str, TableEntry] = {
    "metaworld": TableEntry(".metaworld.metaworld_env:MetaWorldEnv", METAWORLD_TASKS, METAWORLD_SUITES),
    "gymnasium": TableEntry(".gymnasium_env:GymnasiumEnv", {}),
    "libero": TableEntry(
        ".libero.libero_env:LiberoEnv", LIBERO_TASKS, suites=LIBERO_SUITES, protocols=tuple(PROTOCOLS)
    ),
}


def find_environment(name: str) -> TableEntry:
    """An entry by its name.

    Raises:
        ValueError: unknown; the message names the nearest ones.
    """
    if name not in ENVIRONMENTS:
        raise unknown_name("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name]


def import_environment(path: str) -> type[Environment]:
    """The class that [`TableEntry`] names.

    Raises:
        ImportError: its simulator is not installed.
    """
    module, _, name = path.partition(":")
    return vars(importlib.import_module(module, __package__))[name]


__all__ = ["ENVIRONMENTS", "TableEntry", "find_environment", "import_environment"]
