# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One Meta-World task as an environment for a policy that sees an image and reads an instruction."""

from importlib.metadata import version
from typing import Any

import numpy as np

from ..environment import EnvironmentSpec, Observation, find_task
from ..installation import extra_command
from .camera import CAMERA, Crop, hand_projection
from .metaworld_tasks import METAWORLD_STEP_LIMIT, METAWORLD_TASKS

try:
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP
except ModuleNotFoundError as error:
    raise ImportError(f"Meta-World is not installed. Install it with {extra_command('sim')}.") from error

from .renderers import available_renderer, make_renderer

ACTION_NAMES = ("hand dx", "hand dy", "hand dz", "gripper")
STATE_NAMES = ("hand x", "hand y", "hand z", "gripper opening")
CONTROL_RATE = 80  # steps per second: 5 physics steps of 2.5 ms


class MetaWorldEnv:
    """A Meta-World v3 task whose episodes depend on nothing but their seed.

    Args:
        task (`str`): a key of `METAWORLD_TASKS`.
        image_size (`int`, defaults to 84): side of the picture, pixels.
        renderer (`str`, defaults to `"auto"`): see [`available_renderer`].
        max_steps (`int`, defaults to 150): control steps per episode, at most 500 (Meta-World's own limit).
        show_goal (`bool`, defaults to `False`): draw the goal as a red ball. Meta-World's own goal dots are always
            hidden, because their colour tells tasks of one scene apart.

    Raises:
        ValueError: unknown task or renderer, `max_steps` outside 1..500, image too small.
        ImportError: the `sim` extra is not installed (raised when this module is imported).
    """

    def __init__(self, task: str, **settings: Any):
        self.spec = self.describe(**settings)
        self.task = find_task(METAWORLD_TASKS, task)
        self.num_steps = 0
        self.success = False
        conventions = self.spec.conventions
        self._env = ALL_V3_ENVIRONMENTS[self.task.metaworld_id]()
        # Meta-World draws start and goal from `env.seed` only in this state; `reset(seed=...)` would be ignored.
        self._env.seeded_rand_vec = True
        self._env._freeze_rand_vec = False
        self._env._set_task_called = True
        # The expert needs the goal; the cached observation space would clip it back to zero.
        self._env._partially_observable = False
        del self._env.sawyer_observation_space
        self._renderer = make_renderer(conventions["renderer"], self._env.model, conventions["image_size"])
        self._show_goal = conventions["show_goal"]
        self._metaworld_observation = None

    @classmethod
    def describe(
        cls, *, image_size: int = 84, renderer: str = "auto", max_steps: int = 150, show_goal: bool = False
    ) -> EnvironmentSpec:
        """See [`Environment`]; the settings are the arguments of the class."""
        if not 1 <= max_steps <= METAWORLD_STEP_LIMIT:
            raise ValueError(f"`max_steps` is {max_steps}; Meta-World allows 1 to {METAWORLD_STEP_LIMIT}.")
        crop = Crop.for_image_size(image_size)
        return EnvironmentSpec(
            name="metaworld",
            title="Meta-World",
            robot_type="metaworld_sawyer",
            packages=("metaworld", "mujoco"),
            tasks=METAWORLD_TASKS,
            cameras={"image": (image_size, image_size)},
            action_names=ACTION_NAMES,
            action_units=("cm", "cm", "cm", "share of the full effort"),
            delta_actions=(True, True, True, False),
            gripper="effort in [-1, 1], +1 closes",
            state_dim=len(STATE_NAMES),
            state_names=STATE_NAMES,
            state_units=("m", "m", "m", "share of the full opening"),
            camera_roles={"image": "external"},
            control_rate=CONTROL_RATE,
            max_steps=max_steps,
            has_expert=True,
            hand_projection=hand_projection(image_size),
            conventions={
                "metaworld_version": version("metaworld"),
                "mujoco_version": version("mujoco"),
                "renderer": available_renderer(renderer),
                "image_size": image_size,
                "camera": CAMERA,
                "camera_turned_degrees": 180,
                "crop": {"field": crop.field, "left": crop.left, "top": crop.top},
                "show_goal": show_goal,
                "control_rate_hz": CONTROL_RATE,
                "action": "hand dx, dy, dz (1 cm per unit), gripper effort; clipped to [-1, 1]",
                "state": "hand x, y, z in metres, gripper opening in [0, 1]",
                "success_rule": "success in any step",
                "max_steps": max_steps,
            },
            binding_conventions=(
                "renderer",
                "image_size",
                "camera",
                "camera_turned_degrees",
                "crop",
                "show_goal",
                "control_rate_hz",
                "action",
            ),
        )

    @property
    def done(self) -> bool:
        """Whether the step limit is reached; success does not end an episode."""
        return self.num_steps == self.spec.max_steps

    def reset(self, seed: int) -> None:
        """Begin the episode that `seed` names.

        Args:
            seed (`int`): not negative. The project trains on seeds below 10000 and evaluates from 10000.

        Raises:
            ValueError: negative seed.
        """
        if seed < 0:
            raise ValueError(f"`seed` is {seed}; Meta-World needs a number of 0 or more.")
        self._env.seed(seed)
        self._env.reset()
        # After a reset positions are those of the state before until kinematics are run again.
        mujoco.mj_forward(self._env.model, self._env.data)
        observation = self._env._get_obs()
        observation[18:36] = observation[:18]
        self._metaworld_observation = observation
        self._expert = ENV_POLICY_MAP[self.task.metaworld_id]()
        self.num_steps = 0
        self.success = False

    def step(self, action: np.ndarray) -> None:
        """Execute one action for 1/80 s.

        Args:
            action (`np.ndarray` of shape `(4,)`): hand dx, dy, dz (about 1 cm per unit) and gripper effort (1 closes).
                Limits are [-1, 1], and the controller holds commands to them.

        Raises:
            ValueError: wrong shape, or not finite.
            RuntimeError: no `reset` yet, or the episode has used its `max_steps`.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (len(ACTION_NAMES),) or not np.isfinite(action).all():
            raise ValueError(
                f"`action` must be {len(ACTION_NAMES)} finite numbers ({', '.join(ACTION_NAMES)}); got {action!r}."
            )
        self._require_running()
        self._metaworld_observation, _, _, _, info = self._env.step(np.clip(action, -1, 1))
        self.num_steps += 1
        self.success = self.success or bool(info["success"])

    def observation(self) -> Observation:
        """Draw the present state; the costly part of a step, so it is done only when asked for."""
        self._require_reset()
        goal = self._env._target_pos if self._show_goal else None
        return Observation(
            images={"image": self._renderer.render(self._env.data, goal)},
            state=self._metaworld_observation[: len(STATE_NAMES)].astype(np.float32),
            instruction=self.task.instruction,
        )

    def expert_action(self) -> np.ndarray:
        """The action of Meta-World's scripted expert: float32 `(4,)`, clipped to [-1, 1] (it often exceeds this range)."""
        self._require_reset()
        return np.clip(self._expert.get_action(self._metaworld_observation), -1, 1).astype(np.float32)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()
        self._env.close()

    def _require_reset(self) -> None:
        if self._metaworld_observation is None:
            raise RuntimeError("The episode has not begun: call reset(seed) first.")

    def _require_running(self) -> None:
        self._require_reset()
        if self.done:
            raise RuntimeError(f"The episode is over: its {self.spec.max_steps} steps are used. Call reset(seed).")


__all__ = ["MetaWorldEnv"]
