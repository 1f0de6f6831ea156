# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""An event loop whose thread a function may use, and which a second thread runs when that takes long."""

import asyncio
import threading
from functools import partial

import pytest

from nora15_hf.serving import loop_thread
from nora15_hf.serving.loop_thread import LoopThread


def test_functions_run_in_the_loops_own_thread():
    thread = LoopThread()
    seen = []

    async def main():
        for _ in range(3):
            assert await thread.call(lambda: 5) == 5
            seen.append(await thread.call(threading.get_ident))
        results = []
        called = thread.call(lambda: 6, lambda future: results.append(future.result()))
        await called
        assert results == [6]
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 / 0)

    thread.run(main())
    assert seen == [threading.get_ident()] * 3


def test_the_loop_goes_on_while_a_function_takes_long():
    thread = LoopThread()
    go = threading.Event()

    async def main():
        called = thread.call(lambda: go.wait(30))
        await asyncio.sleep(0)
        # Whoever has come so far is not in the thread that waits.
        assert threading.get_ident() != first
        go.set()
        assert await called
        assert threading.get_ident() == first

    first = threading.get_ident()
    thread.run(main())


@pytest.mark.slow
def test_neither_thread_runs_the_loop_while_the_other_does(monkeypatch):
    """The second thread takes every chance to run it."""
    monkeypatch.setattr(loop_thread, "STAND_IN_SECONDS", 0.0)
    thread = LoopThread()
    running = threading.Lock()
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            assert running.acquire(blocking=False)
            turns += 1
            running.release()
            await asyncio.sleep(0)

    async def main():
        others = [asyncio.create_task(take_turns()) for _ in range(3)]
        for number in range(300):
            turned = threading.Event()
            if number % 2:
                asyncio.get_running_loop().call_soon(turned.set)
            else:
                turned.set()
            assert await thread.call(partial(turned.wait, 30))
        for each in others:
            each.cancel()
        results = await asyncio.gather(*others, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    thread.run(main())
    assert turns > 300


def test_an_interrupted_function_ends_the_loop():
    thread = LoopThread()
    cleaned_up = []

    def interrupted():
        raise KeyboardInterrupt

    async def main():
        try:
            await thread.call(interrupted)
        finally:
            cleaned_up.append(True)

    with pytest.raises(KeyboardInterrupt):
        thread.run(main())
    assert cleaned_up
    assert not [each for each in threading.enumerate() if each.name == "event loop"]


def test_what_the_coroutine_raises_is_raised():
    async def main():
        raise OSError("in use")

    with pytest.raises(OSError, match="in use"):
        LoopThread().run(main())
