# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What runs inside a worker process of [`SimulationPool`]: several environments that obey messages.

This module and all that it imports must stay free of torch and transformers: the pool starts it without running the
package's own `__init__`, which keeps a worker small and quick to start.
"""

import contextlib
import signal
import time
import traceback
from dataclasses import dataclass, field
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
        frames (`list[np.ndarray]`): pictures of the first camera, uint8 `(height, width, 3)`, that were asked for: at every so many
            steps of the episode, and at its end.
    """

    success: bool
    ended: bool
    num_steps: int
    observation: Observation
    frames: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class RecordedSteps:
    """The expert's part of an episode.

    Attributes:
        frames (`dict[str, np.ndarray]`): see [`record_steps`].
        success (`bool`): the task has succeeded.
        observation ([`Observation`]): what is seen after the last step.
    """

    frames: dict[str, np.ndarray]
    success: bool
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

    def advance(self, slot: int, actions: np.ndarray, record_every: int = 0) -> StepOutcome:
        """Execute actions `(n, A)` until success or the end of the episode."""
        env = self._in_use[slot]
        frames, seen = [], None
        for action in actions:
            if env.done:
                break
            env.step(action)
            # Drawn once, also where the last step is one whose picture is kept.
            seen = self._observation(slot) if record_every and env.num_steps % record_every == 0 else None
            if seen is not None:
                frames.append(seen.first_image)
            if env.success:
                break
        ended = env.success or env.done
        if seen is None:
            seen = self._observation(slot)
            if record_every and ended:
                frames.append(seen.first_image)
        return StepOutcome(env.success, ended, env.num_steps, seen, frames)

    def forget(self, slot: int | None) -> None:
        """Give up the environment of `slot`, after an error in it."""
        env = self._in_use.pop(slot, None)
        if env is not None:
            with contextlib.suppress(Exception):
                env.close()

    def close(self) -> None:
        """Close all environments, as some simulators want it before the process ends."""
        for slot in list(self._in_use):
            self.forget(slot)
        for env in self._idle:
            with contextlib.suppress(Exception):
                env.close()

    def finish_with_expert(self, slot: int) -> tuple[bool, int]:
        """Let the expert act until success or the end; returns success and steps so far."""
        env = self._in_use[slot]
        while not env.success and not env.done:
            env.step(env.expert_action())
        return env.success, env.num_steps

    def record(self, slot: int, steps_after_success: int) -> RecordedSteps:
        """Let the expert act until some steps after success or the end, and keep every frame."""
        env = self._in_use[slot]
        frames = record_steps(env, lambda wanted: wanted, steps_after_success=steps_after_success)
        return RecordedSteps(frames, env.success, self._observation(slot))

    def expert_episode(self, task: str, seed: int, noise: dict) -> dict[str, np.ndarray] | None:
        """See [`record_expert_episode`]."""
        env = self._take(task)
        frames = record_expert_episode(env, seed, ExpertNoise(**noise))
        self._give_back(env)
        return frames


def serve(file_descriptor: int) -> None:
    """Answer calls until there are no more.

    The first message says that the environment could be imported. A call is a method with its keyword arguments, the answer
    `(result, None, seconds)` or `(None, traceback, seconds)`. `None` in place of a call, or the end of the connection, ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    connection = Connection(file_descriptor)
    worker = SimulationWorker(**connection.recv())
    with contextlib.closing(worker), contextlib.suppress(EOFError, BrokenPipeError):
        connection.send("started")
        while (call := connection.recv()) is not None:
            method, arguments = call
            result = error = None
            start = time.perf_counter()
            try:
                result = getattr(worker, method)(**arguments)
            except Exception:
                error = traceback.format_exc()
                worker.forget(arguments.get("slot"))
            connection.send((result, error, time.perf_counter() - start))


__all__ = ["SimulationWorker", "serve"]
