# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What runs inside a worker process of [`SimulationPool`]: several environments that obey messages.

This module and all that it imports must stay free of torch and transformers: the pool starts it without running the
package's own `__init__`, which keeps a worker small and quick to start.
"""

import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .environment import Environment, Observation, check_observation
from .environment_table import import_environment
from .expert_episodes import ExpertNoise, record_expert_episode, record_steps


@dataclass(frozen=True)
class StepOutcome:
    """Where an episode is after some actions.

    Attributes:
        success (`bool`): the task has succeeded.
        ended (`bool`): it has, or the episode takes no more steps.
        num_steps (`int`): of the episode so far.
        observation ([`Observation`]): what is seen now.
    """

    success: bool
    ended: bool
    num_steps: int
    observation: Observation


@dataclass(frozen=True)
class RecordedSteps:
    """Recorded steps of an episode.

    Attributes:
        frames (`dict[str, np.ndarray]`): see [`record_steps`].
        success (`bool`): the task has succeeded.
        ended (`bool`): it has, or the episode takes no more steps.
        observation ([`Observation`]): what is seen after the last step.
    """

    frames: dict[str, np.ndarray]
    success: bool
    ended: bool
    observation: Observation


class SimulationWorker:
    """Environments of some slots. Environments that no slot uses are kept for the next episode of their task.

    Args:
        environment (`str`): `"module:Class"`, see [`TableEntry`].
        num_slots (`int`): how many slots this worker serves; at most twice as many environments are kept.
        settings (`dict`): keyword arguments of the environment.
    """

    def __init__(self, environment: str, num_slots: int, settings: dict[str, Any]):
        self._environment = import_environment(environment)
        self._settings = settings
        self._max_idle = num_slots
        self._in_use: dict[int, Environment] = {}
        self._idle: list[Environment] = []

    def _take(self, task: str) -> Environment:
        for position, env in enumerate(self._idle):
            if env.task.name == task:
                return self._idle.pop(position)
        return self._environment(task, **self._settings)

    def _give_back(self, env: Environment) -> None:
        self._idle.append(env)
        if len(self._idle) > self._max_idle:
            self._idle.pop(0).close()

    def _observation(self, slot: int) -> Observation:
        env = self._in_use[slot]
        observation = env.observation()
        check_observation(observation, env.spec)
        return observation

    def start(self, slot: int, task: str, seed: int, executed: np.ndarray | None = None) -> Observation:
        """Begin an episode in `slot`, ending what was there, and repeat `executed` actions; returns what is seen then."""
        if slot in self._in_use:
            self._give_back(self._in_use.pop(slot))
        env = self._in_use[slot] = self._take(task)
        env.reset(seed)
        for action in () if executed is None else executed:
            env.step(action)
        return self._observation(slot)

    def advance(self, slot: int, actions: np.ndarray) -> StepOutcome:
        """Execute actions `(n, A)` until success or the end of the episode."""
        env = self._in_use[slot]
        for action in actions:
            if env.done:
                break
            env.step(action)
            if env.success:
                break
        return StepOutcome(env.success, env.success or env.done, env.num_steps, self._observation(slot))

    def finish_with_expert(self, slot: int) -> tuple[bool, int]:
        """Let the expert act until success or the end; returns success and steps so far."""
        env = self._in_use[slot]
        while not env.success and not env.done:
            env.step(env.expert_action())
        return env.success, env.num_steps

    def record(self, slot: int, actions: np.ndarray | None, steps_after_success: int) -> RecordedSteps:
        """Like `advance`, or with the expert's own actions until some steps after success, and every frame is kept."""
        env = self._in_use[slot]
        if actions is None:
            frames = record_steps(env, lambda wanted: wanted, steps_after_success=steps_after_success)
        else:
            remaining = iter(actions)
            frames = record_steps(env, lambda wanted: next(remaining), num_steps=len(actions))
        return RecordedSteps(frames, env.success, env.success or env.done, self._observation(slot))

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
