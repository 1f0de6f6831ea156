# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the benchmarks share: interleaved timing, the conditions of a run, tables and result files."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("nora15_hf", "torch", "transformers", "diffusers", "tokenizers", "numpy", "scipy", "bitsandbytes")


def median_seconds(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """
    Median wall-clock seconds of each function, all of them in turn in every round after one round of warm-up.

    Rounds, instead of one function after the other, let whatever else the machine does touch all of them alike.
    """
    seconds = {name: [] for name in candidates}
    for round_number in range(repeats + 1):
        for name, function in candidates.items():
            start = time.perf_counter()
            function()
            if round_number > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


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


__all__ = ["conditions", "installed_versions", "median_seconds", "processor_name", "save_results", "table"]
