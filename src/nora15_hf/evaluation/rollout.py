# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop episodes of a policy, many side by side, one batched policy call per round."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from tqdm.auto import tqdm

from ..simulation.environment import Observation
from ..simulation.simulation_pool import LostEnvironment, LostEnvironmentError, SimulationPool
from ..simulation.worker_process import SlotCall
from .episodes import Episode, EpisodeResult, Failure
from .lockstep import ChunkPolicy, DrivenEpisode, ask, require_finite
from .throughput import Throughput


@dataclass
class _Running(DrivenEpisode):
    """An episode in its slot; of one that was finished before, `earlier` is the result, and only its place is kept."""

    position: int
    episode: Episode
    instruction: str
    frames: list[np.ndarray] = field(default_factory=list)
    num_steps: int = 0
    earlier: EpisodeResult | None = None

    def look(self, observation: Observation) -> None:
        """Take an observation, with the instruction for the policy."""
        self.observation = replace(observation, instruction=self.instruction)


@dataclass
class _Group:
    """Slots that the policy is asked for together."""

    slots: range
    running: dict[int, _Running] = field(default_factory=dict)
    moving: dict[int, SlotCall] = field(default_factory=dict)


class _Schedule:
    """Which episode a free slot takes: of its own task while there are any, else of the task with most left.

    Slots are shared out over the tasks, so that an environment seldom has to be built for another task; and nothing
    but the episodes' lengths enters, so that the same policy meets the same batches in every run.
    """

    def __init__(self, episodes: Sequence[Episode]):
        self._left: dict[str, deque[tuple[int, Episode]]] = {}
        for position, episode in enumerate(episodes):
            self._left.setdefault(episode.task, deque()).append((position, episode))
        self._tasks = list(self._left)

    @property
    def has_more(self) -> bool:
        return any(self._left.values())

    def take(self, slot: int) -> tuple[int, Episode] | None:
        own = self._tasks[slot % len(self._tasks)]
        if not self._left[own]:
            own = max(self._tasks, key=lambda task: len(self._left[task]))
        return self._left[own].popleft() if self._left[own] else None


class _Rollout:
    """What [`rollout`] does, with its arguments."""

    def __init__(
        self,
        policy: ChunkPolicy,
        episodes: Sequence[Episode],
        pool: SimulationPool,
        n_action_steps: int,
        finished: Mapping[int, EpisodeResult],
        on_result: Callable[[int, EpisodeResult], None],
        max_lost: int,
        end_invalid: bool,
        throughput: Throughput,
        bar: tqdm,
    ):
        self.policy, self.pool, self.n_action_steps = policy, pool, n_action_steps
        self.on_result, self.max_lost, self.end_invalid = on_result, max_lost, end_invalid
        self.throughput, self.bar = throughput, bar
        self.results = dict(finished)
        self.num_successes, self.num_lost = sum(result.success for result in finished.values()), 0
        self._earlier = finished
        self._schedule = _Schedule(episodes)
        self._start, self._busy_before = throughput.clock(), pool.busy_seconds

    def run(self, num_groups: int) -> None:
        bounds = [self.pool.num_slots * number // num_groups for number in range(num_groups + 1)]
        groups = [_Group(range(*pair)) for pair in pairwise(bounds)]
        while groups:
            groups = [group for group in groups if self._turn(group)]

    def _turn(self, group: _Group) -> bool:
        """Reads the results of the group's simulators, predicts, and lets them move on; false if nothing is left to do."""
        self._take_outcomes(group)
        self._fill_free_slots(group)
        if all(run.earlier is not None for run in group.running.values()):
            for run in group.running.values():
                run.replan += 1
        else:
            self._ask(group)
        return bool(group.running) or self._schedule.has_more

    def _take_outcomes(self, group: _Group) -> None:
        outcomes = self.pool.results(list(group.moving.values()))
        for slot, outcome in zip(group.moving, outcomes, strict=True):
            run = group.running[slot]
            if isinstance(outcome, LostEnvironment):
                self._end(group, slot, Failure.ENVIRONMENT_LOST, outcome.reason)
                continue
            run.num_steps = outcome.num_steps
            run.frames += outcome.frames
            run.look(outcome.observation)
            if outcome.ended:
                self._end(group, slot, None if outcome.success else Failure.NOT_DONE)
        group.moving = {}
        for slot, run in list(group.running.items()):
            if run.earlier is not None and run.replan == run.earlier.num_looks:
                del group.running[slot]
        self._show()

    def _fill_free_slots(self, group: _Group) -> None:
        # Again, as long as environments are lost when they are started.
        while taken := self._take_episodes(group):
            started = {slot: item for slot, item in taken.items() if item[0] not in self._earlier}
            calls = self.pool.begin_start(
                [(slot, episode.task, episode.seed) for slot, (_, episode) in started.items()]
            )
            seen = dict(zip(started, self.pool.results(calls), strict=True))
            for slot, (position, episode) in taken.items():
                earlier, observation = self._earlier.get(position), seen.get(slot)
                known = (
                    self.pool.spec.task(episode.task)
                    if isinstance(observation, LostEnvironment)
                    else earlier or observation
                )
                instruction = known.instruction if episode.instruction is None else episode.instruction
                run = _Running(observation, (episode.seed,), position, episode, instruction, earlier=earlier)
                group.running[slot] = run
                if isinstance(observation, LostEnvironment):
                    self._end(group, slot, Failure.ENVIRONMENT_LOST, observation.reason)
                elif earlier is None:
                    run.look(observation)
                    run.frames += [observation.first_image] * bool(episode.record_every)

    def _take_episodes(self, group: _Group) -> dict[int, tuple[int, Episode]]:
        free = [slot for slot in group.slots if slot not in group.running]
        return {slot: item for slot in free if (item := self._schedule.take(slot)) is not None}

    def _ask(self, group: _Group) -> None:
        slots = sorted(group.running)
        runs = [group.running[slot] for slot in slots]
        # The batch is the one of a run without interruption, in size and length: equal operations, equal rounding. What is in
        # the rows of finished episodes does not matter.
        seen = next(run.observation for run in runs if run.earlier is None)
        for run in runs:
            if run.earlier is not None:
                run.look(seen)
        with self.throughput.asking():
            actions = ask(self.policy, runs, n_action_steps=self.n_action_steps, action_dim=self.pool.spec.action_dim)
        steps = []
        for slot, run, chunk in zip(slots, runs, actions, strict=True):
            if run.earlier is not None:
                continue
            if self.end_invalid and not np.isfinite(chunk).all():
                self._end(group, slot, Failure.INVALID_ACTIONS)
                continue
            require_finite(chunk)
            steps.append((slot, chunk, run.episode.record_every))
        group.moving = dict(zip((slot for slot, _, _ in steps), self.pool.begin_advance(steps), strict=True))

    def _end(self, group: _Group, slot: int, failure: Failure | None, log: str = "") -> None:
        run = group.running.pop(slot)
        result = EpisodeResult(
            run.episode.task,
            run.episode.seed,
            run.instruction,
            success=failure is None,
            num_steps=run.num_steps,
            frames=run.frames,
            num_looks=run.replan,
            failure=failure,
            log=log,
        )
        self.results[run.position] = result
        self.throughput.episodes += 1
        self.on_result(run.position, result)
        self.bar.update()
        self.num_successes += result.success
        self.num_lost += not result.counts
        if self.num_lost > self.max_lost:
            raise LostEnvironmentError(
                f"{self.num_lost} of {len(self.results)} episodes could not be run, the last of them {result.task!r} with seed "
                f"{result.seed}. {log}"
            )

    def _show(self) -> None:
        throughput = self.throughput
        throughput.seconds = throughput.clock() - self._start
        throughput.simulator_seconds = self.pool.busy_seconds - self._busy_before
        counted = len(self.results) - self.num_lost
        rate = f" = {self.num_successes / counted:.0%}" if counted else ""
        self.bar.set_postfix_str(
            f"success {self.num_successes}/{counted}{rate}, busy: policy {throughput.policy_utilization:.0%}, simulators "
            f"{throughput.simulator_utilization:.0%}"
        )


def rollout(
    policy: ChunkPolicy,
    episodes: Sequence[Episode],
    pool: SimulationPool,
    *,
    n_action_steps: int = 5,
    num_groups: int = 1,
    finished: Mapping[int, EpisodeResult] | None = None,
    on_result: Callable[[int, EpisodeResult], None] = lambda position, result: None,
    max_lost: int = 0,
    end_invalid: bool = False,
    throughput: Throughput | None = None,
    progress: bool = True,
) -> list[EpisodeResult]:
    """Run episodes in lockstep: what is seen in all live slots goes through the policy at once, then all simulators move.

    Which episodes share a batch depends on nothing but the episodes' lengths, also after an interruption: the same policy
    gives the same results in every run.

    Args:
        policy (`ChunkPolicy`): `(observations, noise keys) -> actions (B, H, A)` in physical units; a noise key is
            `(episode seed, replan index)`.
        episodes (`Sequence[Episode]`): what to run.
        pool ([`SimulationPool`]): where to run it; its conventions belong to the result.
        n_action_steps (`int`, defaults to 5): actions of a chunk that are executed before the policy looks again.
        num_groups (`int`, defaults to 1): with 2, half of the slots move while the policy looks at the other half; worth it
            where the policy does not take the simulators' CPUs.
        finished (`Mapping[int, EpisodeResult]`, *optional*): results that an interrupted run has left, by position in `episodes`.
        on_result (`Callable[[int, EpisodeResult], None]`, *optional*): is told every new result with its position.
        max_lost (`int`, defaults to 0): environments that may be lost; with more the rollout ends with an error.
        end_invalid (`bool`, defaults to `False`): an episode fails whose policy returns numbers that are not finite, as for
            FAST tokens that spell no chunk; by default that is an error.
        throughput ([`Throughput`], *optional*): is filled.
        progress (`bool`, defaults to `True`): show a progress bar.

    Returns:
        `list[EpisodeResult]`: in the order of `episodes`; an episode ends at its first success or at the step limit.

    Raises:
        ValueError: no episodes, an unknown task, and what [`ask`] refuses.
        LostEnvironmentError: more than `max_lost` environments failed, or died or hung twice.
    """
    if not episodes:
        raise ValueError("`episodes` is empty: give at least one Episode(task, seed).")
    for episode in episodes:
        pool.spec.task(episode.task)
    throughput = throughput or Throughput()
    throughput.num_workers = pool.num_workers
    finished = finished or {}
    with tqdm(total=len(episodes), initial=len(finished), desc="episodes", disable=not progress) as bar:
        state = _Rollout(
            policy, episodes, pool, n_action_steps, finished, on_result, max_lost, end_invalid, throughput, bar
        )
        state.run(num_groups)
    return [state.results[position] for position in range(len(episodes))]


__all__ = ["rollout"]
