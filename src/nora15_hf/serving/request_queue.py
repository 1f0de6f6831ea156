# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Requests that wait together run as one batch, in turn for all clients."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

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
class _Submission:
    """What a client asks for at once. `answered` gets all answers together, or the first error."""

    answers: list[Answer | None]
    num_missing: int
    answered: asyncio.Future


@dataclass(eq=False)
class _Waiting:
    client: Hashable
    request: ChunkRequest
    since: float
    submission: _Submission
    place: int


@dataclass
class _RecentClient:
    answered: float
    asks_soon: bool


class RequestQueue:
    """
    A bounded line of requests before a policy. Each client has its own place in it, so that one with many requests does not
    keep others waiting.

    A batch begins as soon as there is a request; only for clients that have just been answered, and that asked again at once
    after their last answer, it waits a little.

    Args:
        predict (`Callable`): Requests to a chunk `(H, A)`, or the error, of each; see [`ServedPolicy`].
        call (`Callable`): See [`LoopThread.call`].
        max_batch (`int`): Requests of one batch at most.
        max_waiting (`int`): Requests that may wait; more are refused.
        clock (`Callable[[], float]`, *optional*): Seconds.

    Attributes:
        num_waiting (`int`): Requests in the line.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[ChunkRequest]], Sequence[np.ndarray | Exception]],
        *,
        call: Callable[..., asyncio.Future],
        max_batch: int,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.num_waiting = 0
        self._predict, self._call, self._clock = predict, call, clock
        # By client, in the order in which it is their turn.
        self._waiting: dict[Hashable, deque[_Waiting]] = {}
        self._recent: dict[Hashable, _RecentClient] = {}
        self._patience = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Whether the policy is free, which it is not before it is warm.
        self._free, self._ended = asyncio.Event(), asyncio.Event()
        self._closed = False
        # What the policy predicts, and since when.
        self._batch: list[_Waiting] = []
        self._began = 0.0

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
        answered = asyncio.get_running_loop().create_future()
        submission = _Submission([None] * len(requests), len(requests), answered)
        self._waiting.setdefault(client, deque()).extend(
            _Waiting(client, request, now, submission, place) for place, request in enumerate(requests)
        )
        self.num_waiting += len(requests)
        self._begin_batch()
        return await answered

    def forget(self, client: Hashable) -> None:
        """Gives up what a client waits for that has gone."""
        self._recent.pop(client, None)
        for each in self._waiting.pop(client, ()):
            self.num_waiting -= 1
            if not each.submission.answered.done():
                each.submission.answered.set_exception(ServingError("The client has gone."))

    async def run(self, warm_up: Callable[[], None]) -> None:
        """Calls `warm_up`, then answers requests until [`~RequestQueue.close`] is called."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._call(warm_up)
        finally:
            self._free.set()
        self._begin_batch()
        await self._ended.wait()

    async def close(self) -> None:
        """Refuses what waits and what comes, and waits for the batch that runs."""
        self._closed = True
        for each in [each for line in self._waiting.values() for each in line]:
            if not each.submission.answered.done():
                each.submission.answered.set_exception(ShuttingDownError())
        self._waiting.clear()
        await self._free.wait()
        self._ended.set()

    def _begin_batch(self) -> None:
        """Calls the policy if it is free, and if nobody is about to ask who could join."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._free.is_set() or not self._waiting:
            return
        seconds = self._seconds_until_nobody_is_expected()
        if self.num_waiting < self.max_batch and seconds > 0:
            self._timer = self._loop.call_later(seconds, self._begin_batch)
            return
        self._free.clear()
        self._call(self._predict_batch, self._answer)

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
            # Otherwise its client has gone, or another of its requests has failed.
            if not each.submission.answered.done():
                batch.append(each)
        return batch

    def _predict_batch(self) -> Sequence[np.ndarray | Exception]:
        """Results for what waits now, at the end of the event loop's turn, in which several clients may have asked."""
        self._began = self._clock()
        self._batch = self._next_batch()
        if not self._batch:
            return []
        results = self._predict([each.request for each in self._batch])
        if len(results) != len(self._batch):
            raise RuntimeError(f"The policy gave {len(results)} results for {len(self._batch)} requests.")
        return results

    def _answer(self, predicted: asyncio.Future) -> None:
        batch, began = self._batch, self._began
        error = predicted.exception()
        results = predicted.result() if error is None else [error] * len(batch)
        now = self._clock()
        self._patience = min(PATIENCE * (now - began), MAX_PATIENCE_SECONDS)
        for each, result in zip(batch, results, strict=True):
            self._recent.setdefault(each.client, _RecentClient(now, asks_soon=False)).answered = now
            submission = each.submission
            if submission.answered.done():
                continue
            if isinstance(result, Exception):
                submission.answered.set_exception(result)
                continue
            submission.answers[each.place] = Answer(result, began - each.since, now - began, len(batch))
            submission.num_missing -= 1
            if not submission.num_missing:
                submission.answered.set_result(submission.answers)
        self._recent = {
            client: recent for client, recent in self._recent.items() if now - recent.answered < RECENT_SECONDS
        }
        self._batch = []
        self._free.set()
        if self._waiting:
            # Behind the replies, which would otherwise be sent when the next batch has been predicted.
            self._loop.call_soon(self._begin_batch)


__all__ = ["Answer", "RequestQueue"]
