# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One demonstration by Meta-World's scripted expert, disturbed on purpose and labelled with what the expert wanted."""

import zlib
from dataclasses import dataclass

import numpy as np

from .metaworld_env import MetaWorldEnv

FRAME_KEYS = ("observation.image", "observation.state", "action", "action.executed")


@dataclass(frozen=True)
class ExpertNoise:
    """How the expert's hand is disturbed, so that the data show how to come back.

    Attributes:
        std (`float`): standard deviation of the normal noise on dx, dy, dz of every executed action, action units.
        burst_probability (`float`): chance per step that a push in one random direction begins.
        burst_steps (`tuple[int, int]`): shortest and longest push, steps.
        steps_after_success (`int`): how long the recording goes on after the task has succeeded, steps.
    """

    std: float = 0.3
    burst_probability: float = 0.03
    burst_steps: tuple[int, int] = (3, 6)
    steps_after_success: int = 8


def record_expert_episode(env: MetaWorldEnv, seed: int, noise: ExpertNoise) -> dict[str, np.ndarray] | None:
    """Let the expert do the task of `env` once.

    Executed is the clipped expert action plus noise (the hand's three directions; during a push a random unit vector
    is added as well); recorded is the clipped expert action without noise, at the state that was really visited. The
    noise depends on the seed and the task alone.

    Returns:
        `dict` or `None`: frames `observation.image` uint8 `(F, size, size, 3)`, `observation.state` float32 `(F, 4)`,
        `action` float32 `(F, 4)`, what the expert wanted (to be imitated), `action.executed` float32 `(F, 4)`, what moved
        the robot (for world models); `None` when the step limit came before success.
    """
    random = np.random.default_rng([seed, zlib.crc32(env.task.name.encode())])
    env.reset(seed)
    images, states, actions, executed_actions = [], [], [], []
    push, push_steps_left = np.zeros(3), 0
    steps_left = env.max_steps
    while steps_left > 0:
        observation, action = env.observation(), env.expert_action()
        images.append(observation["image"])
        states.append(observation["state"])
        actions.append(action)
        if push_steps_left == 0 and random.random() < noise.burst_probability:
            direction = random.normal(size=3)
            push = direction / np.linalg.norm(direction)
            push_steps_left = random.integers(noise.burst_steps[0], noise.burst_steps[1] + 1)
        disturbance = random.normal(0, noise.std, size=3)
        if push_steps_left > 0:
            disturbance += push
            push_steps_left -= 1
        succeeded_before = env.success
        executed_actions.append(np.clip(action + np.append(disturbance, 0), -1, 1).astype(np.float32))
        env.step(executed_actions[-1])
        steps_left -= 1
        if env.success and not succeeded_before:
            steps_left = min(steps_left, noise.steps_after_success)
    if not env.success:
        return None
    columns = (images, states, actions, executed_actions)
    return {key: np.stack(column) for key, column in zip(FRAME_KEYS, columns, strict=True)}


__all__ = ["FRAME_KEYS", "ExpertNoise", "record_expert_episode"]
