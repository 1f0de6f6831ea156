# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The table of environments: which class stands behind a name. A simulator is imported when it is used, not before."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from .environment import Environment, Task, unknown_name
from .metaworld.metaworld_tasks import METAWORLD_TASKS


@dataclass(frozen=True)
class TableEntry:
    """An environment.

    Attributes:
        environment (`str`): `"module:Class"`, an [`Environment`]; a module that begins with a dot is in this folder. Worker
            processes import it, so it has to be on the search path.
        tasks (`Mapping[str, Task]`): its tasks by name, which can be listed without the simulator.
    """

    environment: str
    tasks: Mapping[str, Task]


ENVIRONMENTS: dict[str, TableEntry] = {
    "metaworld": TableEntry(".metaworld.metaworld_env:MetaWorldEnv", METAWORLD_TASKS),
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
