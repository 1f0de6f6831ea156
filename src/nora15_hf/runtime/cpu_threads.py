# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How many threads PyTorch uses on CPUs that other programs use too.

PyTorch's threads wait for each other by spinning. With one thread more than there are free CPUs, all of them wait for the one
that does not get its CPU; with one less, a CPU is idle. So an entry point asks [`choose_threads`], which looks what is free
when the run begins and goes on looking while it runs. docs/performance.md tells what a user sees of it.

A number that the user has set, by `--threads` or by one of [`VARIABLES`], is left alone: then the same seed gives the same
bits.
"""

import _thread
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..repo_files.json_files import read_json, write_json
from .cpu_load import PROC_STAT, OtherPrograms, allowed_cpus, cpu_quota

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Of a CPU: so much of it may others take, and it still counts as free.
SLACK = 0.25
SECONDS_BEFORE_START = 0.3
# Longer ago than what a command imports may take, and the beginning says nothing about now.
MOST_SECONDS_BEFORE_START = 30.0
SECONDS_BETWEEN_SAMPLES = 1.0
LOWER_AFTER = 2.0
RAISE_AFTER = 30.0


class ThreadController:
    """
    Decides from what others take. Fewer threads after [`LOWER_AFTER`] seconds in which there were too many; more after a longer
    time in which there was room for them, twice as long after each time that it had to be taken back.

    Args:
        threads (`int`): Those in use.
        most (`int`): Never more than these.
        cpus (`float`): CPUs that this process may run on.
        quota (`float`): CPUs that it may use at one time.
    """

    def __init__(self, threads: int, most: int, cpus: float, quota: float = math.inf):
        self.threads, self.most, self.cpus, self.quota = threads, most, cpus, quota
        self.raise_after = RAISE_AFTER
        self._since: float | None = None
        self._fitting: list[int] = []
        self._was_raised = False

    def fitting(self, others: float) -> int:
        """Number of threads that fit next to programs that use so many CPUs."""
        free = min(self.quota, self.cpus - others)
        return min(self.most, max(1, math.floor(free + SLACK)))

    def observe(self, others: float, seconds: float, now: float) -> int:
        """
        Threads to use from now on.

        Args:
            others (`float`): CPUs that other programs took.
            seconds (`float`): For so long.
            now (`float`): A monotonic clock.
        """
        fitting = self.fitting(others)
        changes_way = self._fitting and (fitting < self.threads) != (self._fitting[-1] < self.threads)
        if fitting == self.threads or changes_way:
            self.start_again()
        if fitting == self.threads:
            return self.threads
        if self._since is None:
            self._since = now - seconds
        self._fitting.append(fitting)
        lower = fitting < self.threads
        if now - self._since >= (LOWER_AFTER if lower else self.raise_after):
            if lower and self._was_raised:
                self.raise_after *= 2
            self._was_raised = not lower
            self.threads = max(self._fitting) if lower else min(self._fitting)
            self.start_again()
        return self.threads

    def start_again(self) -> None:
        """Forgets what was observed; the number of threads stays."""
        self._since, self._fitting = None, []


class ThreadWatch(threading.Thread):
    """
    Measures while the run goes on, and changes the number of threads where [`ThreadController`] says so.

    The number belongs to the thread that computes, and only that one can change it: the main thread, between two instructions
    of Python and never inside of a computation. It is reached through the handler of a signal that is not sent.

    Args:
        controller ([`ThreadController`]): Decides.
        others (`OtherPrograms`): Measures.
        changed (`Callable[[int, float], None]`): Told of every change, in this thread: threads, and CPUs of others.
    """

    # Nobody's: the last of those that have no meaning of their own.
    SIGNAL = signal.SIGRTMAX if hasattr(signal, "SIGRTMAX") else None

    def __init__(self, controller: ThreadController, others: OtherPrograms, changed):
        super().__init__(name="nora15-threads", daemon=True)
        self.controller, self.others, self.changed = controller, others, changed
        self._stopped = threading.Event()
        signal.signal(self.SIGNAL, lambda number, frame: torch.set_num_threads(self.controller.threads))

    @classmethod
    def is_possible(cls) -> bool:
        """Where the main thread computes and nobody else has a handler for the signal."""
        return (
            cls.SIGNAL is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(cls.SIGNAL) is signal.SIG_DFL
        )

    def run(self) -> None:
        while not self._stopped.wait(SECONDS_BETWEEN_SAMPLES):
            self.look()

    def look(self) -> None:
        """One measurement and what follows from it."""
        before = self.controller.threads
        others = self.others.sample()
        if self.controller.observe(others, SECONDS_BETWEEN_SAMPLES, time.monotonic()) == before:
            return
        if self.controller.threads < before and self.others.find_children():
            # What looked like others was, or may have been, started by this run.
            self.controller.threads = before
            return
        _thread.interrupt_main(self.SIGNAL)
        self.changed(self.controller.threads, others)

    def stop(self) -> None:
        """Ends the watch; the number of threads stays."""
        self._stopped.set()
        self.join()
        signal.signal(self.SIGNAL, signal.SIG_DFL)


class ThreadUse:
    """
    The threads of one run: their number, who chose it, and how it changed.

    Args:
        threads (`int`): At the beginning.
        chosen_by (`str`): `"free CPUs"`, `"--threads"` or the environment variable.
    """

    def __init__(self, threads: int, chosen_by: str):
        self.threads, self.chosen_by = threads, chosen_by
        self.changes: list[dict[str, float]] = []
        self.watch: ThreadWatch | None = None
        self._began = time.monotonic()
        self._file: Path | None = None
        # The watch writes as well as the main thread.
        self._writing = threading.Lock()

    def record(self) -> dict[str, Any]:
        """For the results: the number, who chose it, and the changes with seconds since the beginning."""
        return {"threads": self.threads, "chosen_by": self.chosen_by, "changes": list(self.changes)}

    def describe(self) -> str:
        """The numbers one after the other, as `2, then 1 after 34 s`."""
        return ", then ".join(
            [str(self.threads), *(f"{change['threads']} after {change['seconds']:.0f} s" for change in self.changes)]
        )

    def change(self, threads: int, others: float) -> None:
        """Records and reports a change."""
        seconds = round(time.monotonic() - self._began, 1)
        self.changes.append({"seconds": seconds, "threads": threads, "cpus_of_others": round(others, 2)})
        _tell(f"PyTorch now uses {_threads(threads)}: other programs take {others:.1f} of {_cpus()}.")
        self.write()

    def keep(self, file: Path) -> None:
        """See [`keep_threads`]."""
        self._file = file
        if file.exists() and (earlier := read_json(file).get("threads")) is not None:
            self.resume(earlier)
        self.write()

    def resume(self, earlier: dict[str, Any]) -> None:
        """See [`resume_threads`]."""
        threads = earlier["changes"][-1]["threads"] if earlier["changes"] else earlier["threads"]
        if threads == self.threads_now():
            return
        if self.watch is None:
            _tell(
                f"This run began with {_threads(threads)} and continues with {self.threads_now()}, as set by {self.chosen_by}: its "
                f"results may differ in the last digits. --threads {threads} avoids this."
            )
        else:
            self.threads, self.changes = min(threads, self.watch.controller.most), []
            self.watch.controller.threads = self.threads
            torch.set_num_threads(self.threads)
            _tell(f"PyTorch uses {_threads(self.threads)}, as before the interruption.")

    def threads_now(self) -> int:
        """Threads in use."""
        return self.changes[-1]["threads"] if self.changes else self.threads

    def write(self) -> None:
        """Writes the record into the run's file, where it has one."""
        if self._file is None:
            return
        with self._writing:
            content = read_json(self._file) if self._file.exists() else {}
            write_json(self._file, content | {"threads": self.record()})


_run: ThreadUse | None = None
# Whoever imports this goes on importing for seconds, so that nobody has to wait for the first measurement.
_since_import = OtherPrograms() if PROC_STAT.exists() else None


def choose_threads(requested: int | None = None) -> ThreadUse:
    """
    Sets the threads of PyTorch for the run that begins here, and tells them in one line on the standard error.

    Args:
        requested (`int`, *optional*): The user's number. Without one, and without one of [`VARIABLES`], as many as CPUs are
            free, and from then on the number is watched. Without one in a run that has its threads, these stay.

    Raises:
        ValueError: `requested` is less than 1.
    """
    global _run
    if requested is not None and requested < 1:
        raise ValueError(f"--threads {requested} must be 1 or more; omit it to use the free CPUs.")
    if requested is None and _run is not None:
        return _run
    if _run is not None and _run.watch is not None:
        _run.watch.stop()
    variable = next((name for name in VARIABLES if os.environ.get(name)), None)
    if requested is not None:
        torch.set_num_threads(requested)
        _run = ThreadUse(requested, "--threads")
    elif variable is not None:
        _run = ThreadUse(torch.get_num_threads(), variable)
    elif not PROC_STAT.exists() or not ThreadWatch.is_possible():
        _run = ThreadUse(torch.get_num_threads(), "PyTorch")
    else:
        _run = _choose_from_free_cpus()
    return _run


def _choose_from_free_cpus() -> ThreadUse:
    others = _since_import
    if others.seconds() > MOST_SECONDS_BEFORE_START:
        others = OtherPrograms()
    time.sleep(max(0.0, SECONDS_BEFORE_START - others.seconds()))
    taken = others.sample()
    most = torch.get_num_threads()
    controller = ThreadController(most, most, len(allowed_cpus()), cpu_quota())
    controller.threads = controller.fitting(taken)
    torch.set_num_threads(controller.threads)
    run = ThreadUse(controller.threads, "free CPUs")
    run.watch = ThreadWatch(controller, others, run.change)
    run.watch.start()
    _tell(f"PyTorch uses {_threads(controller.threads)}: other programs take {taken:.1f} of {_cpus()}.")
    return run


def keep_threads(file: Path) -> None:
    """
    Keeps the threads of this run in its file, a JSON object, under `threads`: now and at every change.

    A run that is continued, whose file holds a number already, goes on with that number, see [`resume_threads`]. Does nothing
    in a process whose entry point did not call [`choose_threads`].

    Args:
        file (`Path`): For example `run.json` in the output folder.
    """
    if _run is not None:
        _run.keep(file)


def resume_threads(earlier: dict[str, Any]) -> None:
    """
    Goes on with the threads that an interrupted run used at last, so that it computes the same bits as without the interruption.

    A number that the user gave is left alone. Does nothing in a process whose entry point did not call [`choose_threads`].

    Args:
        earlier (`dict[str, Any]`): [`ThreadUse.record`] of the interrupted run.
    """
    if _run is not None:
        _run.resume(earlier)


def current_threads() -> ThreadUse:
    """What this run uses; PyTorch's own choice where no entry point has called [`choose_threads`]."""
    return ThreadUse(torch.get_num_threads(), "PyTorch") if _run is None else _run


def _cpus() -> str:
    number = len(allowed_cpus())
    return "1 CPU" if number == 1 else f"{number} CPUs"


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _tell(line: str) -> None:
    # Above the progress bars, where there are any.
    tqdm.write(line, file=sys.stderr)


__all__ = [
    "VARIABLES",
    "ThreadController",
    "ThreadUse",
    "ThreadWatch",
    "choose_threads",
    "current_threads",
    "keep_threads",
    "resume_threads",
]
