# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Environments of the table as gymnasium knows environments. To import this module registers every task of Meta-World:

```python
import gymnasium
import nora15_hf.simulation.gymnasium_registration

env = gymnasium.make("nora15_hf/MetaWorld-faucet-open-v3")
```
"""

from typing import Any

import numpy as np

from .environment_table import find_environment, import_environment
from .installation import extra_command
from .metaworld.metaworld_tasks import METAWORLD_STEP_LIMIT, METAWORLD_TASKS

try:
    import gymnasium
    from gymnasium.spaces import Box, Dict
except ModuleNotFoundError as error:
    raise ImportError(f"Meta-World is not installed. Install it with {extra_command('sim')}.") from error


class RegisteredEnv(gymnasium.Env):
    """
    A task of an environment of the table. `reset(seed=s)` begins the episode that `s` names everywhere in this package; without
    a seed, the next one is drawn from `np_random`.

    Observations have LeRobot's names: `"pixels"` is the picture, uint8 `(height, width, 3)`, or a dictionary of pictures by
    camera unless the only camera is called `"image"`; `"agent_pos"` is the state, float32 `(S,)`. `info` holds `"is_success"`
    (in this or an earlier step), `"instruction"` and `"seed"`. The reward of a step is 1 if the task has succeeded, else 0.

    Args:
        environment (`str`): a key of `ENVIRONMENTS`.
        task (`str`): one of its tasks.
        terminate_on_success (`bool`, *optional*, defaults to `True`): whether success terminates the episode.
        render_mode (`str`, *optional*): `"rgb_array"`: `render()` returns the picture of the first camera.
        settings: of the environment.

    Raises:
        ValueError: an unknown environment, task or `render_mode`; and what the environment raises.
        ImportError: the simulator is not installed.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        environment: str,
        task: str,
        *,
        terminate_on_success: bool = True,
        render_mode: str | None = None,
        **settings: Any,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` is {render_mode!r}; it can be 'rgb_array' or None.")
        self._environment = import_environment(find_environment(environment).environment)(task, **settings)
        self._terminate_on_success = terminate_on_success
        self.render_mode = render_mode
        spec = self._environment.spec
        self.metadata = self.metadata | {"render_fps": spec.control_rate}
        low, high = (np.broadcast_to(np.float32(limit), spec.action_dim) for limit in spec.action_limits)
        self.action_space = Box(low, high, dtype=np.float32)
        pictures = {camera: Box(0, 255, (*size, 3), np.uint8) for camera, size in spec.cameras.items()}
        spaces = {"pixels": pictures["image"] if list(pictures) == ["image"] else Dict(pictures)}
        if spec.state_dim is not None:
            spaces["agent_pos"] = Box(-np.inf, np.inf, (spec.state_dim,), np.float32)
        self.observation_space = Dict(spaces)

    @property
    def task_description(self) -> str:
        """The instruction, under the name that LeRobot uses."""
        return self._environment.task.instruction

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict[str, Any]]:
        """Begin an episode; there are no `options`."""
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._environment.reset(self._seed)
        return self._seen()

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict[str, Any]]:
        """Execute one action `(A,)`, clipped to the action space."""
        self._environment.step(np.asarray(action, dtype=np.float32))
        success = self._environment.success
        observation, info = self._seen()
        terminated = success and self._terminate_on_success
        return observation, float(success), terminated, self._environment.done and not terminated, info

    def render(self) -> np.ndarray | None:
        """The picture of the first camera, uint8 `(height, width, 3)`; `None` without a `render_mode`."""
        if self.render_mode is None:
            return None
        return next(iter(self._environment.observation().images.values()))

    def close(self) -> None:
        """Free what the simulator holds."""
        self._environment.close()

    def _seen(self) -> tuple[dict[str, Any], dict[str, Any]]:
        observation = self._environment.observation()
        images = observation.images
        seen = {"pixels": images["image"] if list(images) == ["image"] else images}
        if observation.state is not None:
            seen["agent_pos"] = observation.state
        info = {"is_success": self._environment.success, "instruction": observation.instruction, "seed": self._seed}
        return seen, info


for _task in METAWORLD_TASKS.values():
    gymnasium.register(
        id=f"nora15_hf/MetaWorld-{_task.metaworld_id}",
        entry_point=f"{__name__}:RegisteredEnv",
        # Meta-World's own limit, which `gymnasium.make(..., max_episode_steps=)` shortens.
        max_episode_steps=METAWORLD_STEP_LIMIT,
        kwargs={
            "environment": "metaworld",
            "task": _task.name,
            # The only one that draws the same pixels on every machine.
            "renderer": "raycast",
            "max_steps": METAWORLD_STEP_LIMIT,
            **_task.needed_settings,
        },
    )

__all__ = ["RegisteredEnv"]
