# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The CPUs that this process may use, and how many of them other programs take; read from Linux' /proc."""

import math
import os
import time
from pathlib import Path

import psutil

PROC_STAT = Path("/proc/stat")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def allowed_cpus() -> set[int]:
    """Numbers of the CPUs that the scheduler may run this process on."""
    return os.sched_getaffinity(0)


def cpu_quota(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that the control groups of this process may use at one time, as containers are limited; `inf` without a limit."""
    quota = math.inf
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, read = cgroups, _quota_v2
        elif "cpu" in controllers.split(","):
            folder, read = cgroups / "cpu", _quota_v1
        else:
            continue
        group = folder / path.lstrip("/")
        # The limit of a group holds for all below it. In a container, the path may be one that only the host knows.
        for level in (group, *group.parents):
            quota = min(quota, read(level))
            if level == folder:
                break
    return quota


def _quota_v2(folder: Path) -> float:
    file = folder / "cpu.max"
    if not file.is_file():
        return math.inf
    quota, period = file.read_text().split()
    return math.inf if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float:
    file = folder / "cpu.cfs_quota_us"
    if not file.is_file() or (quota := int(file.read_text())) < 0:
        return math.inf
    return quota / int((folder / "cpu.cfs_period_us").read_text())


def busy_seconds(cpus: set[int], stat: str, count_niced: bool) -> float:
    """
    Seconds that some CPUs have worked since the machine started, time that a hypervisor kept for others included.

    Args:
        cpus (`set[int]`): Their numbers.
        stat (`str`): Content of `/proc/stat`.
        count_niced (`bool`): Whether processes of a lower priority count, which give way to others.
    """
    ticks = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + system + irq + softirq + steal + (nice if count_niced else 0)
    return ticks / _TICKS_PER_SECOND


class OtherPrograms:
    """Measures how many CPUs other programs take; this process and those that it started are not others."""

    def __init__(self):
        self._cpus = allowed_cpus()
        # Among processes of the same low priority, none gives way.
        self._count_niced = os.nice(0) > 0
        self._process = psutil.Process()
        self._children: dict[int, psutil.Process] = {}
        self.find_children()

    def find_children(self) -> bool:
        """Looks for processes that were started; whether there are new ones. The next sample begins here."""
        found = {child.pid: child for child in self._process.children(recursive=True)}
        is_new = not found.keys() <= self._children.keys()
        self._children = found
        self._last = self._reading()
        return is_new

    def sample(self) -> float:
        """CPUs that others took on average since the last sample."""
        (time_before, busy_before, own_before), self._last = self._last, self._reading()
        time_now, busy_now, own_now = self._last
        return max(0.0, (busy_now - busy_before) - (own_now - own_before)) / (time_now - time_before)

    def seconds(self) -> float:
        """Seconds since the last sample."""
        return time.monotonic() - self._last[0]

    def _reading(self) -> tuple[float, float, float]:
        own = os.times()
        # A child that ends takes its time to its parent.
        seconds = time.process_time() + own.children_user + own.children_system
        for child in self._children.values():
            try:
                used = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += used.user + used.system + used.children_user + used.children_system
        return time.monotonic(), busy_seconds(self._cpus, PROC_STAT.read_text(), self._count_niced), seconds


__all__ = ["OtherPrograms", "allowed_cpus", "busy_seconds", "cpu_quota"]
