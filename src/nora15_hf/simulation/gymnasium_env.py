# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Environments that others wrote for gymnasium, with the keys of their observations named by the caller."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .environment import EnvironmentSpec, Observation, find_task
from .gymnasium_spec import RENDER, find_expert, flat, gymnasium_spec, has_succeeded, make, told_instruction, within


class GymnasiumEnv:
    """
    An environment of gymnasium that has pictures and an action space that is a `Box`.

    Keys name parts of an observation, those of nested dictionaries joined by dots (`"pixels.top"`). An observation that is no
    dictionary is called `"observation"`, and what `render()` returns `"render"`. To describe the environment is to build it,
    to reset it and to take one step, so that a missing key is told before the first episode.

    Args:
        task (`str`): one of `gym_ids`.
        gym_ids (`str` or `list[str]`): what `gymnasium.make` takes, commas between several; each is a task. In
            `"module:Name-v0"` the module is what registers the environment. All must have the same spaces.
        image_keys (`str` or `dict[str, str]`, defaults to `"image=pixels"`): camera names to the keys of their pictures, uint8
            `(height, width, 3)`, in the order in which a policy sees them.
        state_key (`str`, *optional*): key of the state, `(S,)`; none by default.
        instruction (`str` or `dict[str, str]`, *optional*): what a policy is told, for several ids by id.
        instruction_key (`str`, *optional*): instead of `instruction` where the environment tells it: a key of the observation or
            of the `info` of `reset()`, or an attribute of the environment (LeRobot's have `"task_description"`).
        success_key (`str`, defaults to `"is_success"`): key of the success in the `info` of `step()`, or `"terminated"` where an
            episode terminates when it has succeeded, and only then.
        max_steps (`int`, *optional*): steps of an episode at most, those that the id is registered with by default.
        control_rate (`float`, *optional*): steps per second of simulated time, the environment's `render_fps` by default.
        action_names, state_names (`str` or `list[str]`, *optional*): one per dimension, commas between them. Those of the
            policy's data say that the environment means the same by its numbers.
        expert (`str`, *optional*): `"module:name"` of a scripted expert. It is called with the unwrapped environment after every
            reset, and returns what is called for every action.
        hand_dims (`int`, defaults to 0): so many actions from the first on are disturbed in recorded demonstrations.
        gym_kwargs (`dict`, *optional*): further arguments of `gymnasium.make`, plain JSON values.

    Raises:
        ValueError: an unknown id, no instruction, a key that is not there, pictures, states or actions of another kind, ids that
            differ in their spaces; the message lists what there is.
        ImportError: gymnasium, or the module of an id, is not installed.
    """

    def __init__(self, task: str, **settings: Any):
        self.spec = self.describe(**settings)
        self.task = find_task(self.spec.tasks, task)
        self._settings = self.spec.conventions
        self._env = make(task, self._settings)
        self._new_expert = None
        if self.spec.has_expert:
            self._new_expert = find_expert(self._settings["expert"])
        self.num_steps, self.success, self.done = 0, False, False

    @classmethod
    def describe(
        cls,
        *,
        gym_ids: str | Sequence[str] = (),
        image_keys: str | Mapping[str, str] = "image=pixels",
        state_key: str | None = None,
        instruction: str | Mapping[str, str] | None = None,
        instruction_key: str | None = None,
        success_key: str = "is_success",
        max_steps: int | None = None,
        control_rate: float | None = None,
        action_names: str | Sequence[str] | None = None,
        state_names: str | Sequence[str] | None = None,
        expert: str | None = None,
        hand_dims: int = 0,
        gym_kwargs: Mapping[str, Any] | None = None,
    ) -> EnvironmentSpec:
        """See [`Environment`]; the settings are the arguments of the class."""
        settings = {name: value for name, value in locals().items() if name != "cls"}
        for name in ("gym_ids", "action_names", "state_names"):
            settings[name] = _names(settings[name])
        if isinstance(image_keys, str):
            pairs = [pair.partition("=") for pair in _names(image_keys)]
            settings["image_keys"] = {camera: key for camera, _, key in pairs}
        if isinstance(instruction, str):
            settings["instruction"] = dict.fromkeys(settings["gym_ids"][:1], instruction)
        # Only such an environment can draw when it is asked to.
        draws = {"render_mode": "rgb_array"} if RENDER in settings["image_keys"].values() else {}
        settings["gym_kwargs"] = draws | dict(gym_kwargs or {})
        return gymnasium_spec(settings)

    def reset(self, seed: int) -> None:
        """Begin the episode that `seed` names."""
        seen, info = self._env.reset(seed=seed)
        self._seen = flat(seen)
        self._instruction = told_instruction(self._env, self._settings, self.task.name, self._seen, info)
        self.num_steps, self.success, self.done = 0, False, False
        if self._new_expert is not None:
            self._expert = self._new_expert(self._env.unwrapped)

    def step(self, action: np.ndarray) -> None:
        """Execute one action, float32 `(A,)`, clipped to the action space."""
        seen, _, terminated, truncated, info = self._env.step(within(self._env.action_space, action))
        self._seen = flat(seen)
        self.num_steps += 1
        self.success = self.success or has_succeeded(self._settings, terminated, info)
        self.done = bool(terminated or truncated)

    def observation(self) -> Observation:
        """The present state. What is called `"render"` is drawn now, all other pictures were drawn by the step."""
        images = {
            camera: np.array(self._env.render() if key == RENDER else self._seen[key])
            for camera, key in self._settings["image_keys"].items()
        }
        state_key = self._settings["state_key"]
        state = None if state_key is None else np.array(self._seen[state_key], dtype=np.float32)
        return Observation(images, state, self._instruction)

    def expert_action(self) -> np.ndarray:
        """What the scripted expert does here, float32 `(A,)`, clipped to the action space."""
        return within(self._env.action_space, self._expert()).astype(np.float32)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def _names(names: str | Sequence[str] | None) -> list[str] | None:
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    return None if names is None else list(names)


__all__ = ["GymnasiumEnv"]
