# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks of LIBERO and of LIBERO-PRO's variants, their suites, and the words that ask for them.

`libero_tasks.json` holds the names of LIBERO's tasks in the order of the benchmark, and the instructions of those variants
that change them.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..environment import Task

INITIAL_STATES = 50
"""Official initial states of every task."""

# LIBERO-PRO: other words, other objects, other places, another task in the same scene.
VARIANTS = ("lan", "object", "swap", "task")
_SUITES_WITH_VARIANTS = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
_SCENE = re.compile(r"([A-Z_]+SCENE\d+)_")


@dataclass(frozen=True)
class LiberoTask(Task):
    """One task of a suite.

    Attributes:
        suite (`str`): in which it stands.
        base_suite (`str`): LIBERO's own suite of which that is a variant, or itself: decides step limit and statistics.
        file_name (`str`): of its description and its initial states, without their endings.
    """

    suite: str
    base_suite: str
    file_name: str

    @property
    def dataset_keys(self) -> tuple[str, ...]:
        """As OpenVLA's evaluation looks them up: the suite, or its demonstrations without idle steps."""
        return self.base_suite, f"{self.base_suite}_no_noops"


def _scene(suite: str, file_name: str) -> str:
    """All tasks of libero_goal share one, those of LIBERO-100 name theirs, the others have one each."""
    if suite.startswith("libero_goal"):
        return suite
    named = _SCENE.match(file_name)
    return f"{suite}/{named.group(1) if named else file_name}"


def _read_suites() -> dict[str, tuple[LiberoTask, ...]]:
    table = json.loads(Path(__file__).with_name("libero_tasks.json").read_text(encoding="utf-8"))
    base_suites = {suite: suite for suite in table["tasks"]}
    base_suites |= {f"{base}_{variant}": base for base in _SUITES_WITH_VARIANTS for variant in VARIANTS}
    suites = {}
    for suite, base in base_suites.items():
        names = table["tasks"][base]
        # As in OpenVLA's evaluation: the name of the file, not the sentence in it, which differs.
        from_names = [_SCENE.sub("", name).replace("_", " ") for name in names]
        instructions = table["instructions"].get(suite, from_names)
        suites[suite] = tuple(
            LiberoTask(f"{suite}/{name}", instruction, _scene(suite, name), suite, base, name)
            for name, instruction in zip(names, instructions, strict=True)
        )
    return suites


_SUITES = _read_suites()
LIBERO_SUITES: dict[str, tuple[str, ...]] = {
    suite: tuple(task.name for task in tasks) for suite, tasks in _SUITES.items()
}
LIBERO_TASKS: dict[str, LiberoTask] = {task.name: task for tasks in _SUITES.values() for task in tasks}


__all__ = ["INITIAL_STATES", "LIBERO_SUITES", "LIBERO_TASKS", "VARIANTS", "LiberoTask"]
