# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""An event loop and a function that takes long, in one thread for as long as that is faster."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

STAND_IN_SECONDS = 0.02
"""So long the loop stands still for a function before a second thread runs it."""


class LoopThread:
    """
    Runs an event loop that calls a policy in its own thread. Waking another thread for every request, and the loop's thread for
    the answer, would take as long as everything else that a server does for them.

    A function that takes longer than [`STAND_IN_SECONDS`] does not stop the loop: a second thread runs it until the function
    returns. So coroutines and callbacks may run in either thread, but never in both at a time.
    """

    def __init__(self):
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due: tuple[Callable[[], Any], Callable[[asyncio.Future], None] | None, asyncio.Future] | None = None
        self._called_at: float | None = None
        self._lock = threading.Lock()
        self._stands_in = False
        self._given_back = threading.Semaphore(0)
        self._ended = threading.Event()

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as [`asyncio.run`] does, and the functions that are called meanwhile."""
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            task = self._loop.create_task(main)
            task.add_done_callback(self._stop)
            second_thread = threading.Thread(target=self._stand_in, name="event loop", daemon=True)
            second_thread.start()
            try:
                while not task.done():
                    self._loop.run_forever()
                    if self._due is not None:
                        self._make_call(*self._due)
            finally:
                # The loop still has to cancel what an interruption has left.
                task.remove_done_callback(self._stop)
                self._ended.set()
                second_thread.join()
            task.result()

    def call(
        self, function: Callable[[], Any], then: Callable[[asyncio.Future], None] | None = None
    ) -> asyncio.Future:
        """
        Calls a function once the loop has finished its turn.

        Args:
            function (`Callable`): Must have returned before `call` is called again.
            then (`Callable`, *optional*): Called with the future before the loop goes on.

        Returns:
            `asyncio.Future`: What the function returns or raises.
        """
        future = self._loop.create_future()
        self._due = (function, then, future)
        self._loop.stop()
        return future

    def _stop(self, task: asyncio.Task) -> None:
        self._loop.stop()

    def _make_call(
        self,
        function: Callable[[], Any],
        then: Callable[[asyncio.Future], None] | None,
        future: asyncio.Future,
    ) -> None:
        self._due = None
        self._called_at = time.monotonic()
        result = error = None
        try:
            result = function()
        except Exception as raised:
            error = raised
        finally:
            self._take_loop_back()
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
        if then is not None:
            then(future)

    def _take_loop_back(self) -> None:
        with self._lock:
            self._called_at = None
            stands_in = self._stands_in
        if stands_in:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._given_back.acquire()

    def _stand_in(self) -> None:
        """What the second thread does."""
        while not self._ended.wait(STAND_IN_SECONDS):
            with self._lock:
                called_at = self._called_at
                self._stands_in = called_at is not None and time.monotonic() - called_at >= STAND_IN_SECONDS
            if self._stands_in:
                try:
                    self._loop.run_forever()
                finally:
                    self._stands_in = False
                    self._given_back.release()


__all__ = ["LoopThread"]
