# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Worker processes that hold many environments, kept alive from the demonstrations to the last evaluation."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from .environment import EnvironmentSpec, Observation
from .environment_table import ENVIRONMENTS, find_environment, import_environment
from .simulation_worker import RecordedSteps, StepOutcome

# The worker gets a package `nora15_hf` whose __init__ is not run, since that would import torch and transformers: seconds
# and hundreds of MB per process. Its search path is this process's, so that it finds an environment wherever this process
# found it.
_START_WORKER = """
import sys, types
sys.path[:] = {search_path!r}
package = sys.modules["nora15_hf"] = types.ModuleType("nora15_hf")
package.__path__ = [{package!r}]
from nora15_hf.simulation.simulation_worker import serve
serve({file_descriptor})
"""


class SimulationPool:
    """Runs environments in worker processes.

    Episodes run in *slots*. How many slots there are does not depend on the number of workers, and neither does
    which episode runs in which slot; so results do not depend on the machine's cores.

    Use it as a context manager, or call [`~SimulationPool.close`].

    Args:
        environment (`str`): a key of `ENVIRONMENTS`, the table of environments.
        num_workers (`int`, *optional*): processes; default: one per core, at most one per slot.
        num_slots (`int`, *optional*, defaults to 16): episodes that run side by side, the batch of the policy in a rollout.
        settings: of the environment, the same for all episodes; for example those of [`MetaWorldEnv`].

    Attributes:
        spec ([`EnvironmentSpec`]): the environment under these settings.

    Raises:
        ValueError: an unknown environment, fewer than one worker or slot; and what the environment raises.
        ImportError: the simulator is not installed.
    """

    def __init__(self, environment: str, *, num_workers: int | None = None, num_slots: int = 16, **settings: Any):
        if num_slots < 1 or (num_workers is not None and num_workers < 1):
            raise ValueError(f"`num_workers` ({num_workers}) and `num_slots` ({num_slots}) must be 1 or more.")
        path = find_environment(environment).environment
        describe = import_environment(path).describe
        self.spec: EnvironmentSpec = describe(**settings)
        self.num_slots = num_slots
        self.num_workers = min(num_workers or os.cpu_count(), num_slots)
        self._worker_arguments = {
            "environment": path,
            "num_slots": -(-self.num_slots // self.num_workers),
            # With what the environment chose here by itself, so that all workers have the same.
            "settings": settings | _settings_in(self.spec.conventions, describe),
        }
        self._workers: list[subprocess.Popen] = []
        self._connections: list[Connection] = []
        for _ in range(self.num_workers):
            self._start_worker()

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
                f"The dataset's conventions ({sorted(conventions)}) name no simulator: it was not recorded in an environment "
                f"of the table ({', '.join(ENVIRONMENTS)})."
            )
        environment = conventions["simulator"]
        describe = import_environment(find_environment(environment).environment).describe
        return cls(environment, **workers, **_settings_in(conventions, describe))

    def _start_worker(self) -> None:
        ours, theirs = Pipe()
        code = _START_WORKER.format(
            package=str(Path(__file__).resolve().parents[1]), search_path=sys.path, file_descriptor=theirs.fileno()
        )
        single_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        quiet = {"PYTHONWARNINGS": "ignore::UserWarning"}  # Meta-World's experts, at every step: their action is large
        worker = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | single_thread | quiet, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._workers.append(worker)
        self._connections.append(ours)
        ours.send(self._worker_arguments)

    def start(self, episodes: Sequence[tuple[int, str, int]]) -> list[Observation]:
        """Begin one episode in each of some slots.

        Args:
            episodes: (slot, task, seed) triples.

        Returns:
            What is seen first, in the order of `episodes`.

        Raises:
            ValueError: an unknown task.
        """
        return self._start([{"slot": slot, "task": task, "seed": seed} for slot, task, seed in episodes])

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
        return self._start([dict(zip(names, state, strict=True)) for state in states])

    def _start(self, calls: list[dict]) -> list[Observation]:
        for arguments in calls:
            self.spec.task(arguments["task"])
        return self._call_slots("start", calls)

    def finish_with_expert(self, slots: Sequence[int]) -> list[tuple[bool, int]]:
        """Let the expert act in some slots until success or the step limit: success and steps of the episode, each."""
        return self._call_slots("finish_with_expert", [{"slot": slot} for slot in slots])

    def record(self, steps: Sequence[tuple[int, np.ndarray | None]], steps_after_success: int) -> list[RecordedSteps]:
        """Execute actions in some slots, or let the expert act (`None`), and keep every frame with the expert's wish.

        Args:
            steps: (slot, actions `(n, A)` or `None`) pairs. Given actions end at success, the expert's some steps later.
            steps_after_success (`int`): how many.

        Returns:
            One for each pair.
        """
        return self._call_slots(
            "record",
            [
                {"slot": slot, "actions": actions, "steps_after_success": steps_after_success}
                for slot, actions in steps
            ],
        )

    def advance(self, steps: Sequence[tuple[int, np.ndarray]]) -> list[StepOutcome]:
        """Execute actions in some slots, all workers at the same time.

        Args:
            steps: (slot, actions `(n, A)`) pairs. Execution stops early at success and when the episode is done.

        Returns:
            One for each pair.
        """
        return self._call_slots("advance", [{"slot": slot, "actions": actions} for slot, actions in steps])

    def expert_episodes(self, requests: Sequence[tuple[str, int]], noise: dict) -> Iterator[dict | None]:
        """Record experts; workers take requests as they become free, results come in the order of the requests.

        Args:
            requests: (task, seed) pairs.
            noise (`dict`): arguments of [`ExpertNoise`].

        Yields:
            Frames, or `None` for a failed episode; see [`record_expert_episode`].
        """
        waiting = list(enumerate(requests))[::-1]
        busy: dict[Connection, int] = {}
        finished: dict[int, dict | None] = {}
        for position in range(len(requests)):
            while position not in finished:
                for connection in self._connections:
                    if connection not in busy and waiting:
                        index, (task, seed) = waiting.pop()
                        self._send(connection, [("expert_episode", {"task": task, "seed": seed, "noise": noise})])
                        busy[connection] = index
                for connection in wait(list(busy)):
                    [finished[busy.pop(connection)]] = self._receive(connection)
            yield finished.pop(position)

    def _call_slots(self, method: str, calls: list[dict]) -> list:
        by_worker: dict[Connection, list[int]] = {}
        for position, arguments in enumerate(calls):
            connection = self._connections[arguments["slot"] % self.num_workers]
            by_worker.setdefault(connection, []).append(position)
        for connection, positions in by_worker.items():
            self._send(connection, [(method, calls[position]) for position in positions])
        results = [None] * len(calls)
        for connection, positions in by_worker.items():
            for position, result in zip(positions, self._receive(connection), strict=True):
                results[position] = result
        return results

    def _send(self, connection: Connection, calls: list[tuple[str, dict]]) -> None:
        try:
            connection.send(calls)
        except BrokenPipeError:
            raise self._lost(connection) from None

    def _receive(self, connection: Connection) -> list:
        try:
            outcome, content = connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._lost(connection) from None
        if outcome == "failed":
            raise RuntimeError(f"A simulation worker failed:\n{content}")
        return content

    def _lost(self, connection: Connection) -> RuntimeError:
        worker = self._workers[self._connections.index(connection)]
        return RuntimeError(
            f"A simulation worker ended unexpectedly (exit code {worker.wait(timeout=10)}; -9 means killed, usually for "
            "lack of memory: use fewer `num_slots` or `num_workers`). Its own message is above. Make a new pool."
        )

    def close(self) -> None:
        """End the workers. The pool cannot be used afterwards."""
        for connection in self._connections:
            connection.close()
        for worker in self._workers:
            try:
                worker.wait(timeout=10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def __enter__(self) -> "SimulationPool":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _settings_in(conventions: Mapping[str, Any], describe: Callable[..., EnvironmentSpec]) -> dict[str, Any]:
    """An environment's settings out of conventions, which hold each under its own name."""
    return {name: conventions[name] for name in signature(describe).parameters if name in conventions}


__all__ = ["SimulationPool"]
