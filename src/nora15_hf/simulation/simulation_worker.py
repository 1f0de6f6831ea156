# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What runs inside a worker process of [`SimulationPool`]: several environments that obey messages.

This module and all that it imports must stay free of torch and transformers: the pool starts it without running the
package's own `__init__`, which keeps a worker small and quick to start.
"""

import signal
import traceback
from multiprocessing.connection import Connection

import numpy as np

from .expert_episodes import FRAME_KEYS, ExpertNoise, record_expert_episode
from .metaworld_env import MetaWorldEnv


class SimulationWorker:
    """Environments of some slots. Environments that no slot uses are kept for the next episode of their task.

    Args:
        num_slots (`int`): how many slots this worker serves; at most twice as many environments are kept.
        settings (`dict`): keyword arguments of [`MetaWorldEnv`].
    """

    def __init__(self, num_slots: int, settings: dict):
        self._settings = settings
        self._max_idle = num_slots
        self._in_use: dict[int, MetaWorldEnv] = {}
        self._idle: list[MetaWorldEnv] = []

    def _take(self, task: str) -> MetaWorldEnv:
        for position, env in enumerate(self._idle):
            if env.task.name == task:
                return self._idle.pop(position)
        return MetaWorldEnv(task, **self._settings)

    def _give_back(self, env: MetaWorldEnv) -> None:
        self._idle.append(env)
        if len(self._idle) > self._max_idle:
            self._idle.pop(0).close()

    def start(self, slot: int, task: str, seed: int, executed: np.ndarray | None = None) -> np.ndarray:
        """Begin an episode in `slot`, ending what was there, and repeat `executed` actions; returns the image then."""
        if slot in self._in_use:
            self._give_back(self._in_use.pop(slot))
        env = self._in_use[slot] = self._take(task)
        env.reset(seed)
        for action in () if executed is None else executed:
            env.step(action)
        return env.observation()["image"]

    def advance(self, slot: int, actions: np.ndarray) -> tuple[bool, int, np.ndarray]:
        """Execute actions `(n, 4)` until success or the step limit; returns success, steps so far, the image then."""
        env = self._in_use[slot]
        for action in actions:
            if env.step(action) or env.num_steps == env.max_steps:
                break
        return env.success, env.num_steps, env.observation()["image"]

    def finish_with_expert(self, slot: int) -> tuple[bool, int]:
        """Let the expert act until success or the step limit; returns success and steps so far."""
        env = self._in_use[slot]
        while not env.success and env.num_steps < env.max_steps:
            env.step(env.expert_action())
        return env.success, env.num_steps

    def record(self, slot: int, actions: np.ndarray | None, steps_after_success: int) -> dict[str, np.ndarray]:
        """Like `advance`, or with the expert's own actions until some steps after success; returns the frames.

        The frames are those of [`record_expert_episode`]: what the expert wants is recorded whoever acts.
        """
        env = self._in_use[slot]
        frames = {key: [] for key in FRAME_KEYS}
        if actions is not None:
            steps_left = len(actions)
        else:
            steps_left = steps_after_success if env.success else env.max_steps
        while steps_left > 0 and env.num_steps < env.max_steps:
            observation, wanted = env.observation(), env.expert_action()
            executed = wanted if actions is None else np.clip(actions[len(actions) - steps_left], -1, 1)
            succeeded_before = env.success
            env.step(executed)
            for key, value in zip(
                FRAME_KEYS, (observation["image"], observation["state"], wanted, executed), strict=True
            ):
                frames[key].append(value)
            steps_left -= 1
            if env.success and not succeeded_before:
                steps_left = min(steps_left, 0 if actions is not None else steps_after_success)
        recorded = {key: np.stack(values) for key, values in frames.items()}
        return recorded | {"success": env.success, "next_image": env.observation()["image"]}

    def expert_episode(self, task: str, seed: int, noise: dict) -> dict[str, np.ndarray] | None:
        """See [`record_expert_episode`]."""
        env = self._take(task)
        frames = record_expert_episode(env, seed, ExpertNoise(**noise))
        self._give_back(env)
        return frames


def serve(file_descriptor: int) -> None:
    """Answer messages until the other end of the connection is closed.

    A message is a list of (method, keyword arguments); the answer is `("done", results)` or `("failed", traceback)`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the connection
    connection = Connection(file_descriptor)
    worker = SimulationWorker(**connection.recv())
    while True:
        try:
            calls = connection.recv()
        except EOFError:
            return
        try:
            answer = ("done", [getattr(worker, method)(**arguments) for method, arguments in calls])
        except Exception:
            answer = ("failed", traceback.format_exc())
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


__all__ = ["SimulationWorker", "serve"]
