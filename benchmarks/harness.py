# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the benchmarks share: interleaved timing, peak memory, the conditions of a run, tables and result files."""

import gc
import json
import os
import platform
import statistics
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from nora15_hf.runtime.cpu_threads import choose_threads, current_threads

PACKAGES = ("nora15_hf", "torch", "transformers", "diffusers", "tokenizers", "numpy", "scipy", "bitsandbytes")


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one contestant, and the CPU time it took, which other work on the machine disturbs less."""

    median: float
    fastest: float
    slowest: float
    cpu_median: float
    rounds: int

    def text(self) -> str:
        """`median (fastest to slowest)`, in milliseconds."""
        return f"{self.median * 1e3:.1f} ({self.fastest * 1e3:.1f} to {self.slowest * 1e3:.1f})"


def time_contestants(contestants: dict[Hashable, Callable[[], object]], rounds: int) -> dict[Hashable, Timing]:
    """
    Times functions, all of them in turn in every round after one round of warm-up.

    Rounds, instead of one function after the other, let whatever else the machine does touch all of them alike. Work on
    an accelerator is waited for.
    """
    seconds: dict[Hashable, list[tuple[float, float]]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, function in contestants.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number > 0:
                seconds[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    timings = {}
    for name, measured in seconds.items():
        wall, cpu = zip(*measured, strict=True)
        timings[name] = Timing(statistics.median(wall), min(wall), max(wall), statistics.median(cpu), rounds)
    return timings


def median_seconds(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall-clock seconds of each function, see [`time_contestants`]."""
    return {name: timing.median for name, timing in time_contestants(candidates, repeats).items()}


def peak_memory(contestants: dict[Hashable, Callable[[], object]]) -> dict[Hashable, int]:
    """
    Bytes of tensors that each function holds at its worst moment, beyond what was held before it was called.

    Counted where PyTorch allocates, temporary tensors inside of operators included, so that the figure repeats exactly
    and does not depend on what the system's allocator keeps. Not counted: buffers of MKL and oneDNN, NumPy, pages of
    mapped files. Every function is called twice, so that what it keeps (gradients, optimizer state) is not counted;
    call this after timing, never inside of it.
    """
    return {name: _peak_bytes(function) for name, function in contestants.items()}


def _peak_bytes(function: Callable[[], object]) -> int:
    function()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _silent_profiler():
        profiler.start()
    result = function()
    with _silent_profiler():
        profiler.stop()
    del result
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _silent_profiler() -> Iterator[None]:
    """PyTorch's profiler writes a line to the process's standard error whenever it starts or stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def add_threads_argument(parser: ArgumentParser) -> None:
    """`--threads`, for [`set_threads`]."""
    parser.add_argument("--threads", type=int, help="threads of PyTorch; default: as many as CPUs are free")


def set_threads(threads: int | None) -> None:
    """Lets PyTorch use that many threads, or as many as CPUs are free; [`conditions`] tells how many they were."""
    choose_threads(threads)


def add_speed_arguments(parser: ArgumentParser, rounds: int) -> None:
    """`--size`, `--threads`, `--rounds` and `--output`."""
    parser.add_argument("--size", choices=("tiny", "cpu"), default="cpu", help="of the policy; default cpu, 107 M")
    add_threads_argument(parser)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds (default {rounds})")
    parser.add_argument("--output", type=Path, help="JSON file for the results")


def compare(
    timings: dict[str, Timing], ours: str, memory: dict[str, int] | None = None
) -> dict[str, dict[str, float]]:
    """
    Prints contestants beside ours; returns all figures, with `times_ours` and `cpu_times_ours`, and `peak_bytes` where
    `memory` of [`peak_memory`] is given.
    """
    header = ["", "ms: median (fastest to slowest)", "CPU ms", f"time / {ours}", f"CPU time / {ours}"]
    if memory is not None:
        header.append("peak MiB")
    results, rows = {}, []
    for name, timing in timings.items():
        ratio, cpu_ratio = timing.median / timings[ours].median, timing.cpu_median / timings[ours].cpu_median
        results[name] = {**vars(timing), "times_ours": ratio, "cpu_times_ours": cpu_ratio}
        rows.append([name, timing.text(), f"{timing.cpu_median * 1e3:.1f}", f"{ratio:.2f}x", f"{cpu_ratio:.2f}x"])
        if memory is not None:
            results[name]["peak_bytes"] = memory[name]
            rows[-1].append(f"{memory[name] / 2**20:.1f}")
    print(table(header, rows))
    return results


def processor_name() -> str:
    """The CPU's own name where Linux tells it, otherwise what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def installed_versions() -> dict[str, str]:
    """Versions of the packages that can move a number; the optional ones only where they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found


def conditions() -> dict[str, Any]:
    """Hardware, threads and versions of this run."""
    return {
        "processor": processor_name(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch_threads": torch.get_num_threads(),
        "threads": current_threads().record(),
        "versions": installed_versions(),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it can be read in a terminal, too."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def save_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the results and the conditions of this run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**results, "conditions": conditions()}, indent=2) + "\n")
    print(f"\n{path}")


__all__ = [
    "Timing",
    "add_speed_arguments",
    "add_threads_argument",
    "compare",
    "conditions",
    "installed_versions",
    "median_seconds",
    "peak_memory",
    "processor_name",
    "save_results",
    "set_threads",
    "table",
    "time_contestants",
]
