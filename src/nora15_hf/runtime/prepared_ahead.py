# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What models are fed with, made by other processes while the models compute."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class PreparedAhead(Generic[Item, Prepared]):
    """
    What a function makes of items, in their order, by the workers of a DataLoader, some items ahead. If a worker is killed, the
    rest is made when it is asked for.

    Args:
        prepare (`Callable`): Makes it, on the CPU; what it returns has `pin_memory()`, or consists of tensors, where memory is pinned.
        items (`Sequence`): Picklable.
        num_workers (`int`, *optional*, defaults to 0): Processes; 0 makes each when it is asked for.
        device (`torch.device`, *optional*): Where it goes. On the way to a GPU it is put into pinned memory.
        is_wanted (`Callable[[int], bool]`, *optional*): Asked for an item, by its number, before it is begun; what is not wanted is
            passed over.

    Attributes:
        seconds_waited (`float`): How long [`take`] has waited so far.
    """

    def __init__(
        self,
        prepare: Callable[[Item], Prepared],
        items: Sequence[Item],
        *,
        num_workers: int = 0,
        device: torch.device | None = None,
        is_wanted: Callable[[int], bool] = lambda number: True,
    ):
        self.seconds_waited = 0.0
        self._made = _Made(prepare, items)
        self._next: _Outcome | None = None
        # Without workers nothing is made before it is asked for.
        self._loader = iter(
            ()
            if num_workers == 0
            else DataLoader(
                self._made,
                # Asked by this process, when a worker has room for one more.
                sampler=filter(is_wanted, range(len(items))),
                batch_size=None,
                # Else its seed would be drawn from the numbers of the run.
                generator=torch.Generator(),
                num_workers=min(num_workers, len(items)),
                pin_memory=device is not None and device.type == "cuda",
            )
        )

    def take(self, first: int, stop: int) -> Iterator[Prepared]:
        """
        What was made of the items from number `first` to `stop`, excluded. What was made of items before them is dropped.

        Raises:
            Exception: What `prepare` raised for one of them.
        """
        for number in range(first, stop):
            began = time.perf_counter()
            while self._next is None or self._next.number < number:
                self._next = self._next_of_workers()
            # One that was not wanted when its turn came.
            outcome = self._next if self._next.number == number else self._made[number]
            self.seconds_waited += time.perf_counter() - began
            if outcome.error is not None:
                raise outcome.error
            yield outcome.prepared

    def _next_of_workers(self) -> "_Outcome":
        try:
            return next(self._loader, _Outcome(len(self._made)))
        except RuntimeError as error:
            # Of the loader itself: items bring their own errors. A killed worker may leave half a message behind, for which the
            # loader would wait for ever if it were asked again.
            logger.warning(
                f"A process that prepared data ahead was lost, and the rest is prepared without it: {error}"
            )
            self._loader = iter(())
            return _Outcome(len(self._made))


@dataclass
class _Outcome:
    number: int
    prepared: object = None
    error: Exception | None = None

    def pin_memory(self) -> "_Outcome":
        return _Outcome(self.number, None if self.prepared is None else self.prepared.pin_memory(), self.error)


class _Made(Dataset):
    def __init__(self, prepare: Callable[[Item], Prepared], items: Sequence[Item]):
        self._prepare, self._items = prepare, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> _Outcome:
        # A DataLoader would turn the error's message into a traceback.
        try:
            return _Outcome(number, self._prepare(self._items[number]))
        except Exception as error:
            return _Outcome(number, error=error)


def default_num_workers(device: torch.device) -> int:
    """Workers for models on a device: some beside a GPU; on a CPU they would take it from the models."""
    return 0 if device.type == "cpu" else 4


__all__ = ["PreparedAhead", "default_num_workers"]
