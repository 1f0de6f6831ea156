# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`report.html`: one self-contained page that shows what a quickstart run did and how far its figures can be trusted."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..cards.card_settings import setting_text
from ..cards.wilson_interval import wilson_interval
from ..preferences.chunk_figures import MAGNIFICATION
from .animation import animated_data_uri, still_data_uri
from .figures import (
    preference_on_frame,
    preference_per_dimension,
    reward_histogram,
    success_over_all_tasks,
    success_per_task,
    training_curves,
)
from .report_data import ARM_LABELS, CurvePanel, PairedOutcome, ReportData, total

__all__ = ["verdict", "write_report"]

_SIGNIFICANT = 0.05


def write_report(path: str | Path, report: ReportData) -> Path:
    """
    Write the report as one HTML file that loads nothing from elsewhere: charts and animations are data URIs.

    Args:
        path (`str` or `Path`): file to write.
        report (`ReportData`): what the run found out.

    Returns:
        `Path`: the file.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    html = environment.from_string(_asset("report.html")).render(
        report=report,
        arms=ARM_LABELS,
        css=Markup(_asset("report.css")),
        pipeline=Markup(_asset("pipeline.svg")),
        verdict=verdict(report),
        p_value=_p_value(report.paired),
        paired_reading=_paired_reading(report.paired),
        arrows_reading=_arrows_reading(report),
        figures=_figures(report),
        seconds=sum(stage.seconds for stage in report.stages),
        peak_memory_mib=max(stage.peak_memory_mib for stage in report.stages),
        total=total,
        percent=_percent,
        interval=_interval,
        curve_alt=_curve_alt,
        setting_text=setting_text,
    )
    path = Path(path)
    path.write_text(html, encoding="utf-8")
    return path


def verdict(report: ReportData) -> str:
    """
    One sentence that says what came out, without claiming more than the episodes support.

    Args:
        report (`ReportData`): what the run found out.

    Returns:
        `str`: the sentence.
    """
    rates = {arm: _percent(total(outcomes)) for arm, outcomes in report.success.items()}
    episodes = total(report.success["sft"])[1]
    minutes = sum(stage.seconds for stage in report.stages) / 60
    dpo, control = total(report.success["dpo"])[0], total(report.success["continued_sft"])[0]
    if report.paired.p_value >= _SIGNIFICANT:
        comparison = "a difference that chance alone could make"
    else:
        comparison = "better than chance would explain" if dpo > control else "worse than chance would explain"
    return (
        f"In {minutes:.1f} minutes a policy with random weights ({rates['random']} success) learned to solve "
        f"{rates['sft']} of {episodes} held-out episodes from demonstrations; DPO brought it to {rates['dpo']}, the same "
        f"number of further supervised steps to {rates['continued_sft']}: {comparison} ({_p_value(report.paired)})."
    )


def _figures(report: ReportData) -> dict:
    return {
        "total": success_over_all_tasks(report.success),
        "tasks": success_per_task(report.success),
        "curves": {
            stage: [(panel, training_curves(panel)) for panel in panels] for stage, panels in report.curves.items()
        },
        "rewards": {name: reward_histogram(values) for name, values in report.rewards.items()},
        "examples": [
            (
                example,
                preference_on_frame(example),
                preference_per_dimension(example, report.action_names),
            )
            for example in report.examples
        ],
        "rollouts": [
            (rollout, animated_data_uri(rollout.frames), still_data_uri(rollout.frames[-1]))
            for rollout in report.rollouts
        ],
    }


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _percent(outcome: tuple[int, int]) -> str:
    successes, episodes = outcome
    return f"{100 * successes / episodes:.0f}\u00a0%"


def _interval(outcome: tuple[int, int]) -> str:
    low, high = wilson_interval(*outcome)
    return f"{100 * low:.0f}\u00a0–\u00a0{100 * high:.0f}\u00a0%"


def _p_value(paired: PairedOutcome) -> str:
    return "p\u00a0<\u00a00.001" if paired.p_value < 0.001 else f"p\u00a0=\u00a0{paired.p_value:.3f}"


def _paired_reading(paired: PairedOutcome) -> str:
    if paired.p_value >= _SIGNIFICANT:
        return (
            "That is compatible with no difference at all: this run does not show that preferences add anything to "
            "further supervised steps, nor that they do not."
        )
    better, worse = (
        ("DPO", "continued SFT") if paired.only_dpo > paired.only_continued_sft else ("continued SFT", "DPO")
    )
    return f"On these seeds {better} beats {worse}; one training run of each says nothing about other training seeds."


def _arrows_reading(report: ReportData) -> str:
    if any(example.action_axes is None for example in report.examples):
        return "Arrows add up the steps of a chunk with x to the right and y upwards: a sketch, not a projection."
    return f"Arrows point where the steps of a chunk would take the hand on the picture, {MAGNIFICATION} times as far."


def _curve_alt(panel: CurvePanel) -> str:
    ends = (f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in panel.curves.items())
    return f"Line chart: {', '.join(ends)}"
