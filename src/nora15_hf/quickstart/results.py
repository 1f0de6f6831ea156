# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`results.json`: the figures of the report for programs, with every convention that moves them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ..cards.wilson_interval import wilson_interval
from .report_data import Outcomes, ReportData, total

__all__ = ["write_results"]


def write_results(path: str | Path, report: ReportData) -> Path:
    """
    Write the figures of a run as JSON: success with Wilson 95 % intervals, the paired comparison, controls, cost,
    conventions and versions. Pictures, curves and rewards are left to the report and the artefacts.

    Args:
        path (`str` or `Path`): file to write.
        report (`ReportData`): what the run found out.

    Returns:
        `Path`: the file.
    """
    results = {
        "command": report.command,
        "success": {arm: _table(outcomes) for arm, outcomes in report.success.items()},
        "dpo_against_continued_sft": dataclasses.asdict(report.paired),
        "controls": {
            control.name: {
                "explanation": control.explanation,
                "intact": _table(control.intact),
                "spoiled": _table(control.spoiled),
            }
            for control in report.controls
        },
        "stages": [dataclasses.asdict(stage) for stage in report.stages],
        "conventions": report.conventions,
        "versions": report.versions,
    }
    path = Path(path)
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _table(outcomes: Outcomes) -> dict[str, dict]:
    return {task: _row(*outcome) for task, outcome in (*outcomes.items(), ("all", total(outcomes)))}


def _row(successes: int, episodes: int) -> dict:
    return {
        "successes": successes,
        "episodes": episodes,
        "rate": successes / episodes,
        "interval": list(wilson_interval(successes, episodes)),
    }
