# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Worker processes that hold many environments, kept alive from the demonstrations to the last evaluation."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from .environment import EnvironmentSpec, Observation
from .environment_table import ENVIRONMENTS, find_environment
from .simulation_worker import RecordedSteps, StepOutcome
from .worker_process import SlotCall, WorkerProcess

SECONDS_BETWEEN_LOOKS = 1.0  # for workers that hang
LOSSES_PER_EPISODE = 2  # of its worker: after the first the episode is repeated, after the last it is given up


@dataclass(frozen=True)
class LostEnvironment:
    """Replaces a result: the environment failed, or its process died or hung again after a restart.

    Attributes:
        reason (`str`): what happened, with the traceback or the end of the worker's log.
    """

    reason: str


class LostEnvironmentError(RuntimeError):
    """An environment failed, or its process died or hung again after a restart."""


@dataclass
class _SlotHistory:
    """How the environment of a slot came into its state, so that another process can bring one there."""

    task: str
    seed: int
    executed: list[np.ndarray]
    losses: int = 0
    lost: LostEnvironment | None = None

    def start_call(self, slot: int) -> SlotCall:
        executed = np.concatenate(self.executed) if self.executed else None
        arguments = {"slot": slot, "task": self.task, "seed": self.seed, "executed": executed}
        return SlotCall("start", arguments, history=self)


class SimulationPool:
    """Runs environments in worker processes.

    Episodes run in *slots*. How many slots there are does not depend on the number of workers, and neither does
    which episode runs in which slot; so results do not depend on the machine's cores.

    A worker that dies, or gives no answer for `timeout`, is started again once for an episode: its environments are brought
    back to where they were by repeating their actions. What the episode's environment does next, it does as before.

    Use it as a context manager, or call [`~SimulationPool.close`].

    Args:
        environment (`str`): a key of `ENVIRONMENTS`, the table of environments.
        num_workers (`int`, *optional*): processes; default: one per core, at most one per slot.
        num_slots (`int`, *optional*, defaults to 16): episodes that run side by side, the batch of the policy in a rollout.
        timeout (`float`, *optional*, defaults to 600): seconds for one call of an environment, as its start or a chunk's steps.
        clock (`Callable[[], float]`, *optional*): seconds.
        settings: of the environment, the same for all episodes; for example those of [`MetaWorldEnv`].

    Attributes:
        spec ([`EnvironmentSpec`]): the environment under these settings.
        busy_seconds (`float`): in which workers worked, all of them together.

    Raises:
        ValueError: an unknown environment or setting, fewer than one worker or slot; and what the environment raises.
        ImportError: the simulator is not installed.
    """

    def __init__(
        self,
        environment: str,
        *,
        num_workers: int | None = None,
        num_slots: int = 16,
        timeout: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ):
        if num_slots < 1 or (num_workers is not None and num_workers < 1):
            raise ValueError(f"`num_workers` ({num_workers}) and `num_slots` ({num_slots}) must be 1 or more.")
        entry = find_environment(environment)
        self.spec: EnvironmentSpec = entry.describe(settings)
        self.num_slots = num_slots
        self.num_workers = min(num_workers or os.cpu_count(), num_slots)
        self.busy_seconds = 0.0
        self._timeout, self._clock = timeout, clock
        self._worker_arguments = {
            "environment": entry.environment,
            "num_slots": -(-self.num_slots // self.num_workers),
            # With what the environment chose here by itself, so that all workers have the same.
            "settings": settings | entry.settings_in(self.spec.conventions),
        }
        self._histories: dict[int, _SlotHistory] = {}
        self._answers: SimpleQueue = SimpleQueue()
        self._workers = [self._new_worker() for _ in range(self.num_workers)]

    @classmethod
    def of_recording(cls, conventions: Mapping[str, Any], **workers: Any) -> "SimulationPool":
        """The environment and settings under which a dataset was recorded.

        Args:
            conventions (`Mapping[str, Any]`): of the dataset.
            workers: `num_workers` and `num_slots`.

        Raises:
            ValueError: the dataset was not recorded in an environment of the table; and what the constructor raises.
        """
        if "simulator" not in conventions:
            raise ValueError(
                f"The dataset's conventions ({sorted(conventions)}) do not name a simulator: it was not recorded in an environment "
                f"of the table ({', '.join(ENVIRONMENTS)})."
            )
        environment = conventions["simulator"]
        return cls(environment, **workers, **find_environment(environment).settings_in(conventions))

    def start(self, episodes: Sequence[tuple[int, str, int]]) -> list[Observation]:
        """Begin one episode in each of some slots.

        Args:
            episodes: (slot, task, seed) triples.

        Returns:
            What is seen first, in the order of `episodes`.

        Raises:
            ValueError: an unknown task.
            LostEnvironmentError: an environment failed or was lost, here and in the other methods that return results.
        """
        return _kept(self.results(self.begin_start(episodes)))

    def begin_start(self, episodes: Sequence[tuple[int, str, int]]) -> list[SlotCall]:
        """As [`~SimulationPool.start`], without waiting; [`~SimulationPool.results`] waits."""
        names = ("slot", "task", "seed")
        return self._begin_start([dict(zip(names, episode, strict=True)) for episode in episodes])

    def restore(self, states: Sequence[tuple[int, str, int, np.ndarray]]) -> list[Observation]:
        """Bring some slots into states that were reached before, by repeating the actions that led there.

        Args:
            states: (slot, task, seed, executed actions `(n, A)`) tuples.

        Returns:
            What is seen then, in the order of `states`.

        Raises:
            ValueError: an unknown task.
        """
        names = ("slot", "task", "seed", "executed")
        return _kept(self.results(self._begin_start([dict(zip(names, state, strict=True)) for state in states])))

    def _begin_start(self, calls: list[dict[str, Any]]) -> list[SlotCall]:
        for arguments in calls:
            self.spec.task(arguments["task"])
        for arguments in calls:
            executed = arguments.get("executed")
            self._histories[arguments["slot"]] = _SlotHistory(
                arguments["task"], arguments["seed"], [] if executed is None else [executed]
            )
        return self._begin("start", calls)

    def finish_with_expert(self, slots: Sequence[int]) -> list[tuple[bool, int]]:
        """Let the expert act in some slots until success or the step limit: success and steps of the episode, each."""
        return _kept(self.results(self._begin("finish_with_expert", [{"slot": slot} for slot in slots])))

    def record(self, slots: Iterable[int], steps_after_success: int) -> list[RecordedSteps]:
        """Let the expert finish the episodes of some slots, and keep every frame.

        Args:
            slots: of the episodes.
            steps_after_success (`int`): how long the recording goes on after success.

        Returns:
            One for each slot.
        """
        calls = [{"slot": slot, "steps_after_success": steps_after_success} for slot in slots]
        return _kept(self.results(self._begin("record", calls)))

    def advance(self, steps: Sequence[tuple[int, np.ndarray]]) -> list[StepOutcome]:
        """Execute actions in some slots, all workers at the same time.

        Args:
            steps: (slot, actions `(n, A)`) pairs. Execution stops early at success and when the episode is done.

        Returns:
            One for each pair.
        """
        return _kept(self.results(self.begin_advance((slot, actions, 0) for slot, actions in steps)))

    def begin_advance(self, steps: Iterable[tuple[int, np.ndarray, int]]) -> list[SlotCall]:
        """As [`~SimulationPool.advance`], without waiting; [`~SimulationPool.results`] waits.

        Args:
            steps: (slot, actions `(n, A)`, `record_every`) triples; pictures of every so many steps are kept, and of the
                episode's last; of none with 0.
        """
        names = ("slot", "actions", "record_every")
        return self._begin("advance", [dict(zip(names, step, strict=True)) for step in steps])

    def expert_episodes(self, requests: Sequence[tuple[str, int]], noise: dict) -> Iterator[dict | None]:
        """Record experts; workers take requests as they become free, results come in the order of the requests.

        Args:
            requests: (task, seed) pairs.
            noise (`dict`): arguments of [`ExpertNoise`].

        Yields:
            Frames, or `None` for a failed episode; see [`record_expert_episode`].
        """
        calls = deque(
            SlotCall("expert_episode", {"task": task, "seed": seed, "noise": noise}) for task, seed in requests
        )
        waiting = calls.copy()
        while calls:
            call = calls.popleft()
            while not call.done:
                for worker in self._workers:
                    if waiting and not worker.calls:
                        worker.send(waiting.popleft())
                self._take_answer()
            yield _kept([call.result])[0]

    def results(self, calls: Sequence[SlotCall]) -> list[Any]:
        """Wait for calls.

        Returns:
            For each what it returned, or a [`LostEnvironment`].

        Raises:
            LostEnvironmentError: a worker cannot even be started.
        """
        while not all(call.done for call in calls):
            self._take_answer()
        return [call.result for call in calls]

    def _begin(self, method: str, calls: list[dict[str, Any]]) -> list[SlotCall]:
        begun = [SlotCall(method, arguments) for arguments in calls]
        for call in begun:
            if method in ("start", "advance"):
                call.history = self._histories.get(call.slot)
            else:
                # Where the expert leads cannot be repeated from the seed and the actions alone.
                self._histories.pop(call.slot, None)
            if call.history is not None and call.history.lost is not None:
                call.finish(call.history.lost)
            else:
                self._workers[call.slot % self.num_workers].send(call)
        return begun

    def _take_answer(self) -> None:
        worker, answer = self._next_answer()
        if answer is None:
            self._replace(worker)
            return
        call = worker.calls.popleft()
        result, error, seconds = answer
        self.busy_seconds += seconds
        if error is not None:
            self._give_up(call, LostEnvironment(f"An environment failed:\n{error}"))
            return
        call.finish(result)
        if call.method == "advance" and call.history is not None:
            call.history.executed.append(call.arguments["actions"])
            # Not if another episode has begun in the slot since.
            if result.ended and self._histories.get(call.slot) is call.history:
                del self._histories[call.slot]

    def _next_answer(self) -> tuple[WorkerProcess, Any]:
        while True:
            try:
                return self._answers.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                for worker in self._workers:
                    if worker.calls and self._clock() - worker.last_sign > self._timeout:
                        worker.stop(f"gave no answer for {self._timeout:g} seconds and was ended")

    def _replace(self, worker: WorkerProcess) -> None:
        """Start a worker again, bring its environments back to where they were, and repeat the calls that it left."""
        index = self._workers.index(worker)
        lost, left = LostEnvironment(worker.obituary()), deque(worker.calls)
        if not worker.has_started:
            raise LostEnvironmentError(f"The environment {self.spec.name!r} cannot be started. {lost.reason}")
        worker.close()
        self._workers[index] = self._new_worker()
        if left:
            history = left[0].history
            if history is not None:
                history.losses += 1
            if history is None or history.losses == LOSSES_PER_EPISODE:
                self._give_up(left.popleft(), lost)
        for call in left:
            if call.history is None or call.history.lost is not None:
                call.finish(lost)
        left = [call for call in left if not call.done]
        begun = {call.slot for call in left if call.method == "start"}
        for slot, history in self._histories.items():
            if slot % self.num_workers == index and slot not in begun and history.lost is None:
                self._workers[index].send(history.start_call(slot))
        for call in left:
            self._workers[index].send(call)

    def _give_up(self, call: SlotCall, lost: LostEnvironment) -> None:
        call.finish(lost)
        if call.history is not None:
            # Also for a call that follows, where this one only brought the environment back.
            call.history.lost = lost

    def _new_worker(self) -> WorkerProcess:
        return WorkerProcess(self._worker_arguments, self._answers, self._clock)

    def close(self) -> None:
        """End the workers. The pool cannot be used afterwards."""
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> "SimulationPool":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _kept(results: list[Any]) -> list[Any]:
    """Results, if no environment was lost."""
    for result in results:
        if isinstance(result, LostEnvironment):
            raise LostEnvironmentError(result.reason)
    return results


__all__ = ["LostEnvironment", "LostEnvironmentError", "SimulationPool"]
