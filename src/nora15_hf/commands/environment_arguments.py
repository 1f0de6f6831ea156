# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of every command that runs episodes in a simulator: the simulator, its settings, and the tasks."""

from dataclasses import dataclass, field
from typing import Any

from ..simulation.environment_table import ENVIRONMENTS, find_environment
from . import option_types


def _names(kind: str) -> str:
    """What every environment has of a kind, for the help."""
    found = {name: ", ".join(vars(entry)[kind]) for name, entry in ENVIRONMENTS.items() if vars(entry)[kind]}
    return "; ".join(f"{name}: {names}" for name, names in found.items()) or "none"


@dataclass(kw_only=True)
class EnvironmentArguments:
    """An environment of the table, its settings, and tasks."""

    environment: str | None = field(
        default=None,
        metadata={
            "parse": option_types.environment,
            "help": f"simulator: {', '.join(ENVIRONMENTS)} (default: the one that the policy's data was recorded in)",
        },
    )
    tasks: list[str] = field(
        default_factory=list,
        metadata={
            "parse": option_types.comma_separated,
            "help": "comma-separated tasks of the environment, in addition to those of --suite",
        },
    )
    suite: list[str] = field(
        default_factory=list,
        metadata={
            "parse": option_types.comma_separated,
            "help": f"comma-separated groups of tasks ({_names('suites')})",
        },
    )
    protocol: str | None = field(
        default=None,
        metadata={"help": f"named rules of the environment ({_names('protocols')}; default: its first)"},
    )
    set: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "parse": option_types.environment_setting,
            "action": option_types.MergedSettings,
            "metavar": "NAME=VALUE",
            "help": "setting of the environment, for example image_size=84; may be repeated (default: those of the policy's training, "
            "then those of the environment)",
        },
    )

    def selected_tasks(self, environment: str) -> list[str]:
        """
        The tasks that are asked for, as far as the table of environments knows them.

        Raises:
            ValueError: An unknown environment, task, suite or protocol, whose nearest names are listed; or nothing is asked for.
        """
        entry = find_environment(environment)
        if self.protocol is not None:
            entry.check_protocol(self.protocol)
        if not entry.tasks:
            # They depend on the settings; suites are known.
            entry.select_tasks(suites=self.suite)
            return self.tasks
        if not (self.tasks or self.suite):
            suites = f" Suites: {', '.join(entry.suites)}." if entry.suites else ""
            raise ValueError(f"Name --tasks or --suite of {environment}, which has {len(entry.tasks)} tasks.{suites}")
        return entry.select_tasks(self.tasks, self.suite)

    def settings(self) -> dict[str, Any]:
        """
        The settings that were chosen.

        Raises:
            ValueError: Two protocols.
        """
        if self.protocol is None:
            return self.set
        other = self.set.get("protocol", self.protocol)
        if other != self.protocol:
            raise ValueError(f"--protocol {self.protocol} and --set protocol={other}: give one of them.")
        return {"protocol": self.protocol} | self.set


__all__ = ["EnvironmentArguments"]
