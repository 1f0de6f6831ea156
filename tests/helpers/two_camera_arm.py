# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""An environment without a physics engine: a hand in a plane, seen by two cameras, that moves to a corner.

It is imported by worker processes, so it must not import torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nora15_hf.simulation.environment import EnvironmentSpec, Observation, Task, find_task
from nora15_hf.simulation.environment_table import ENVIRONMENTS, TableEntry

__all__ = ["CORNERS", "METRES_PER_ACTION", "TASKS", "TwoCameraArm", "in_the_table"]

CORNERS = {"left": (-0.5, 0.5), "right": (0.5, 0.5)}
TASKS = {name: Task(name, f"move to the {name} corner", scene="plane") for name in CORNERS}
METRES_PER_ACTION = 0.05


class TwoCameraArm:
    """Actions are (dx, dy, gripper), the state is (x, y, gripper)."""

    def __init__(self, task: str, **settings: Any):
        self.spec = self.describe(**settings)
        self.task = find_task(TASKS, task)
        self.num_steps, self.success = 0, False

    @classmethod
    def describe(
        cls,
        *,
        cameras: tuple[str, ...] = ("front", "wrist"),
        with_state: bool = True,
        has_expert: bool = True,
        gripper: str = "1 closes",
        max_steps: int = 40,
        shown_size: int = 56,
    ) -> EnvironmentSpec:
        """`shown_size` other than 56 makes pictures that the spec does not promise."""
        return EnvironmentSpec(
            name="arm",
            title="Two-camera arm",
            robot_type="plane_arm",
            packages=("numpy",),
            tasks=TASKS,
            cameras=dict.fromkeys(cameras, (56, 56)),
            action_names=("dx", "dy", "gripper"),
            state_dim=3 if with_state else None,
            control_rate=10,
            max_steps=max_steps,
            has_expert=has_expert,
            hand_dims=2,
            conventions={
                "cameras": list(cameras),
                "with_state": with_state,
                "has_expert": has_expert,
                "gripper": gripper,
                "max_steps": max_steps,
                "shown_size": shown_size,
            },
            binding_conventions=("gripper",),
        )

    @property
    def done(self) -> bool:
        """An episode ends with its success, unlike Meta-World's."""
        return self.success or self.num_steps == self.spec.max_steps

    def reset(self, seed: int) -> None:
        self._hand = np.append(np.random.default_rng(seed).uniform(-0.3, 0.3, 2), 0.0)
        self.num_steps, self.success = 0, False

    def step(self, action: np.ndarray) -> None:
        dx, dy, gripper = np.clip(action, *self.spec.action_limits)
        self._hand = np.array(
            [self._hand[0] + METRES_PER_ACTION * dx, self._hand[1] + METRES_PER_ACTION * dy, gripper]
        )
        self.num_steps += 1
        self.success = bool(np.abs(self._hand[:2] - CORNERS[self.task.name]).max() < 0.06)

    def observation(self) -> Observation:
        size = self.spec.conventions["shown_size"]
        column, row = np.clip((self._hand[:2] + 1) / 2 * size, 0, size - 1).astype(int)
        images = {}
        for number, camera in enumerate(self.spec.cameras):
            images[camera] = np.full((size, size, 3), 60 * number, dtype=np.uint8)
            images[camera][max(0, row - 4) : row + 4, max(0, column - 4) : column + 4, number] = 255
        state = self._hand.astype(np.float32) if self.spec.state_dim is not None else None
        return Observation(images, state, self.task.instruction)

    def expert_action(self) -> np.ndarray:
        wanted = (np.array(CORNERS[self.task.name]) - self._hand[:2]) / METRES_PER_ACTION
        return np.append(np.clip(wanted, -1, 1), 1.0).astype(np.float32)

    def close(self) -> None:
        pass


@contextmanager
def in_the_table() -> Iterator[None]:
    """The environment under the name "arm", for as long as the context lasts."""
    ENVIRONMENTS["arm"] = TableEntry("helpers.two_camera_arm:TwoCameraArm", TASKS)
    try:
        yield
    finally:
        del ENVIRONMENTS["arm"]
