# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What counts as the work of others, from files that a test writes and processes that it starts."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from nora15_hf.runtime import cpu_load
from nora15_hf.runtime.cpu_load import OtherPrograms, busy_seconds, cpu_quota

pytestmark = pytest.mark.skipif(
    not Path("/proc/stat").exists(), reason="what other programs take is read from Linux' /proc"
)
STAT = """cpu  900 90 9 9 9 9 9 9 0 0
cpu0 100 10 20 5000 300 1 2 4 50 5
cpu1 200 20 30 5000 300 0 0 0 0 0
cpu10 400 0 0 5000 0 0 0 0 0 0
intr 1 2 3
"""


def test_busy_time_counts_all_but_idle_waiting_and_guests_twice(monkeypatch):
    monkeypatch.setattr(cpu_load, "_TICKS_PER_SECOND", 100)
    assert busy_seconds({0}, STAT, count_niced=True) == pytest.approx(1.37)
    assert busy_seconds({0}, STAT, count_niced=False) == pytest.approx(1.27)
    assert busy_seconds({1}, STAT, count_niced=False) == pytest.approx(2.30)
    assert busy_seconds({0, 1, 10}, STAT, count_niced=True) == pytest.approx(1.37 + 2.50 + 4.00)


def machine(folder: Path, groups: str, files: dict[str, str]) -> dict[str, Path]:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "self" / "cgroup").write_text(groups)
    for name, content in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(content)
    return {"proc": folder / "proc", "cgroups": folder / "cgroup"}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        # The limit of a group above, and a path that only the host knows.
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/host/path\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("3:cpuset:/x\n1:cpu,cpuacct:/y\n0::/\n", {"cpu/y/cpu.cfs_quota_us": "50000", "cpu/y/cpu.cfs_period_us": "100000"}, 0.5),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
    ],
)  # fmt: skip
def test_quota(tmp_path, groups, files, expected):
    assert cpu_quota(**machine(tmp_path, groups, files)) == expected


def test_time_of_this_process_and_its_children_is_no_others(monkeypatch):
    """The machine is as busy as they are, by what the kernel says of them."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    ended = subprocess.Popen([sys.executable, "-c", "sum(range(10**6))"])
    try:
        others = OtherPrograms()
        _, _, before = others._reading()
        ended.wait()
        _, _, after = others._reading()
        # It was waited for, and its time went to this process.
        assert after > before
        assert {process.pid for process in others._children.values()} >= {child.pid}
        readings = iter([(10.0, 50.0, 7.0), (12.0, 54.0, 8.0), (13.0, 54.0, 9.0)])
        monkeypatch.setattr(others, "_reading", lambda: next(readings))
        others._last = next(readings)
        # 4 seconds of work in 2, of which 1 was our own; then less than our own, by rounding.
        assert others.sample() == 1.5
        assert others.sample() == 0.0
    finally:
        child.communicate("\n")


def test_new_children_are_found():
    others = OtherPrograms()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as child:
        assert others.find_children()
        assert not others.find_children()
        child.communicate("\n")
    assert not others.find_children()
