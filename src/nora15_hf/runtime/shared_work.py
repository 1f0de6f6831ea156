# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Files that several processes make together, each file by one of them, and what a launcher tells a process about itself."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from .prepared_ahead import Item, Prepared, PreparedAhead

logger = logging.getLogger(__name__)

PATIENCE = 60.0
SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class ProcessPlace:
    """
    Which of the processes of a run this one is.

    Attributes:
        index (`int`), count (`int`): Its number among all of them, and how many there are.
        local_index (`int`): Its number on this machine, which tells its GPU.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0

    def __post_init__(self):
        if not 0 <= self.index < self.count or self.local_index < 0:
            raise ValueError(
                f"RANK={self.index}, WORLD_SIZE={self.count} and LOCAL_RANK={self.local_index} do not name a process: RANK "
                "must lie between 0 and WORLD_SIZE - 1, and LOCAL_RANK must not be negative."
            )

    @property
    def is_main(self) -> bool:
        """Whether it is the one that prints and draws."""
        return self.index == 0


def process_place() -> ProcessPlace:
    """
    What `accelerate launch` and `torchrun` tell a process, in `RANK`, `WORLD_SIZE` and `LOCAL_RANK`; a process alone without
    them.

    Raises:
        ValueError: A variable that is no number, or numbers that do not fit each other.
    """
    names = {"index": "RANK", "count": "WORLD_SIZE", "local_index": "LOCAL_RANK"}
    told = {field: os.environ[name] for field, name in names.items() if name in os.environ}
    wrong = [f"{names[field]}={text!r}" for field, text in told.items() if not text.isdecimal()]
    if wrong:
        raise ValueError(f"The environment says {', '.join(wrong)}, expected a whole number.")
    return ProcessPlace(**{field: int(text) for field, text in told.items()})


class SharedWork:
    """
    Files that are still to be made, shared out among the processes that see their folder.

    The folder is all that the processes have in common: they do not talk to each other, and may come and go. Who makes a file
    holds a lock beside it, which the system releases when the process ends, however it ends. A process begins with its own
    share of the files and goes on with those that are left of the others', from their ends; at last it makes the files of
    processes that died, and again those of a process that seems to be stuck. Nothing depends on the locks but time: a file has the
    same bytes whoever makes it, and appears whole, see [`~nora15_hf.repo_files.written_whole`].

    A file that cannot be made does not keep the others from being made; the error is raised when they are there.

    Args:
        files (`Sequence[Path]`): All of them, also those that exist.
        place ([`ProcessPlace`], *optional*): Decides about the share; every process may have another idea of how many there are.
        patience (`float`, *optional*, defaults to 60):
            Seconds without a new file, and at least three times what the slowest own file took, after which an idle process
            makes a file that another one holds.
        clock (`Callable[[], float]`, *optional*), sleep (`Callable[[float], None]`, *optional*): Seconds.

    Example:

    ```python
    >>> def make(file, letters):
    ...     with written_whole(file) as part:
    ...         _ = part.write_text("".join(letters))
    >>> waited = SharedWork([folder / "a.txt", folder / "b.txt"]).run(str.upper, make, {"a.txt": "ab", "b.txt": "c"})
    ```
    """

    def __init__(
        self,
        files: Sequence[Path],
        place: ProcessPlace | None = None,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.files = list(files)
        self.place = place or ProcessPlace()
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._locks: dict[Path, FileLock] = {}
        self._failed: dict[Path, Exception] = {}
        self._taken_over: set[Path] = set()
        self._slowest = 0.0

    def num_made(self) -> int:
        """How many of the files exist."""
        return sum(file.exists() for file in self.files)

    def run(
        self,
        prepare: Callable[[Item], Prepared],
        make: Callable[[Path, Iterator[Prepared]], None],
        items: Mapping[str, Sequence[Item]],
        *,
        num_workers: int = 0,
        device: torch.device | None = None,
        after_each: Callable[[], None] = lambda: None,
    ) -> float:
        """
        Returns when all files exist.

        Args:
            prepare (`Callable`), num_workers (`int`, *optional*), device (`torch.device`, *optional*): See [`PreparedAhead`].
            make (`Callable[[Path, Iterator], None]`):
                Writes a file, whole or not at all, from what was prepared of its items. The same bytes on every process.
            items (`Mapping[str, Sequence]`): What each file is made of, by the file's name.
            after_each (`Callable[[], None]`, *optional*): Called when a file was made, or passed over.

        Returns:
            `float`: Seconds for which `make` had to wait for what is prepared.

        Raises:
            RuntimeError, ValueError: All files exist but those that could not be made; names the first of them.
            OSError: As `make` raises it; names the folder where its disk is full.
        """
        waited = 0.0
        for files in self._rounds():
            of_files = [(file, item) for file in files for item in items[file.name]]
            ahead = PreparedAhead(
                prepare,
                [item for _, item in of_files],
                num_workers=num_workers,
                device=device,
                is_wanted=lambda number, of_files=of_files: not of_files[number][0].exists(),
            )
            stop = 0
            for file in files:
                first, stop = stop, stop + len(items[file.name])
                with self._claim(file) as claimed:
                    if claimed:
                        make(file, ahead.take(first, stop))
                after_each()
            waited += ahead.seconds_waited
        return waited

    def _rounds(self) -> Iterator[list[Path]]:
        """Files to claim, one list after the other, until all exist; waits for those that others hold."""
        if todo := [file for file in self._in_own_order() if not file.exists()]:
            yield todo
        made, looked_at = self.num_made(), self._clock()
        while left := [file for file in reversed(self._in_own_order()) if self._is_left(file)]:
            free = next((file for file in left if self._lock(file)), None)
            if self.num_made() > made or free is not None:
                made, looked_at = self.num_made(), self._clock()
            elif self._clock() - looked_at >= max(self._patience, 3 * self._slowest):
                free = left[0]
                logger.warning(
                    f"{free} has been held by another process for {self._clock() - looked_at:.0f} s while nothing else was "
                    "left to do: it is made here, too."
                )
                self._taken_over.add(free)
                looked_at = self._clock()
            if free is None:
                self._sleep(SECONDS_BETWEEN_LOOKS)
            else:
                yield [free]
        self._raise_first_failure()

    @contextmanager
    def _claim(self, file: Path) -> Iterator[bool]:
        """
        Whether this process is to make a file, which is its own until the block ends.

        A `ValueError` or `RuntimeError` of the block is logged and kept for the end of the run; everything else ends the run.
        """
        began = self._clock()
        if not self._is_left(file) or not (file in self._taken_over or self._lock(file)):
            yield False
            return
        try:
            # It may have been made while the lock was asked for.
            yield not file.exists()
            self._slowest = max(self._slowest, self._clock() - began)
        except (ValueError, RuntimeError) as error:
            self._failed[file] = error
            logger.error(f"{file.name} is left out for now, the other files go on: {error}")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(
                    error.errno,
                    f"The disk of {file.parent} is full ({error.strerror}); {self.num_made()} of {len(self.files)} files are "
                    "there and stay. Make room and start again: the rest is then made",
                    str(file),
                ) from error
            raise
        finally:
            self._release(file)

    def _in_own_order(self) -> list[Path]:
        """The own share first, then those of the next process and so on, each from its end, where it is needed last."""
        index, count = self.place.index, self.place.count
        bounds = [len(self.files) * number // count for number in range(count + 1)]
        shares = [self.files[first:stop] for first, stop in pairwise(bounds)]
        others = [share[::-1] for share in (*shares[index + 1 :], *shares[:index])]
        return [file for share in (shares[index], *others) for file in share]

    def _is_left(self, file: Path) -> bool:
        return file not in self._failed and not file.exists()

    def _lock(self, file: Path) -> bool:
        if file in self._locks:
            return True
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_name(f".{file.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._locks[file] = lock
        return True

    def _release(self, file: Path) -> None:
        # Of a file that was taken over, another process has the lock.
        if (lock := self._locks.pop(file, None)) is not None:
            # Before the release, while nobody else can hold it. A process that has opened it already finds the file made.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
        self._taken_over.discard(file)

    def _raise_first_failure(self) -> None:
        if not self._failed:
            return
        file, error = next(iter(self._failed.items()))
        kind = RuntimeError if isinstance(error, RuntimeError) else ValueError
        raise kind(
            f"{len(self._failed)} of {len(self.files)} files could not be made, the others are there and stay. The first, "
            f"{file.name}: {error}"
        ) from error


__all__ = ["ProcessPlace", "SharedWork", "process_place"]
