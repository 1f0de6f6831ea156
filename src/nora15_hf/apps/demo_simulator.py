# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A simulator that many visitors of a page share: each state is named by its task, its seed and what was executed since."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..preferences.simulator_states import SimulatorState
from ..simulation.environment import Observation
from ..simulation.simulation_pool import LostEnvironment, LostEnvironmentError, SimulationPool
from .ranked_policy import RankedPolicy

STEPS_AFTER_SUCCESS = 8
"""Of the expert before the goal's picture is taken; demonstrations end like this, too."""


@dataclass(frozen=True)
class Film:
    """
    What was seen while chunks were executed.

    Attributes:
        frames (`list[np.ndarray]`): Of the first camera, one per control step from the first state on, uint8 `(height, width, 3)`.
        state ([`SimulatorState`]): Where it ends.
        observation ([`Observation`]): What is seen there.
        success (`bool`), ended (`bool`): The task has succeeded; it has, or the episode takes no more steps.
    """

    frames: list[np.ndarray]
    state: SimulatorState
    observation: Observation
    success: bool
    ended: bool


class DemoSimulator:
    """
    A simulator for a page.

    Args:
        pool ([`SimulationPool`]): With one slot.
    """

    def __init__(self, pool: SimulationPool):
        self._pool = pool
        self.spec = pool.spec

    def beginning(self, task: str, seed: int) -> SimulatorState:
        """The first state of an episode."""
        self.spec.task(task)
        return SimulatorState(task, seed, np.zeros((0, self.spec.action_dim), dtype=np.float32))

    def look(self, state: SimulatorState) -> Observation:
        """What is seen in a state."""
        (observation,) = self._pool.restore([(0, state.task, state.seed, state.executed)])
        return observation

    def goal_picture(self, task: str, seed: int, camera: str) -> np.ndarray | None:
        """What a camera sees when the scripted expert has done the task; `None` without an expert, or where it fails."""
        if not self.spec.has_expert:
            return None
        self._pool.start([(0, task, seed)])
        (episode,) = self._pool.record([0], STEPS_AFTER_SUCCESS)
        return episode.observation.images[camera] if episode.success else None

    def drive(
        self,
        ranked: RankedPolicy,
        state: SimulatorState,
        instruction: str,
        goal: np.ndarray | None,
        *,
        num_candidates: int,
        num_chunks: int,
        draw: int = 0,
    ) -> Iterator[Film]:
        """
        Executes the best of several chunks, looks, draws and ranks again, and so on until success or the end.

        Args:
            ranked ([`RankedPolicy`]): Who draws and ranks.
            state ([`SimulatorState`]): Where to begin.
            instruction (`str`), goal (`np.ndarray`, *optional*), num_candidates (`int`): See [`RankedPolicy.propose`].
            num_chunks (`int`): How many chunks are executed at most.
            draw (`int`, *optional*, defaults to 0): Which of the possible draws of noise; see [`noise_key`].

        Yields:
            [`Film`]: All that has been seen so far, after every chunk.

        Raises:
            LostEnvironmentError: The simulator failed.
        """
        observation = self.look(state)
        frames = [observation.first_image]
        for _ in range(num_chunks):
            seen = Observation(observation.images, observation.state, instruction)
            best = ranked.propose(seen, goal, num_candidates, noise_key(state, draw)).best
            best = best[: self.spec.n_action_steps]
            (outcome,) = self._pool.results(self._pool.begin_advance([(0, best, 1)]))
            if isinstance(outcome, LostEnvironment):
                raise LostEnvironmentError(outcome.reason)
            done = best[: outcome.num_steps - len(state.executed)]
            state = SimulatorState(state.task, state.seed, np.concatenate([state.executed, done]))
            observation = outcome.observation
            frames = frames + outcome.frames
            yield Film(frames, state, observation, outcome.success, outcome.ended)
            if outcome.ended:
                return


def noise_key(state: SimulatorState, draw: int) -> tuple[int, ...]:
    """What the noise of a state's chunks depends on."""
    return (state.seed, len(state.executed), draw)


__all__ = ["DemoSimulator", "Film", "noise_key"]
