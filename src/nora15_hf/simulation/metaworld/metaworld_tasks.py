# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which Meta-World tasks a policy can be trained and evaluated on, and the words that ask for them.

Meta-World has no language: one instruction per task is written here.
"""

from dataclasses import dataclass
from typing import Any

from ..environment import Task

SIM_EXTRA_MESSAGE = (
    "The simulator is an optional part of nora15_hf and is not installed. "
    'Install it with: pip install "nora15_hf[sim]"'
)


@dataclass(frozen=True)
class MetaWorldTask(Task):
    """One task of Meta-World v3.

    Attributes:
        success_convention (`str`): what Meta-World counts as success in one step, in words.
        needs_goal (`bool`): the target is a point in space that nothing in the scene shows; without
            `MetaWorldEnv(show_goal=True)` no policy that only sees images can know it.
    """

    success_convention: str
    needs_goal: bool = False

    @property
    def needed_settings(self) -> dict[str, Any]:
        return {"show_goal": True} if self.needs_goal else {}

    @property
    def metaworld_id(self) -> str:
        """The name in Meta-World's own table of environments."""
        return f"{self.name}-v3"


_ALL_TASKS = (
    MetaWorldTask("faucet-open", "open the faucet", "faucet", "handle within 7 cm of its open place"),
    MetaWorldTask("faucet-close", "close the faucet", "faucet", "handle within 7 cm of its closed place"),
    MetaWorldTask(
        "button-press-topdown", "press the button", "button-topdown", "button within 2.4 cm of its pressed place"
    ),
    MetaWorldTask("handle-press", "press the handle down", "handle", "handle within 2 cm of its lower place"),
    MetaWorldTask("handle-pull", "pull the handle up", "handle", "handle within 5 cm of its upper place"),
    MetaWorldTask("coffee-button", "push the coffee machine button", "coffee", "button within 2 cm of its end"),
    MetaWorldTask("drawer-open", "open the drawer", "drawer", "handle within 3 cm of its open place"),
    MetaWorldTask("drawer-close", "close the drawer", "drawer", "handle within 5.5 cm of its closed place"),
    MetaWorldTask("door-open", "open the door", "door", "handle within 8 cm of its open place, sideways"),
    MetaWorldTask("window-open", "open the window", "window", "handle within 5 cm of its open place"),
    MetaWorldTask("window-close", "close the window", "window", "handle within 5 cm of its closed place"),
    MetaWorldTask("plate-slide", "slide the plate into the goal", "plate", "plate within 7 cm of the goal"),
    MetaWorldTask("reach", "reach the red ball", "puck", "gripper within 5 cm of the goal", needs_goal=True),
    MetaWorldTask("push", "push the puck to the red ball", "puck", "puck within 5 cm of the goal", needs_goal=True),
    MetaWorldTask(
        "pick-place", "lift the puck to the red ball", "puck", "puck within 7 cm of the goal", needs_goal=True
    ),
    MetaWorldTask("peg-insert-side", "insert the peg into the hole", "peg", "peg's tip within 7 cm of the hole's end"),
)

METAWORLD_TASKS: dict[str, MetaWorldTask] = {task.name: task for task in _ALL_TASKS}


__all__ = ["METAWORLD_TASKS", "SIM_EXTRA_MESSAGE", "MetaWorldTask"]
