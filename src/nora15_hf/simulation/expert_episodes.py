# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Recorded steps of an episode, labelled with the scripted expert's intended action."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .environment import EnvironmentSpec, ExpertEnvironment, camera_feature

STATE = "observation.state"
ACTION = "action"
# Not "action.executed", as it was called: to LeRobot all keys that begin with "action" are actions of the policy.
EXECUTED_ACTION = "executed_action"


@dataclass(frozen=True)
class ExpertNoise:
    """How the expert's hand is disturbed, so that the data show how to come back.

    Attributes:
        std (`float`): standard deviation of the normal noise on every executed action that moves the hand, action units.
        burst_probability (`float`): chance per step that a push in one random direction begins.
        burst_steps (`tuple[int, int]`): shortest and longest push, steps.
        steps_after_success (`int`): how long the recording goes on after the task has succeeded, steps.
    """

    std: float = 0.3
    burst_probability: float = 0.03
    burst_steps: tuple[int, int] = (3, 6)
    steps_after_success: int = 8


def recorded_features(spec: EnvironmentSpec) -> dict[str, dict]:
    """The features of [`record_steps`] in LeRobot's words, in the order in which datasets keep them."""
    features = {
        camera_feature(camera): {"dtype": "image", "shape": (*size, 3)} for camera, size in spec.cameras.items()
    }
    if spec.state_dim is not None:
        names = None if spec.state_names is None else list(spec.state_names)
        features[STATE] = {"dtype": "float32", "shape": (spec.state_dim,), "names": names}
    action = {"dtype": "float32", "shape": (spec.action_dim,), "names": list(spec.action_names)}
    return features | dict.fromkeys((ACTION, EXECUTED_ACTION), action)


def record_steps(
    env: ExpertEnvironment,
    act: Callable[[np.ndarray], np.ndarray],
    *,
    steps_after_success: int = 0,
) -> dict[str, np.ndarray]:
    """Go on with an episode until it is done, and keep every frame.

    Args:
        env ([`ExpertEnvironment`]): after its reset, or in the middle of an episode.
        act: what is executed, given what the expert wants, float32 `(A,)`; clipped to the spec's limits.
        steps_after_success (`int`, *optional*, defaults to 0): steps that follow a success.

    Returns:
        `dict[str, np.ndarray]`: the frames, F of them: pictures of every camera uint8 `(F, height, width, 3)`,
        `observation.state` float32 `(F, S)`, `action` float32 `(F, A)`, what the expert wanted (to be imitated),
        `executed_action` float32 `(F, A)`, what moved the robot (for world models).
    """
    features = recorded_features(env.spec)
    frames = {name: [] for name in features}
    steps_left = steps_after_success if env.success else math.inf
    while steps_left > 0 and not env.done:
        observation, wanted = env.observation(), env.expert_action()
        executed = np.clip(act(wanted), *env.spec.action_limits).astype(np.float32)
        for camera, image in observation.images.items():
            frames[camera_feature(camera)].append(image)
        if observation.state is not None:
            frames[STATE].append(observation.state)
        frames[ACTION].append(wanted)
        frames[EXECUTED_ACTION].append(executed)
        succeeded_before = env.success
        env.step(executed)
        steps_left -= 1
        if env.success and not succeeded_before:
            steps_left = steps_after_success
    dtypes = {"image": np.uint8, "float32": np.float32}
    return {
        name: np.array(frames[name], dtypes[feature["dtype"]]).reshape(-1, *feature["shape"])
        for name, feature in features.items()
    }


def record_expert_episode(env: ExpertEnvironment, seed: int, noise: ExpertNoise) -> dict[str, np.ndarray] | None:
    """Let the expert do the task of `env` once.

    Executed is the expert's action plus noise in the directions of the hand (during a push a random unit vector is added
    as well); recorded is the action without noise, at the state that was really visited. The noise depends on the seed and
    the task alone.

    Returns:
        `dict` or `None`: the frames of [`record_steps`]; `None` when the episode was done before it succeeded.
    """
    random = np.random.default_rng([seed, zlib.crc32(env.task.name.encode())])
    hand_dims = env.spec.hand_dims
    push, push_steps_left = np.zeros(hand_dims), 0

    def disturbed(wanted: np.ndarray) -> np.ndarray:
        nonlocal push, push_steps_left
        if push_steps_left == 0 and random.random() < noise.burst_probability:
            direction = random.normal(size=hand_dims)
            push = direction / np.linalg.norm(direction)
            push_steps_left = random.integers(noise.burst_steps[0], noise.burst_steps[1] + 1)
        disturbance = random.normal(0, noise.std, size=hand_dims)
        if push_steps_left > 0:
            disturbance += push
            push_steps_left -= 1
        return wanted + np.pad(disturbance, (0, len(wanted) - hand_dims))

    env.reset(seed)
    frames = record_steps(env, disturbed, steps_after_success=noise.steps_after_success)
    return frames if env.success else None


__all__ = [
    "ACTION",
    "EXECUTED_ACTION",
    "STATE",
    "ExpertNoise",
    "record_expert_episode",
    "record_steps",
    "recorded_features",
]
