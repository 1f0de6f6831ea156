# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the terminal shows when a quickstart is finished."""

import dataclasses
from pathlib import Path

from ..evaluation.success import wilson_interval
from .config import QuickstartConfig
from .report_data import ARM_LABELS, Outcomes, ReportData, total


def command_line(config: QuickstartConfig) -> str:
    """The shortest command that makes a run with this configuration."""
    options = {
        "environment": str,
        "tasks": lambda tasks: ",".join(tasks),
        "episodes": str,
        "evaluation_episodes": str,
        "seed": str,
        "renderer": str,
    }
    base, flag = QuickstartConfig(), ""
    if config.sft_steps != base.sft_steps:
        base, flag = QuickstartConfig.smoke(), " --smoke"
    changed = [
        f" --{name.replace('_', '-')} {write(value)}"
        for name, write in options.items()
        if (value := dataclasses.asdict(config)[name]) != dataclasses.asdict(base)[name]
    ]
    return f"nora15 quickstart --output OUTPUT{flag}{''.join(changed)}"


def summary_table(report: ReportData, output: Path) -> str:
    """Success of every policy per task with Wilson 95 % intervals, cost of the stages, and where to look."""
    tasks = list(report.success["sft"])
    width = max(len(task) for task in [*tasks, "all tasks"])
    columns = list(ARM_LABELS)
    lines = ["", "Success on held-out seeds (Wilson 95 % interval)", ""]
    lines.append("  ".join([" " * width, *(f"{ARM_LABELS[arm]:>22}" for arm in columns)]))
    for task in [*tasks, "all tasks"]:
        cells = [_cell(report.success[arm], task) for arm in columns]
        lines.append("  ".join([f"{task:<{width}}", *(f"{cell:>22}" for cell in cells)]))
    paired = report.paired
    lines += [
        "",
        f"DPO against continued SFT on the same episodes: {paired.only_dpo} won, {paired.only_continued_sft} lost, "
        f"{paired.both + paired.neither} alike (exact McNemar p = {paired.p_value:.2f}).",
    ]
    for control in report.controls:
        (intact, n), (spoiled, _) = total(control.intact), total(control.spoiled)
        lines.append(f"{control.name}: {spoiled}/{n} instead of {intact}/{n}.")
    lines += ["", "Stage                                        seconds   peak MiB"]
    lines += [f"{stage.name:<42} {stage.seconds:>9.1f} {stage.peak_memory_mib:>10.0f}" for stage in report.stages]
    seconds = sum(stage.seconds for stage in report.stages)
    peak = max(stage.peak_memory_mib for stage in report.stages)
    lines += [f"{'all':<42} {seconds:>9.1f} {peak:>10.0f}", "", f"Report: {output / 'report.html'}"]
    return "\n".join(lines)


def _cell(outcomes: Outcomes, task: str) -> str:
    successes, episodes = total(outcomes) if task == "all tasks" else outcomes[task]
    low, high = wilson_interval(successes, episodes)
    return f"{successes}/{episodes} ({low:.0%}-{high:.0%})"


__all__ = ["command_line", "summary_table"]
