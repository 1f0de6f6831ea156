# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Files that several processes make: who makes which, and what happens to those of processes that die, hang or fail."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from helpers.warm_processes import run_process
from nora15_hf.repo_files.written_whole import written_whole
from nora15_hf.runtime.prepared_ahead import PreparedAhead
from nora15_hf.runtime.shared_tensors import SharedTensors
from nora15_hf.runtime.shared_work import ProcessPlace, SharedWork, process_place

NAMES = ["a", "b", "c", "d"]
ITEMS = {name: [2 * number, 2 * number + 1] for number, name in enumerate(NAMES)}


class Maker:
    """Writes what it is given; knows in which order."""

    def __init__(self, fails_at: str = "", error: Exception | None = None):
        self.made, self.fails_at, self.error = [], fails_at, error

    def __call__(self, file: Path, prepared: Iterator[int]) -> None:
        numbers = list(prepared)
        if file.name == self.fails_at:
            raise self.error
        self.made.append(file.name)
        with written_whole(file) as part:
            part.write_text(str(numbers))


class Clock:
    """Time that passes while somebody sleeps; `wake` is called each time."""

    def __init__(self, wake=lambda: None):
        self.now, self.wake = 0.0, wake

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.wake()


def shared(folder: Path, place: ProcessPlace | None = None, clock: Clock | None = None) -> SharedWork:
    clock = clock or Clock()
    return SharedWork([folder / name for name in NAMES], place, clock=lambda: clock.now, sleep=clock.sleep)


def double(number: int) -> int:
    return 2 * number


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.iterdir())}


EXPECTED = {name: str([2 * item for item in items]) for name, items in ITEMS.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_begins_with_its_share_and_goes_on_with_the_others(tmp_path, workers):
    first, second = Maker(), Maker()
    (tmp_path / "b").write_text(EXPECTED["b"])
    shared(tmp_path, ProcessPlace(1, 2)).run(double, first, ITEMS, num_workers=workers)
    assert first.made == ["c", "d", "a"]
    shared(tmp_path, ProcessPlace(0, 3)).run(double, second, ITEMS, num_workers=workers)
    assert second.made == []
    # Nothing else is left, locks included.
    assert contents(tmp_path) == EXPECTED


def test_what_others_hold_is_waited_for_and_made_when_they_are_gone(tmp_path):
    lock = FileLock(tmp_path / ".a.lock")
    lock.acquire()
    maker = Maker()
    shared(tmp_path, clock=Clock(lock.release)).run(double, maker, ITEMS)
    assert maker.made == ["b", "c", "d", "a"]
    assert contents(tmp_path) == EXPECTED


def test_a_process_that_is_stuck_is_not_waited_for_for_ever(tmp_path, caplog):
    with FileLock(tmp_path / ".a.lock"):
        clock, maker = Clock(), Maker()
        shared(tmp_path, clock=clock).run(double, maker, ITEMS)
        assert maker.made == ["b", "c", "d", "a"]
        assert 60 <= clock.now < 62
    assert "has been held by another process for 60 s" in caplog.text


def die_in_b(folder: Path) -> None:
    def make(file: Path, prepared: Iterator[int]) -> None:
        if file.name == "b":
            with written_whole(file, process=0) as part:
                part.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        Maker()(file, prepared)

    shared(folder, ProcessPlace(0, 2)).run(double, make, ITEMS)


def test_files_of_a_killed_process_are_made_by_the_next(tmp_path):
    output = tmp_path / "output.txt"
    (folder := tmp_path / "files").mkdir()
    assert run_process(die_in_b, folder, output=output) == -signal.SIGKILL
    assert (folder / "a").exists()
    maker = Maker()
    shared(folder).run(double, maker, ITEMS)
    assert maker.made == ["b", "c", "d"]
    assert contents(folder) == EXPECTED


def test_a_file_that_fails_is_named_when_the_others_are_made(tmp_path, caplog):
    maker = Maker("b", ValueError("the reward is NaN"))
    with pytest.raises(ValueError, match=r"1 of 4 files could not be made.* The first, b: the reward is NaN"):
        shared(tmp_path).run(double, maker, ITEMS)
    assert maker.made == ["a", "c", "d"]
    assert "b is left out for now" in caplog.text
    again = Maker()
    shared(tmp_path).run(double, again, ITEMS)
    assert again.made == ["b"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_whose_items_cannot_be_prepared_is_named(tmp_path, workers):
    def damaged(number: int) -> int:
        if number == 3:
            raise RuntimeError("frame 3 is damaged")
        return double(number)

    maker = Maker()
    with pytest.raises(RuntimeError, match="The first, b: frame 3 is damaged"):
        shared(tmp_path).run(damaged, maker, ITEMS, num_workers=workers)
    assert maker.made == ["a", "c", "d"]
    assert contents(tmp_path) == {name: text for name, text in EXPECTED.items() if name != "b"}


def test_a_full_disk_ends_the_run_and_says_what_stays(tmp_path):
    maker = Maker("c", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match=r"The disk of .* is full .*; 2 of 4 files are there and stay\. Make room"):
        shared(tmp_path).run(double, maker, ITEMS)
    assert maker.made == ["a", "b"]
    maker.fails_at = ""
    shared(tmp_path).run(double, maker, ITEMS)
    assert contents(tmp_path) == EXPECTED


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_not_wanted_is_passed_over_and_made_if_it_is_asked_for(workers):
    seed = torch.random.get_rng_state()
    ahead = PreparedAhead(double, range(10), num_workers=workers, is_wanted=lambda number: number not in (2, 3, 9))
    assert list(ahead.take(1, 3)) == [2, 4]
    assert list(ahead.take(5, 7)) == [10, 12]
    assert list(ahead.take(8, 10)) == [16, 18]
    assert ahead.seconds_waited > 0
    assert torch.equal(torch.random.get_rng_state(), seed)


def killed_once(number: int) -> int:
    """Doubles, but the process that is to double 2 is killed, unless it is the one that computes."""
    if number == 2 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_what_a_killed_worker_should_have_made_is_made_without_it(tmp_path, caplog):
    shared(tmp_path).run(killed_once, Maker(), ITEMS, num_workers=2)
    assert contents(tmp_path) == EXPECTED
    assert "A process that prepared data ahead was lost" in caplog.text


def test_tensors_are_computed_once_and_read_by_all(tmp_path):
    computed = []

    def square(number: int) -> dict[str, torch.Tensor]:
        computed.append(number)
        return {"square": torch.tensor([number**2])}

    alone = SharedTensors().computed("squares", [1, 2, 3], double, square)
    for index in (1, 0):
        together = SharedTensors(tmp_path, ProcessPlace(index, 2)).computed("squares", [1, 2, 3], double, square)
        assert [part["square"] for part in together] == [part["square"] for part in alone]
    assert computed == [2, 4, 6, 4, 6, 2]


def test_launchers_tell_which_process_it_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert process_place() == ProcessPlace(0, 1, 0)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert process_place() == ProcessPlace(5, 8, 1)
    assert not process_place().is_main
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"RANK=5, WORLD_SIZE=4 .* RANK must lie between 0 and WORLD_SIZE - 1"):
        process_place()
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(ValueError, match="The environment says RANK='two', expected a whole number"):
        process_place()
