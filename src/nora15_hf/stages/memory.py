# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Peak resident memory of this process and its children while something runs."""

import threading

import psutil

MEBIBYTE = 2**20


class PeakMemory:
    """
    Context manager that samples resident memory in a thread.

    Pages that processes share are counted once for each of them, so that the figure is an upper bound.

    Args:
        interval (`float`): Seconds between two samples.

    Attributes:
        mebibytes (`float`): The highest sum seen so far.
    """

    def __init__(self, interval: float = 0.25):
        self.interval = interval
        self.mebibytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            resident = 0
            for member in [process, *process.children(recursive=True)]:
                try:
                    resident += member.memory_info().rss
                except psutil.NoSuchProcess:  # ended between listing and asking
                    continue
            self.mebibytes = max(self.mebibytes, resident / MEBIBYTE)
            if self._stop.wait(self.interval):
                return

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        self._thread.join()


__all__ = ["PeakMemory"]
