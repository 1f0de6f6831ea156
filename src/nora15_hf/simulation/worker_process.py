# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A process of [`SimulationPool`] from the outside: its start, its answers, and what remains when it dies."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

# The worker gets a package `nora15_hf` whose __init__ is not run, since that would import torch and transformers: seconds
# and hundreds of MB per process. Its search path is this process's, so that it finds an environment wherever this process
# found it.
_START_WORKER = """
import faulthandler, sys, types
faulthandler.enable()
sys.path[:] = {search_path!r}
package = sys.modules["nora15_hf"] = types.ModuleType("nora15_hf")
package.__path__ = [{package!r}]
from nora15_hf.simulation.simulation_worker import serve
serve({file_descriptor})
"""
LOG_LINES = 40


@dataclass(eq=False)
class SlotCall:
    """A call of a method of [`SimulationWorker`], and what came of it.

    Attributes:
        method (`str`), arguments (`dict[str, Any]`): what is called.
        result: what it returned, or a [`LostEnvironment`]; `None` until it is `done`.
        done (`bool`): there is a result.
        history: of its slot when it was called, for the pool.
    """

    method: str
    arguments: dict[str, Any]
    result: Any = None
    done: bool = False
    history: Any = None

    @property
    def slot(self) -> int | None:
        return self.arguments.get("slot")

    def finish(self, result: Any) -> None:
        self.result, self.done = result, True


class WorkerProcess:
    """
    Starts at once. A thread takes its answers, so that it never waits for a busy parent to read them.

    Args:
        arguments (`dict[str, Any]`): Of [`SimulationWorker`].
        answers (`SimpleQueue`): Gets `(worker, answer)` pairs, in the order of the calls, and `(worker, None)` at its end.
        clock (`Callable[[], float]`): Seconds.

    Attributes:
        calls (`deque[SlotCall]`): Those without an answer, the oldest first.
        has_started (`bool`): It could import its environment.
        last_sign (`float`): When it last answered, or was given a call while it had none.
        stopped_because (`str`, *optional*): Why it was stopped from here.
    """

    def __init__(self, arguments: dict[str, Any], answers: SimpleQueue, clock: Callable[[], float] = time.monotonic):
        self.calls: deque[SlotCall] = deque()
        self.has_started = False
        self.last_sign = clock()
        self.stopped_because: str | None = None
        self._clock = clock
        self._log, path = tempfile.mkstemp()
        os.unlink(path)
        self._connection, theirs = Pipe()
        code = _START_WORKER.format(
            package=str(Path(__file__).resolve().parents[1]), search_path=sys.path, file_descriptor=theirs.fileno()
        )
        single_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        quiet = {"PYTHONWARNINGS": "ignore::UserWarning"}  # Meta-World's experts, at every step: their action is large
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | single_thread | quiet,
            pass_fds=[theirs.fileno()],
            stdout=self._log,
            stderr=self._log,
        )
        theirs.close()
        with contextlib.suppress(OSError):
            self._connection.send(arguments)
        self._reader = Thread(target=self._read, args=(answers,), daemon=True)
        self._reader.start()

    def _read(self, answers: SimpleQueue) -> None:
        try:
            self._connection.recv()
            self.has_started = True
            while True:
                answer = self._connection.recv()
                self.last_sign = self._clock()
                answers.put((self, answer))
        except (EOFError, OSError):
            answers.put((self, None))

    def send(self, call: SlotCall) -> None:
        """Sends it a call. If the process has ended, this call is not answered either."""
        if not self.calls:
            self.last_sign = self._clock()
        self.calls.append(call)
        with contextlib.suppress(OSError):
            self._connection.send((call.method, call.arguments))

    def stop(self, reason: str) -> None:
        """Ends a worker that hangs; first it writes into its log where it was."""
        self.stopped_because = reason
        self.process.send_signal(signal.SIGABRT)
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def obituary(self) -> str:
        """How it ended, and the last lines of its log."""
        code = self.process.wait(timeout=10)
        how = self.stopped_because or (
            f"ended unexpectedly (exit code {code}; -9 means killed, usually for lack of memory: use fewer slots or workers)"
        )
        return f"A simulation worker {how}. Its log:\n{self.log_tail()}"

    def log_tail(self) -> str:
        """The last lines that it wrote to its standard output and error."""
        # Not `seek`: parent and child share the position in the file.
        size = os.fstat(self._log).st_size
        lines = os.pread(self._log, size, 0).decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:]) or "(empty)"

    def ask_to_end(self) -> None:
        """Has it end after the calls that it has."""
        with contextlib.suppress(OSError):
            self._connection.send(None)

    def close(self) -> None:
        """Waits some seconds for its end, then ends it."""
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._connection.close()
        os.close(self._log)


__all__ = ["SlotCall", "WorkerProcess"]
