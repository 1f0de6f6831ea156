# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Threads on shared cores: what is chosen, changed, told, recorded and kept; loads are given, not made."""

import json
import math
import os
import signal

import pytest
import torch

from helpers.warm_processes import run_process
from nora15_hf.runtime import cpu_threads
from nora15_hf.runtime.cpu_threads import (
    RAISE_AFTER,
    ThreadController,
    ThreadUse,
    ThreadWatch,
    choose_threads,
    keep_threads,
    resume_threads,
)


class GivenLoad:
    """Others that take what a test says; stands for `OtherPrograms`."""

    def __init__(self, *loads: float, new_children: bool = False):
        self.loads, self.new_children = list(loads), new_children

    def sample(self) -> float:
        return self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]

    def find_children(self) -> bool:
        return self.new_children

    def seconds(self) -> float:
        return 1.0


@pytest.fixture
def machine(monkeypatch):
    """A machine of 4 CPUs without variables, that nobody watches by the clock; its run is forgotten afterwards."""
    threads = torch.get_num_threads()
    for name in cpu_threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_threads, "_run", None)
    monkeypatch.setattr(cpu_threads, "allowed_cpus", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(cpu_threads, "cpu_quota", lambda: math.inf)
    monkeypatch.setattr(ThreadWatch, "start", lambda self: None)
    monkeypatch.setattr(ThreadWatch, "join", lambda self: None)
    torch.set_num_threads(4)
    yield lambda *loads, **options: monkeypatch.setattr(cpu_threads, "_since_import", GivenLoad(*loads, **options))
    if cpu_threads._run is not None and cpu_threads._run.watch is not None:
        cpu_threads._run.watch.stop()
    torch.set_num_threads(threads)


def observe(controller: ThreadController, others: float, seconds: int, start: float = 0.0) -> list[int]:
    """The number of threads after each second of a load."""
    return [controller.observe(others, 1.0, start + second) for second in range(1, seconds + 1)]


def test_a_measurement_of_long_ago_does_not_count(machine, monkeypatch):
    machine(3.0)
    monkeypatch.setattr(GivenLoad, "seconds", lambda self: 0.3 if self.loads == [0.0] else 31.0)
    monkeypatch.setattr(cpu_threads, "OtherPrograms", lambda: GivenLoad(0.0))
    assert choose_threads().threads == 4


@pytest.mark.parametrize(
    ("others", "quota", "expected"),
    [
        (0.0, math.inf, 4),
        (0.2, math.inf, 4),
        (0.3, math.inf, 3),
        (1.0, math.inf, 3),
        (2.5, math.inf, 1),
        (4.0, math.inf, 1),
        (9.0, math.inf, 1),
        (0.0, 2.0, 2),
        (0.0, 1.5, 1),
        (0.0, 0.5, 1),
        (3.0, 2.0, 1),
    ],
)
def test_threads_that_fit(others, quota, expected):
    assert ThreadController(4, most=4, cpus=4, quota=quota).fitting(others) == expected


def test_never_more_than_pytorch_would_use():
    assert ThreadController(8, most=8, cpus=16).fitting(0.0) == 8


def test_lowered_after_two_seconds_of_contention():
    assert observe(ThreadController(2, most=2, cpus=2), 1.0, 4) == [2, 1, 1, 1]


def test_a_short_burst_changes_nothing():
    controller = ThreadController(2, most=2, cpus=2)
    for start in range(0, 20, 2):
        assert observe(controller, 1.0, 1, start) == [2]
        assert observe(controller, 0.0, 1, start + 1) == [2]


def test_no_lower_than_the_mildest_moment_asks():
    controller = ThreadController(8, most=8, cpus=8)
    controller.observe(6.0, 1.0, 1.0)
    assert controller.observe(2.0, 1.0, 2.0) == 6


def test_raised_after_a_calm_time_that_doubles():
    controller, now = ThreadController(2, most=2, cpus=2), 0.0
    for wait in (RAISE_AFTER, 2 * RAISE_AFTER, 4 * RAISE_AFTER):
        assert observe(controller, 1.0, 2, now)[-1] == 1
        calm = observe(controller, 0.0, int(wait), now + 2)
        assert calm == [1] * (int(wait) - 1) + [2]
        now += wait + 2


def test_a_busy_second_begins_the_calm_time_anew():
    controller = ThreadController(2, most=2, cpus=2)
    observe(controller, 1.0, 2)
    observe(controller, 0.0, 20, 2)
    observe(controller, 1.0, 1, 22)
    assert observe(controller, 0.0, 30, 23) == [1] * 29 + [2]


def test_chosen_from_what_is_free(machine, capsys):
    machine(1.1)
    run = choose_threads()
    assert torch.get_num_threads() == 3
    assert run.record() == {"threads": 3, "chosen_by": "free CPUs", "changes": []}
    assert capsys.readouterr().err == "PyTorch uses 3 threads: other programs take 1.1 of 4 CPUs.\n"


def test_a_number_given_is_not_watched(machine, capsys):
    machine(4.0)
    run = choose_threads(3)
    assert (torch.get_num_threads(), run.watch, run.chosen_by) == (3, None, "--threads")
    assert signal.getsignal(ThreadWatch.SIGNAL) is signal.SIG_DFL
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"--threads 0 must be 1 or more"):
        choose_threads(0)


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_variable_is_left_alone(machine, monkeypatch, variable):
    machine(4.0)
    monkeypatch.setenv(variable, "4")
    run = choose_threads()
    assert (torch.get_num_threads(), run.watch, run.chosen_by) == (4, None, variable)


def test_the_second_call_without_a_number_changes_nothing(machine):
    machine(0.0)
    first = choose_threads(2)
    assert choose_threads() is first
    assert torch.get_num_threads() == 2


def test_a_foreign_handler_is_left_alone(machine):
    machine(0.0)

    def foreign(number, frame):
        pass

    signal.signal(ThreadWatch.SIGNAL, foreign)
    try:
        run = choose_threads()
        assert (run.watch, run.chosen_by) == (None, "PyTorch")
        assert signal.getsignal(ThreadWatch.SIGNAL) is foreign
    finally:
        signal.signal(ThreadWatch.SIGNAL, signal.SIG_DFL)


@pytest.fixture
def watched(machine, monkeypatch):
    """A run of 4 threads, and a function that lets so many seconds pass."""
    clock = [0.0]
    monkeypatch.setattr(cpu_threads.time, "monotonic", lambda: clock[0])
    machine(0.0)
    run = choose_threads()

    def seconds(number: int, others: float) -> None:
        run.watch.others.loads = [others]
        for _ in range(number):
            clock[0] += 1
            run.watch.look()

    return run, seconds


def test_lowered_and_raised_while_it_runs(watched, capsys):
    run, seconds = watched
    capsys.readouterr()
    seconds(1, 2.0)
    assert torch.get_num_threads() == 4
    seconds(1, 2.0)
    assert torch.get_num_threads() == 2
    seconds(29, 0.0)
    assert torch.get_num_threads() == 2
    seconds(1, 0.0)
    assert torch.get_num_threads() == 4
    assert run.changes == [
        {"seconds": 2.0, "threads": 2, "cpus_of_others": 2.0},
        {"seconds": 32.0, "threads": 4, "cpus_of_others": 0.0},
    ]
    assert run.describe() == "4, then 2 after 2 s, then 4 after 32 s"
    assert capsys.readouterr().err.splitlines() == [
        "PyTorch now uses 2 threads: other programs take 2.0 of 4 CPUs.",
        "PyTorch now uses 4 threads: other programs take 0.0 of 4 CPUs.",
    ]


def test_processes_that_the_run_started_are_no_others(watched):
    run, seconds = watched
    run.watch.others.new_children = True
    seconds(10, 4.0)
    assert torch.get_num_threads() == 4
    assert run.changes == []


def test_changes_are_kept_in_the_file_of_the_run(watched, tmp_path):
    _, seconds = watched
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"options": {"seed": 0}}))
    keep_threads(file)
    assert json.loads(file.read_text()) == {
        "options": {"seed": 0},
        "threads": {"threads": 4, "chosen_by": "free CPUs", "changes": []},
    }
    seconds(2, 3.0)
    kept = json.loads(file.read_text())
    assert kept["options"] == {"seed": 0}
    assert [change["threads"] for change in kept["threads"]["changes"]] == [1]


@pytest.mark.parametrize(
    ("changes", "expected"), [([], 2), ([{"seconds": 5, "threads": 1, "cpus_of_others": 3.0}], 1)]
)
def test_a_resumed_run_goes_on_with_its_threads(watched, tmp_path, capsys, changes, expected):
    run, seconds = watched
    capsys.readouterr()
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"threads": {"threads": 2, "chosen_by": "free CPUs", "changes": changes}}))
    keep_threads(file)
    assert torch.get_num_threads() == expected
    assert "as before the interruption" in capsys.readouterr().err
    assert json.loads(file.read_text())["threads"]["threads"] == expected
    # Watched all the same.
    seconds(2, 4.0)
    assert run.threads_now() == 1


def test_a_resumed_run_never_uses_more_than_there_are(watched):
    resume_threads(ThreadUse(64, "free CPUs").record())
    assert torch.get_num_threads() == 4


def test_a_number_given_goes_before_that_of_the_interrupted_run(machine, capsys):
    choose_threads(3)
    resume_threads(ThreadUse(2, "free CPUs").record())
    assert torch.get_num_threads() == 3
    assert "--threads 2 avoids this" in capsys.readouterr().err


def test_nothing_is_kept_where_nothing_was_chosen(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_threads, "_run", None)
    keep_threads(tmp_path / "run.json")
    resume_threads(ThreadUse(2, "free CPUs").record())
    assert not (tmp_path / "run.json").exists()


def compute_until_one_thread_is_left() -> None:
    cpu_threads._since_import = GivenLoad(9.0)
    cpu_threads.LOWER_AFTER = 0.0
    cpu_threads.SECONDS_BETWEEN_SAMPLES = 0.01
    torch.set_num_threads(3)
    fitting = cpu_threads.ThreadController.fitting
    began = []
    cpu_threads.ThreadController.fitting = lambda self, others: fitting(self, others) if began else 3
    for name in cpu_threads.VARIABLES:
        os.environ.pop(name, None)
    run = cpu_threads.choose_threads()
    began.append(True)
    matrix = torch.ones(64, 64)
    while torch.get_num_threads() != 1:
        matrix @ matrix
    run.watch.stop()
    print(run.describe())


@pytest.mark.slow
def test_the_computing_thread_is_reached(tmp_path):
    """The number belongs to the thread that computes: the watch's own thread changes it there while that one computes."""
    output = tmp_path / "printed"
    assert run_process(compute_until_one_thread_is_left, output=output) == 0, output.read_text()
    printed = output.read_text()
    assert any(line.startswith("3, then 1 after ") for line in printed.splitlines())
    assert "PyTorch now uses 1 thread" in printed
