# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""An environment and a robot for lerobot's own commands, which keep the actions that they were given."""

from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.robots import Robot, RobotConfig

CAMERAS = ("top", "wrist")
JOINTS = ("pan.pos", "lift.pos", "elbow.pos", "gripper.pos")


class CountingEnv(gym.Env):
    """Succeeds after `seed % 5 + 3` steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    task_description = "press the button"
    _max_episode_steps = 20
    # Seed of an episode to the first numbers of its actions, for all environments of the process.
    executed = {}

    def __init__(self, render_mode: str = "rgb_array"):
        self.render_mode = render_mode
        picture = gym.spaces.Box(0, 255, (8, 12, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            {"pixels": gym.spaces.Dict(dict.fromkeys(CAMERAS, picture)), "agent_pos": gym.spaces.Box(-9, 9, (3,))}
        )
        self.action_space = gym.spaces.Box(-1e9, 1e9, (4,))

    def _observation(self) -> dict:
        return {"pixels": {name: self.render() for name in CAMERAS}, "agent_pos": np.zeros(3, np.float32)}

    def render(self) -> np.ndarray:
        return np.full((8, 12, 3), len(self._actions), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._actions = []
        if seed is not None:
            self._seed = seed
            self.executed[seed] = self._actions
        return self._observation(), {}

    def step(self, action):
        self._actions.append(float(action[0]))
        success = len(self._actions) == self._seed % 5 + 3
        return self._observation(), float(success), success, False, {"is_success": success}


@EnvConfig.register_subclass("counting")
@dataclass
class CountingEnvConfig(EnvConfig):
    task: str | None = "Counting-v0"
    fps: int = 10
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(4,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(3,)),
            **{f"pixels/{name}": PolicyFeature(type=FeatureType.VISUAL, shape=(8, 12, 3)) for name in CAMERAS},
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            **{f"pixels/{name}": f"observation.images.{name}" for name in CAMERAS},
        }
    )

    @property
    def gym_kwargs(self) -> dict:
        return {}


gym.register("gym_counting/Counting-v0", CountingEnv)


@RobotConfig.register_subclass("counting_arm")
@dataclass(kw_only=True)
class CountingArmConfig(RobotConfig):
    pass


class CountingArm(Robot):
    """Four joints and two cameras; it is where it was told to be."""

    config_class = CountingArmConfig
    name = "counting_arm"
    cameras = dict.fromkeys(CAMERAS)
    sent = []

    observation_features = {**dict.fromkeys(JOINTS, float), **dict.fromkeys(CAMERAS, (8, 12, 3))}
    action_features = dict.fromkeys(JOINTS, float)
    is_connected = False
    is_calibrated = True

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict:
        positions = dict.fromkeys(JOINTS, 0.0) | (self.sent[-1] if self.sent else {})
        return positions | {name: np.zeros((8, 12, 3), np.uint8) for name in CAMERAS}

    def send_action(self, action: dict) -> dict:
        self.sent.append(dict(action))
        return action

    def disconnect(self) -> None:
        self.is_connected = False


__all__ = ["JOINTS", "CountingArm", "CountingEnv"]
