# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which environment, settings and statistics an evaluation uses where nobody has said so."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..simulation.environment_table import TableEntry, find_environment


def recorded_environment(conventions: Mapping[str, Mapping[str, Any]]) -> str:
    """
    The simulator that a policy's data was recorded in.

    Args:
        conventions (`Mapping[str, Mapping[str, Any]]`): Of the policy, by dataset key.

    Raises:
        ValueError: The conventions name none, or several.
    """
    found = sorted({settings["simulator"] for settings in conventions.values() if "simulator" in settings})
    if len(found) != 1:
        named = f"names {', '.join(found)}" if found else "names no simulator"
        raise ValueError(f"The policy {named} that its data was recorded in: choose one with --environment.")
    return found[0]


def choose_dataset_key(
    conventions: Mapping[str, Mapping[str, Any]], environment: str, tasks: Sequence[str]
) -> str | None:
    """
    The one of a policy's datasets that an environment's tasks belong to.

    Args:
        conventions (`Mapping[str, Mapping[str, Any]]`): Of the policy, by dataset key, for all of its keys.
        environment (`str`), tasks (`Sequence[str]`): What is evaluated.

    Returns:
        `str` or `None`: The only key; or the first that the tasks name; or the only one that was recorded in this environment.

    Raises:
        ValueError: The tasks belong to several of the policy's datasets.
    """
    if len(conventions) == 1:
        return next(iter(conventions))
    known = find_environment(environment).tasks
    named: dict[str, str] = {}
    for task in tasks:
        for key in known[task].dataset_keys if task in known else ():
            if key in conventions:
                named.setdefault(key, task)
                break
    if len(named) > 1:
        listed = ", ".join(f"{task!r} to {key!r}" for key, task in named.items())
        raise ValueError(
            f"The tasks belong to several of the policy's datasets ({listed}): evaluate them separately, or choose one with "
            "--dataset-key."
        )
    recorded = [key for key, settings in conventions.items() if settings.get("simulator") == environment]
    return next(iter(named), recorded[0] if len(recorded) == 1 else None)


def environment_settings(
    entry: TableEntry, tasks: Sequence[str], chosen: Mapping[str, Any], recorded: Mapping[str, Any]
) -> dict[str, Any]:
    """
    The settings of an environment for a policy.

    Args:
        entry ([`TableEntry`]): The environment.
        tasks (`Sequence[str]`): What is evaluated.
        chosen (`Mapping[str, Any]`): Settings that somebody has chosen; they win.
        recorded (`Mapping[str, Any]`): Conventions that the policy's data was recorded with.

    Returns:
        `dict[str, Any]`: Those chosen, those without which the tasks cannot be done, and those that the policy must meet as in
        its training, if it was recorded in this environment.

    Raises:
        ValueError: An unknown setting, and what the environment raises.
        ImportError: The simulator is not installed.
    """
    settings: dict[str, Any] = {}
    for task in tasks:
        if task in entry.tasks:
            settings |= entry.tasks[task].needed_settings
    settings |= chosen
    spec = entry.describe(settings)
    if recorded.get("simulator") != spec.name:
        return settings
    binding = {name: recorded[name] for name in spec.binding_conventions if name in recorded}
    return entry.settings_in(binding) | settings


__all__ = ["choose_dataset_key", "environment_settings", "recorded_environment"]
