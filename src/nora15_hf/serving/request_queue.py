# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Requests that wait together run as one batch, in a thread of their own and in turn for all clients."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from .served_policy import ChunkRequest
from .serving_error import ServingError, ShuttingDownError

# So much of a prediction's time it may wait for clients that are about to ask again: a batch of four takes little longer than
# a prediction for one.
PATIENCE = 0.25
MAX_PATIENCE_SECONDS = 0.05
# Clients whose last answer is older are forgotten.
RECENT_SECONDS = 1.0


@dataclass(frozen=True)
class Answer:
    """
    What came of a request.

    Attributes:
        chunk (`np.ndarray` of shape `(H, A)`): float32, physical units.
        queue_seconds (`float`), infer_seconds (`float`): How long it waited, and how long its batch took.
        batch_size (`int`): Requests of that batch.
    """

    chunk: np.ndarray
    queue_seconds: float
    infer_seconds: float
    batch_size: int


@dataclass(eq=False)
class _Waiting:
    client: Hashable
    request: ChunkRequest
    since: float
    answer: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass
class _RecentClient:
    answered: float
    asks_soon: bool


class RequestQueue:
    """
    A bounded line of requests before a policy. Each client has its own place in it, so that one with many requests does not
    keep others waiting.

    The policy runs in one thread, never in that of the event loop, whose connections stay alive meanwhile. A batch begins as
    soon as there is a request; only for clients that have just been answered, and that asked again at once after their last
    answer, it waits a little.

    Args:
        predict (`Callable`): Requests to a chunk `(H, A)`, or the error, of each; see [`ServedPolicy`].
        max_batch (`int`): Requests of one batch at most.
        max_waiting (`int`): Requests that may wait; more are refused.
        clock (`Callable[[], float]`, *optional*): Seconds.

    Attributes:
        num_waiting (`int`): Requests in the line.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[ChunkRequest]], Sequence[np.ndarray | ServingError]],
        *,
        max_batch: int,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.num_waiting = 0
        self._predict, self._clock = predict, clock
        # By client, in the order in which it is their turn.
        self._waiting: dict[Hashable, deque[_Waiting]] = {}
        self._recent: dict[Hashable, _RecentClient] = {}
        self._patience = 0.0
        self._arrived = asyncio.Event()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def submit(self, client: Hashable, requests: Sequence[ChunkRequest]) -> list[Answer]:
        """
        Waits for the answers to a client's requests.

        Raises:
            ServingError: Too many requests wait, the server is being shut down, or the policy refuses one of them.
        """
        if self._closed:
            raise ShuttingDownError
        if self.num_waiting + len(requests) > self.max_waiting:
            raise ServingError(
                f"The server is busy: {self.num_waiting} request(s) are waiting and {len(requests)} more arrived, but at most "
                f"{self.max_waiting} may wait. Try again later, or send fewer at once."
            )
        now = self._clock()
        if client in self._recent:
            self._recent[client].asks_soon = now - self._recent[client].answered <= self._patience
        waiting = [_Waiting(client, request, now) for request in requests]
        self._waiting.setdefault(client, deque()).extend(waiting)
        self.num_waiting += len(waiting)
        self._arrived.set()
        return await asyncio.gather(*(each.answer for each in waiting))

    async def run(self, warm_up: Callable[[], None]) -> None:
        """Calls `warm_up`, then answers requests until it is cancelled or [`~RequestQueue.close`] is called."""
        await self._in_thread(warm_up)
        while not self._closed:
            await self._wait_for_requests()
            batch = self._next_batch()
            if batch:
                await self._answer(batch)

    async def close(self) -> None:
        """Refuses what waits and what comes, and waits for the batch that runs."""
        self._closed = True
        self._arrived.set()
        for each in [each for line in self._waiting.values() for each in line]:
            if not each.answer.done():
                each.answer.set_exception(ShuttingDownError())
        self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def _in_thread(self, function: Callable, *arguments: object) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _wait_for_requests(self) -> None:
        while not self._waiting and not self._closed:
            await self._next_arrival(None)
        while not self._closed and self.num_waiting < self.max_batch:
            seconds = self._seconds_until_nobody_is_expected()
            if seconds <= 0 or not await self._next_arrival(seconds):
                return

    async def _next_arrival(self, seconds: float | None) -> bool:
        """Whether a request came within a time."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def _seconds_until_nobody_is_expected(self) -> float:
        """How long clients that ask again at once may still need for it."""
        expected = [
            recent.answered + self._patience - self._clock()
            for client, recent in self._recent.items()
            if recent.asks_soon and client not in self._waiting
        ]
        return max(expected, default=0.0)

    def _next_batch(self) -> list[_Waiting]:
        """One request of each client in turn, until the batch is full or nobody waits."""
        batch = []
        while self._waiting and len(batch) < self.max_batch:
            client = next(iter(self._waiting))
            line = self._waiting.pop(client)
            each = line.popleft()
            self.num_waiting -= 1
            if line:
                self._waiting[client] = line
            # Whose client has gone.
            if not each.answer.done():
                batch.append(each)
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        began = self._clock()
        try:
            results = await self._in_thread(self._predict, [each.request for each in batch])
        except Exception as error:
            results = [error] * len(batch)
        now = self._clock()
        self._patience = min(PATIENCE * (now - began), MAX_PATIENCE_SECONDS)
        for each in batch:
            self._recent.setdefault(each.client, _RecentClient(now, asks_soon=False)).answered = now
        self._recent = {
            client: recent for client, recent in self._recent.items() if now - recent.answered < RECENT_SECONDS
        }
        for each, result in zip(batch, results, strict=True):
            if each.answer.done():
                continue
            if isinstance(result, Exception):
                each.answer.set_exception(result)
            else:
                each.answer.set_result(Answer(result, began - each.since, now - began, len(batch)))


__all__ = ["Answer", "RequestQueue"]
