# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks of Meta-World, the words that ask for them, and the benchmarks that group them.

Meta-World has no language: one instruction per task is written here.
"""

from dataclasses import dataclass
from typing import Any

from ..environment import Task

METAWORLD_STEP_LIMIT = 500


@dataclass(frozen=True)
class MetaWorldTask(Task):
    """One task of Meta-World v3.

    Attributes:
        success_convention (`str`): what Meta-World counts as success in one step, in words.
        needs_goal (`bool`): the target is drawn at random and nothing in the scene shows it; without
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
    MetaWorldTask(
        "assembly", "put the ring over the peg", "ring", "ring's centre within 2 cm of the peg, below its top"
    ),
    MetaWorldTask("basketball", "put the ball into the basket", "basketball", "ball within 8 cm of the goal"),
    MetaWorldTask("bin-picking", "move the cube into the blue bin", "bins", "cube within 5 cm of that bin's centre"),
    MetaWorldTask("box-close", "put the lid on the box", "box", "lid within 8 cm of its place on the box"),
    MetaWorldTask(
        "button-press-topdown", "press the button", "button-topdown", "button within 2.4 cm of its pressed place"
    ),
    MetaWorldTask(
        "button-press-topdown-wall",
        "press the button on top of the box behind the wall",
        "button-topdown-wall",
        "button within 2.4 cm of its pressed place",
    ),
    MetaWorldTask(
        "button-press", "press the button on the front of the box", "button", "button within 2 cm of its pressed place"
    ),
    MetaWorldTask(
        "button-press-wall",
        "press the button on the front of the box behind the wall",
        "button-wall",
        "button within 3 cm of its pressed place",
    ),
    MetaWorldTask("coffee-button", "push the coffee machine button", "coffee", "button within 2 cm of its end"),
    MetaWorldTask(
        "coffee-pull",
        "pull the mug from the coffee machine to the red ball",
        "coffee",
        "mug within 7 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask("coffee-push", "push the mug under the coffee machine", "coffee", "mug within 7 cm of its place"),
    MetaWorldTask("dial-turn", "turn the dial", "dial", "dial's tip within 7 cm of its turned place"),
    MetaWorldTask("disassemble", "lift the ring off the peg", "ring", "ring 15 cm above its start"),
    MetaWorldTask("door-close", "close the door", "door", "handle within 8 cm of its closed place"),
    MetaWorldTask("door-lock", "lock the door", "door-lock", "lock within 2 cm of its locked height"),
    MetaWorldTask("door-open", "open the door", "door", "handle within 8 cm of its open place, sideways"),
    MetaWorldTask("door-unlock", "unlock the door", "door-lock", "lock within 2 cm of its open place, sideways"),
    MetaWorldTask("hand-insert", "put the block into the hole in the table", "hole", "block within 5 cm of the goal"),
    MetaWorldTask("drawer-close", "close the drawer", "drawer", "handle within 5.5 cm of its closed place"),
    MetaWorldTask("drawer-open", "open the drawer", "drawer", "handle within 3 cm of its open place"),
    MetaWorldTask("faucet-open", "open the faucet", "faucet", "handle within 7 cm of its open place"),
    MetaWorldTask("faucet-close", "close the faucet", "faucet", "handle within 7 cm of its closed place"),
    MetaWorldTask("hammer", "drive the nail in with the hammer", "hammer", "nail driven in by more than 9 cm"),
    MetaWorldTask(
        "handle-press-side", "press the sideways handle down", "handle-side", "handle within 2 cm of its lower place"
    ),
    MetaWorldTask("handle-press", "press the handle down", "handle", "handle within 2 cm of its lower place"),
    MetaWorldTask(
        "handle-pull-side", "pull the sideways handle up", "handle-side", "handle within 8 cm of its upper place"
    ),
    MetaWorldTask("handle-pull", "pull the handle up", "handle", "handle within 5 cm of its upper place"),
    MetaWorldTask("lever-pull", "pull the lever up", "lever", "lever within 7.5 degrees of upright"),
    MetaWorldTask(
        "pick-place-wall",
        "lift the puck over the wall to the red ball",
        "puck-wall",
        "puck within 7 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask(
        "pick-out-of-hole",
        "lift the puck out of the hole to the red ball",
        "puck-hole",
        "puck within 7 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask(
        "pick-place", "lift the puck to the red ball", "puck", "puck within 7 cm of the goal", needs_goal=True
    ),
    MetaWorldTask("plate-slide", "slide the plate into the goal", "plate", "plate within 7 cm of the goal"),
    MetaWorldTask(
        "plate-slide-side", "slide the plate sideways into the goal", "plate-side", "plate within 7 cm of the goal"
    ),
    MetaWorldTask(
        "plate-slide-back",
        "slide the plate out of the goal to the red ball",
        "plate",
        "plate within 7 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask(
        "plate-slide-back-side",
        "slide the plate sideways out of the goal",
        "plate-side",
        "plate within 7 cm of its target on the table",
    ),
    MetaWorldTask("peg-insert-side", "insert the peg into the hole", "peg", "peg's tip within 7 cm of the hole's end"),
    MetaWorldTask("peg-unplug-side", "pull the peg out of the hole", "plug", "peg within 7 cm of 15 cm outside"),
    MetaWorldTask("soccer", "push the ball into the soccer goal", "soccer", "ball within 7 cm of the goal's centre"),
    MetaWorldTask(
        "stick-push",
        "push the thermos with the stick",
        "stick",
        "thermos within 12 cm of its target, stick held in the air",
    ),
    MetaWorldTask(
        "stick-pull",
        "pull the thermos with the stick",
        "stick",
        "thermos within 12 cm of its target, stick in its handle",
    ),
    MetaWorldTask("push", "push the puck to the red ball", "puck", "puck within 5 cm of the goal", needs_goal=True),
    MetaWorldTask(
        "push-wall",
        "push the puck around the wall to the red ball",
        "puck-wall",
        "puck within 7 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask(
        "push-back",
        "pull the block back to the red ball",
        "block",
        "block within 7 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask("reach", "reach the red ball", "puck", "gripper within 5 cm of the goal", needs_goal=True),
    MetaWorldTask(
        "reach-wall",
        "reach the red ball behind the wall",
        "puck-wall",
        "gripper within 5 cm of the goal",
        needs_goal=True,
    ),
    MetaWorldTask("shelf-place", "put the block on the shelf", "shelf", "block within 7 cm of its place on the shelf"),
    MetaWorldTask("sweep-into", "sweep the block into the hole", "hole", "block within 5 cm of the hole's centre"),
    MetaWorldTask("sweep", "sweep the block off the table", "sweep", "block within 5 cm of the table's edge"),
    MetaWorldTask("window-open", "open the window", "window", "handle within 5 cm of its open place"),
    MetaWorldTask("window-close", "close the window", "window", "handle within 5 cm of its closed place"),
)

METAWORLD_TASKS: dict[str, MetaWorldTask] = {task.name: task for task in _ALL_TASKS}

METAWORLD_SUITES: dict[str, tuple[str, ...]] = {
    "MT10": (
        "reach",
        "push",
        "pick-place",
        "door-open",
        "drawer-open",
        "drawer-close",
        "button-press-topdown",
        "peg-insert-side",
        "window-open",
        "window-close",
    ),
    "MT50": tuple(METAWORLD_TASKS),
}


__all__ = ["METAWORLD_STEP_LIMIT", "METAWORLD_SUITES", "METAWORLD_TASKS", "MetaWorldTask"]
