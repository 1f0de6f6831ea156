# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Worker processes that hold many environments, kept alive from the demonstrations to the last evaluation."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from .metaworld_env import simulator_conventions
from .metaworld_tasks import get_task
from .renderers import available_renderer

# The worker imports this folder as a package of its own, so that nora15_hf/__init__ (torch, transformers: seconds and
# hundreds of MB per process) is not run. The search path is cleaned afterwards: our folder names are common words.
_START_WORKER = """
import sys
sys.path.insert(0, {package!r})
from simulation.simulation_worker import serve
sys.path.remove({package!r})
serve({file_descriptor})
"""


class SimulationPool:
    """Runs environments in worker processes.

    Episodes run in *slots*. How many slots there are does not depend on the number of workers, and neither does
    which episode runs in which slot; so results do not depend on the machine's cores.

    Use it as a context manager, or call [`~SimulationPool.close`].

    Args:
        num_workers (`int`, *optional*): processes; default: one per core, at most one per slot.
        num_slots (`int`, defaults to 16): episodes that run side by side, the batch of the policy in a rollout.
        image_size, renderer, max_steps, show_goal: see [`MetaWorldEnv`]; the same for all environments.

    Raises:
        ValueError: fewer than one worker or slot; and what [`available_renderer`] raises.
    """

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        num_slots: int = 16,
        image_size: int = 84,
        renderer: str = "auto",
        max_steps: int = 150,
        show_goal: bool = False,
    ):
        if num_slots < 1 or (num_workers is not None and num_workers < 1):
            raise ValueError(f"`num_workers` ({num_workers}) and `num_slots` ({num_slots}) must be 1 or more.")
        self.num_slots = num_slots
        self.num_workers = min(num_workers or os.cpu_count(), num_slots)
        self.max_steps = max_steps
        self._settings = {
            "image_size": image_size,
            "renderer": available_renderer(renderer),
            "max_steps": max_steps,
            "show_goal": show_goal,
        }
        self._conventions = simulator_conventions(**self._settings)
        self._workers: list[subprocess.Popen] = []
        self._connections: list[Connection] = []
        for _ in range(self.num_workers):
            self._start_worker()

    def _start_worker(self) -> None:
        ours, theirs = Pipe()
        code = _START_WORKER.format(package=str(Path(__file__).resolve().parents[1]), file_descriptor=theirs.fileno())
        single_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        quiet = {"PYTHONWARNINGS": "ignore::UserWarning"}  # the experts warn at every step that their action is large
        worker = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | single_thread | quiet, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._workers.append(worker)
        self._connections.append(ours)
        ours.send({"num_slots": -(-self.num_slots // self.num_workers), "settings": self._settings})

    def conventions(self) -> dict:
        """Everything about the simulation that moves success rates; see [`simulator_conventions`]."""
        return dict(self._conventions)

    def start(self, episodes: Sequence[tuple[int, str, int]]) -> list[np.ndarray]:
        """Begin one episode in each of some slots.

        Args:
            episodes: (slot, task, seed) triples.

        Returns:
            The first images, uint8 `(size, size, 3)`, in the order of `episodes`.
        """
        return self._call_slots(
            "start", [{"slot": slot, "task": get_task(task).name, "seed": seed} for slot, task, seed in episodes]
        )

    def restore(self, states: Sequence[tuple[int, str, int, np.ndarray]]) -> list[np.ndarray]:
        """Bring some slots into states that were reached before, by repeating the actions that led there.

        Args:
            states: (slot, task, seed, executed actions `(n, 4)`) tuples.

        Returns:
            The images then, uint8 `(size, size, 3)`, in the order of `states`.
        """
        return self._call_slots(
            "start",
            [
                {"slot": slot, "task": get_task(task).name, "seed": seed, "executed": executed}
                for slot, task, seed, executed in states
            ],
        )

    def finish_with_expert(self, slots: Sequence[int]) -> list[tuple[bool, int]]:
        """Let the expert act in some slots until success or the step limit: success and steps of the episode, each."""
        return self._call_slots("finish_with_expert", [{"slot": slot} for slot in slots])

    def record(
        self, steps: Sequence[tuple[int, np.ndarray | None]], steps_after_success: int
    ) -> list[dict[str, np.ndarray]]:
        """Execute actions in some slots, or let the expert act (`None`), and keep every frame with the expert's wish.

        Args:
            steps: (slot, actions `(n, 4)` or `None`) pairs. Given actions end at success, the expert's some steps later.
            steps_after_success (`int`): how many.

        Returns:
            For each pair the frames as [`record_expert_episode`] returns them, `success` so far, and `next_image`.
        """
        return self._call_slots(
            "record",
            [
                {"slot": slot, "actions": actions, "steps_after_success": steps_after_success}
                for slot, actions in steps
            ],
        )

    def advance(self, steps: Sequence[tuple[int, np.ndarray]]) -> list[tuple[bool, int, np.ndarray]]:
        """Execute actions in some slots, all workers at the same time.

        Args:
            steps: (slot, actions `(n, 4)`) pairs. Execution stops early at success and at the step limit.

        Returns:
            For each pair: whether the task has succeeded, steps of the episode so far, and the image then.
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


__all__ = ["SimulationPool"]
