# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The line before the policy: what waits together runs together, in turn for all clients, within bounds."""

import asyncio
import threading
from collections.abc import Callable, Coroutine

import numpy as np
import pytest

from nora15_hf.serving import request_queue
from nora15_hf.serving.loop_thread import LoopThread
from nora15_hf.serving.request_queue import RequestQueue
from nora15_hf.serving.serving_error import ServingError, ShuttingDownError


class Gate:
    """A policy that answers each request, a text, with its number, when it is let through."""

    def __init__(self):
        self.batches: list[list[str]] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def predict(self, requests):
        self.batches.append(list(requests))
        self.entered.release()
        assert self.go.acquire(timeout=30)
        return [
            ServingError(request) if request == "bad" else np.full((1, 1), len(self.batches)) for request in requests
        ]


def with_queue(check: Callable[[RequestQueue, Gate], Coroutine], **options) -> None:
    """Runs a check with a queue that is being served, and closes it."""
    thread = LoopThread()

    async def run():
        gate = Gate()
        queue = RequestQueue(gate.predict, call=thread.call, **{"max_batch": 4, "max_waiting": 8} | options)
        serving = asyncio.create_task(queue.run(lambda: None))
        try:
            await check(queue, gate)
        finally:
            gate.go.release(100)
            await queue.close()
            await serving

    thread.run(run())


async def submitted(queue: RequestQueue, client: str, *requests: str) -> asyncio.Task:
    """A request of a client that stands in the line."""
    task = asyncio.create_task(queue.submit(client, requests))
    await asyncio.sleep(0)
    return task


async def entered(gate: Gate) -> None:
    """Waits until the policy has begun with a batch."""
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)


def test_what_waits_together_runs_together_and_in_turn():
    async def check(queue, gate):
        first = await submitted(queue, "a", "a1")
        await entered(gate)
        tasks = [await submitted(queue, "a", "a2", "a3", "a4", "a5"), await submitted(queue, "b", "b1", "b2")]
        tasks.append(await submitted(queue, "c", "c1"))
        gate.go.release(10)
        await asyncio.gather(first, *tasks)
        # One of each client in every round: none waits for all of another's.
        assert gate.batches == [["a1"], ["a2", "b1", "c1", "a3"], ["b2", "a4", "a5"]]
        assert [answer.chunk.item() for answer in tasks[0].result()] == [2, 2, 3, 3]
        assert [answer.batch_size for answer in tasks[1].result()] == [4, 3]

    with_queue(check)


def test_the_line_is_bounded_and_an_error_is_its_requests_own():
    async def check(queue, gate):
        running = await submitted(queue, "a", "a1")
        await entered(gate)
        waiting = await submitted(queue, "a", *["x"] * 6)
        bad = await submitted(queue, "b", "bad")
        with pytest.raises(
            ServingError, match=r"busy: 7 request\(s\) are waiting and 2 more arrived, but at most 8 may wait"
        ):
            await queue.submit("c", ["c1", "c2"])
        gate.go.release(10)
        assert len(await running) == 1
        assert len(await waiting) == 6
        with pytest.raises(ServingError, match=r"^bad$"):
            await bad

    with_queue(check)


def test_requests_of_clients_that_have_gone_are_not_computed():
    async def check(queue, gate):
        running = await submitted(queue, "a", "a1")
        await entered(gate)
        gone, stays = await submitted(queue, "b", "b1", "b2"), await submitted(queue, "c", "c1")
        gone.cancel()
        gate.go.release(10)
        await asyncio.gather(running, stays)
        assert gate.batches == [["a1"], ["c1"]]
        assert (await queue.submit("b", ["b3"]))[0].batch_size == 1

    with_queue(check, max_waiting=3)


def test_a_failing_policy_fails_its_batch_and_goes_on():
    def predict(requests):
        if "breaks" in requests:
            raise RuntimeError("out of memory")
        return [] if "lost" in requests else [np.zeros((1, 1))]

    thread = LoopThread()

    async def run():
        queue = RequestQueue(predict, call=thread.call, max_batch=4, max_waiting=8)
        serving = asyncio.create_task(queue.run(lambda: None))
        with pytest.raises(RuntimeError, match="out of memory"):
            await queue.submit("a", ["breaks"])
        with pytest.raises(RuntimeError, match=r"The policy gave 0 results for 1 requests"):
            await queue.submit("a", ["lost"])
        assert len(await queue.submit("a", ["works"])) == 1
        await queue.close()
        await serving

    thread.run(run())


def test_closing_answers_what_runs_and_refuses_the_rest():
    async def check(queue, gate):
        running = await submitted(queue, "a", "a1")
        await entered(gate)
        waiting = await submitted(queue, "b", "b1")
        closing = asyncio.create_task(queue.close())
        with pytest.raises(ShuttingDownError):
            await waiting
        with pytest.raises(ShuttingDownError):
            await queue.submit("c", ["c1"])
        assert not closing.done()
        gate.go.release()
        assert len(await running) == 1
        await closing
        assert gate.batches == [["a1"]]

    with_queue(check)


def test_it_waits_for_clients_that_ask_again_at_once_and_for_no_others(monkeypatch):
    """By a clock of the test's own, on which a prediction takes 400 s, of which a quarter may be waited."""
    monkeypatch.setattr(request_queue, "MAX_PATIENCE_SECONDS", 100.0)
    monkeypatch.setattr(request_queue, "RECENT_SECONDS", 10_000.0)
    now = 0.0

    def predict(requests):
        nonlocal now
        now += 400
        return [np.zeros((1, 1))] * len(requests)

    thread = LoopThread()

    async def run():
        nonlocal now
        queue = RequestQueue(predict, call=thread.call, max_batch=4, max_waiting=8, clock=lambda: now)
        serving = asyncio.create_task(queue.run(lambda: None))

        async def both() -> list[int]:
            answers = await asyncio.gather(queue.submit("a", ["a"]), queue.submit("b", ["b"]))
            return [answer[0].batch_size for answer in answers]

        assert await both() == [2, 2]
        now += 5
        # Both have asked again at once.
        assert await both() == [2, 2]
        now += 5
        first = await submitted(queue, "a", "a")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not first.done()
        second = await submitted(queue, "b", "b")
        assert [(await each)[0].batch_size for each in (first, second)] == [2, 2]
        # Now one of them takes its time, and is not waited for any more.
        now += 500
        assert await both() == [2, 2]
        now += 5
        async with asyncio.timeout(30):
            assert (await queue.submit("a", ["a"]))[0].batch_size == 1
        await queue.close()
        await serving

    thread.run(run())
