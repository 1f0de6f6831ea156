# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A scripted expert for LIBERO: it picks and places, and turns knobs.

Inside, actions are the simulator's: 6 changes of the pose in [-1, 1], gripper -1 to open and 1 to close.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rotations import about_vertical, rotation_vector
from .scene import LiberoScene

OPEN, CLOSE = -1.0, 1.0
# What one unit of an action asks the simulator's controller for.
METRES_PER_ACTION, RADIANS_PER_ACTION = 0.05, 0.5
# The controller does in one step only part of what is asked for.
GAIN = 1.5
WIDEST_GRIP = 0.07  # metres between the open fingers
FINGER_LENGTH = 0.04  # metres from the palm to the place between the finger tips
YAWS = np.deg2rad([0, 30, -30, 60, -60, 90])
# A knob first: what stands on a stove is in the way.
PREDICATES = ("turnon", "turnoff", "on", "in")

Plan = Iterator[np.ndarray]


@dataclass(frozen=True)
class Grip:
    """How an object can be held from above.

    Attributes:
        offset (`np.ndarray` of shape `(2,)`): from the object's position to the place between the finger tips, metres.
        yaw (`float`): how far the hand is turned about the vertical, rad; at 0 the fingers close along y.
        at_rim (`bool`): it is held by its upper edge.
    """

    offset: np.ndarray
    yaw: float
    at_rim: bool = False


class LiberoExpert:
    """Pursues the goals of a task, one after the other, until all are fulfilled.

    Args:
        env: LIBERO's environment of the task, after its reset. It is only looked at.
    """

    def __init__(self, env: Any):
        self._scene = LiberoScene(env)
        self._upright = self._scene.hand_axes
        self._plan: Plan | None = None
        self._step = -1
        self._action: np.ndarray | None = None

    def action(self, step: int) -> np.ndarray:
        """What to do in the present state.

        Args:
            step (`int`): of the episode; the plan goes on when it is another than the last time.

        Returns:
            `np.ndarray` of shape `(7,)`, float32, in the datasets' units: gripper with 1 = open, 0 = closed.

        Raises:
            ValueError: a goal for which there is no plan.
        """
        if self._plan is None:
            self._plan = self._pursue_goals()
        if step != self._step:
            action = next(self._plan)
            self._step, self._action = step, np.append(action[:6], (1 - action[6]) / 2).astype(np.float32)
        return self._action.copy()

    def _pursue_goals(self) -> Plan:
        for predicate, *names in self._scene.goals:
            if predicate not in PREDICATES or (predicate == "in" and self._scene.is_closed(names[1])):
                raise ValueError(
                    f"The scripted expert has no plan for the goal {' '.join([predicate, *names])}: it picks, places and turns "
                    "knobs, but opens and closes nothing."
                )
        while True:
            for predicate, *names in sorted(self._scene.goals, key=lambda goal: PREDICATES.index(goal[0])):
                if not self._scene.holds(predicate, *names):
                    yield from (self._bring(*names) if predicate in ("on", "in") else self._turn(*names))
            yield from self._rest(1)

    # -- picking and placing ------------------------------------------------------------------------------------------

    def _bring(self, thing: str, place: str) -> Plan:
        """Take an object to a place, with another grip when one fails."""
        for grip in self._grips(thing):
            axes = about_vertical(grip.yaw) @ self._upright
            if (yield from self._pick(thing, grip, axes)):
                yield from self._put(thing, place, axes)
                return

    def _grips(self, thing: str) -> list[Grip]:
        """What is narrow is held in its middle, the narrowest way first; what is wide at its rim, the freest place first."""
        corners = self._scene.corners(thing)
        middle = (corners[:, :2].min(0) + corners[:, :2].max(0)) / 2
        centre = middle - self._scene.place(thing)[:2]
        widths = np.array([np.ptp(corners[:, :2] @ _across(yaw)) for yaw in YAWS])
        if widths.min() < WIDEST_GRIP:
            # Differences of some millimetres are not worth a turn.
            return [Grip(centre, YAWS[index]) for index in np.argsort(np.round(widths / 0.004), kind="stable")]
        rim = corners[corners[:, 2] > corners[:, 2].max() - 0.01, :2] - middle
        grips = []
        for yaw in YAWS:
            for across in (_across(yaw), -_across(yaw)):
                grips.append(Grip(centre + ((rim @ across).max() - 0.004) * across, yaw, at_rim=True))
        return sorted(grips, key=lambda grip: self._room(thing, grip) - abs(grip.yaw) / 50, reverse=True)

    def _room(self, thing: str, grip: Grip) -> float:
        """Distance in the plane from the outer finger to the nearest other shape that reaches as high, at most 5 cm."""
        finger = self._scene.place(thing)[:2] + grip.offset + 0.02 * grip.offset / np.linalg.norm(grip.offset)
        above = self._scene.corners(thing)[:, 2].min() + 0.03
        others = (other for other in self._scene.objects if other != thing)
        return min([0.05, *(self._scene.distance(other, finger, above) for other in others)])

    def _pick(self, thing: str, grip: Grip, axes: np.ndarray) -> Iterator[np.ndarray]:
        """Grasp and lift an object; returns whether it came along."""
        start = self._scene.place(thing)
        heights = self._scene.corners(thing)[:, 2]
        bottom, top = heights.min(), heights.max()
        height = max(top - 0.02, bottom + 0.008) if grip.at_rim else max((bottom + top) / 2, top - FINGER_LENGTH)
        column = start[:2] + grip.offset
        yield from self._move([*column, max(self._scene.hand[2], top + 0.08)], axes, OPEN, near=0.03)
        yield from self._move([*column, top + 0.06], axes, OPEN, near=0.012)
        yield from self._move([*column, height], axes, OPEN, near=0.01, most=25)
        yield from self._rest(10, CLOSE)
        yield from self._move(self._scene.hand + _up(0.1), axes, CLOSE, near=0.02, most=30)
        if self._scene.place(thing)[2] - start[2] > 0.05:
            return True
        yield from self._rest(3)
        return False

    def _put(self, thing: str, place: str, axes: np.ndarray) -> Plan:
        """Carry what is in the hand over a place, lower it and let it go."""
        held = self._scene.hand - self._scene.place(thing)
        # How far the hand is above the lowest point of what it holds.
        above = self._scene.hand[2] - self._scene.corners(thing)[:, 2].min()
        high = max(self._scene.top(place) + above + 0.04, self._scene.hand[2])
        yield from self._move([*self._scene.hand[:2], high], axes, CLOSE, near=0.03, most=40)
        for _ in range(80):
            hand, position = self._scene.hand, self._scene.place(thing)
            target = np.append(self._scene.place(place)[:2] + (hand - position)[:2], high)
            if np.linalg.norm((target - hand)[:2]) < 0.01:
                break
            if np.linalg.norm(hand - position - held) > 0.06:
                return  # lost
            yield self._towards(target, axes, CLOSE)
        low = self._scene.place(place)[2] + above + 0.02
        yield from self._move([*self._scene.hand[:2], low], axes, CLOSE, near=0.01, most=30)
        yield from self._rest(10)
        yield from self._move(self._scene.hand + _up(0.1), axes, OPEN, near=0.03, most=20)

    # -- knobs --------------------------------------------------------------------------------------------------------

    def _turn(self, name: str) -> Plan:
        """Hold a knob from above and turn it, the positive way to switch on."""
        knob = self._scene.joint(name)
        sign = 1 if ["turnon", name] in self._scene.goals else -1
        widths = [np.ptp(knob.corners[:, :2] @ _across(yaw)) for yaw in YAWS]
        axes = about_vertical(YAWS[np.argmin(widths)]) @ self._upright
        top = knob.corners[:, 2].max()
        yield from self._move([*knob.anchor[:2], top + 0.08], axes, OPEN, near=0.02)
        yield from self._move([*knob.anchor[:2], top - 0.01], axes, OPEN, near=0.008, most=25)
        yield from self._rest(8, CLOSE)
        for _ in range(25):
            axes = about_vertical(sign * 0.1) @ axes
            yield self._towards(np.array([*knob.anchor[:2], self._scene.hand[2]]), axes, CLOSE)
        yield from self._rest(4)
        yield from self._move(self._scene.hand + _up(0.1), self._upright, OPEN, near=0.03, most=20)

    # -- motions ------------------------------------------------------------------------------------------------------

    def _move(self, target: np.ndarray, axes: np.ndarray, gripper: float, *, near: float, most: int = 80) -> Plan:
        """Go to a place and turn the hand, until both are done nearly enough, or for so many steps at most."""
        for _ in range(most):
            turned = np.linalg.norm(rotation_vector(axes @ self._scene.hand_axes.T)) < 0.15
            if turned and np.linalg.norm(target - self._scene.hand) < near:
                return
            yield self._towards(target, axes, gripper)

    def _rest(self, steps: int, gripper: float = OPEN) -> Plan:
        for _ in range(steps):
            yield np.array([0, 0, 0, 0, 0, 0, gripper])

    def _towards(self, target: np.ndarray, axes: np.ndarray, gripper: float) -> np.ndarray:
        turn = rotation_vector(axes @ self._scene.hand_axes.T)
        # A hand that hangs straight but for two or three degrees is not turned.
        turn *= np.linalg.norm(turn) > 0.05
        motion = [(target - self._scene.hand) / METRES_PER_ACTION, turn / RADIANS_PER_ACTION]
        return np.append(np.clip(GAIN * np.concatenate(motion), -1, 1), gripper)


def _across(yaw: float) -> np.ndarray:
    """The direction along which the fingers of a turned hand close, `(2,)`."""
    return np.array([-np.sin(yaw), np.cos(yaw)])


def _up(metres: float) -> np.ndarray:
    return np.array([0.0, 0.0, metres])


__all__ = ["LiberoExpert"]
