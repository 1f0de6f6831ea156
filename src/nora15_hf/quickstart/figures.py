# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The charts of the report: one function per chart, each returns an SVG data URI that follows light and dark mode."""

from __future__ import annotations

import base64
import functools
import io
import itertools
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..cards.wilson_interval import wilson_interval
from ..preferences.chunk_figures import (
    CHOSEN,
    DEMONSTRATED,
    MAGNIFICATION,
    REJECTED,
    DrawnChunk,
    draw_dimensions,
    draw_on_picture,
    preference_chunks,
)
from .report_data import ARM_LABELS, CurvePanel, Outcomes, PreferenceExample, total

__all__ = [
    "ARM_COLOURS",
    "preference_on_frame",
    "preference_per_dimension",
    "reward_histogram",
    "success_over_all_tasks",
    "success_per_task",
    "training_curves",
]

BLUE, ORANGE, GREEN, GREY = "#2f81d6", REJECTED, CHOSEN, DEMONSTRATED
ARM_COLOURS = {"random": GREY, "sft": BLUE, "continued_sft": ORANGE, "dpo": GREEN}
PAIR_COLOURS = {"chosen": GREEN, "rejected": ORANGE, "demonstrated": GREY}
OTHER_COLOURS = (BLUE, "#a371f7", GREY)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

# charts are drawn in these two colours, which become CSS variables that the reader's colour scheme sets
_INK, _FAINT = "#010203", "#040506"
_THEME = (
    "<style>:root{--ink:#1f2328;--faint:#d1d9e0}"
    "@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#3d444d}}</style>"
)
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": _FAINT,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "nora15_hf",
    "text.color": _INK,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
}


def _chart(draw: Callable[..., Figure]) -> Callable[..., str]:
    """Draw in the report's style (matplotlib reads it whenever an artist is made) and return an SVG data URI."""

    @functools.wraps(draw)
    def data_uri(*args, **kwargs) -> str:
        buffer = io.StringIO()
        with matplotlib.rc_context(_STYLE):
            draw(*args, **kwargs).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        svg = buffer.getvalue().replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)")
        svg = svg.replace("<defs>", _THEME + "<defs>", 1)
        return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")

    return data_uri


@_chart
def success_per_task(success: dict[str, Outcomes]) -> Figure:
    """Bars of the success rate per task and arm with Wilson 95 % intervals."""
    tasks = list(success["sft"])
    figure = Figure(figsize=(5.4, 0.7 + 0.78 * len(tasks)), layout="constrained")
    axes = figure.add_subplot()
    for row, (arm, label) in enumerate(ARM_LABELS.items()):
        positions = np.arange(len(tasks)) + (row - 1.5) * 0.2
        rates, errors = _rates_and_errors([success[arm][task] for task in tasks])
        axes.barh(positions, rates, height=0.17, color=ARM_COLOURS[arm], label=label)
        axes.errorbar(rates, positions, xerr=errors, fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
    axes.set_yticks(np.arange(len(tasks)), tasks)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside upper left", ncols=4, handlelength=1, columnspacing=1.2, fontsize=9)
    return figure


@_chart
def success_over_all_tasks(success: dict[str, Outcomes]) -> Figure:
    """Bars of the success rate over all tasks per arm with Wilson 95 % intervals."""
    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    totals = [total(success[arm]) for arm in ARM_LABELS]
    rates, errors = _rates_and_errors(totals)
    axes.bar(list(ARM_LABELS.values()), rates, width=0.6, color=list(ARM_COLOURS.values()))
    axes.errorbar(range(len(rates)), rates, yerr=errors, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=4)
    for position, (rate, (_, above)) in enumerate(zip(rates, errors.T, strict=True)):
        axes.annotate(f"{rate:.0%}", (position, rate + above), (0, 4), textcoords="offset points", ha="center")
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(axis="x", labelsize=9)
    return figure


@_chart
def training_curves(panel: CurvePanel) -> Figure:
    """One panel of training curves."""
    figure = Figure(figsize=(4.2, 2.7), layout="constrained")
    axes = figure.add_subplot()
    other_colours, styles = itertools.cycle(OTHER_COLOURS), itertools.cycle(LINE_STYLES)
    for name, points in panel.curves.items():
        colour = PAIR_COLOURS[name] if name in PAIR_COLOURS else next(other_colours)
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=next(styles), linewidth=1.8, label=name)
    if panel.reference is not None:
        name, value = panel.reference
        axes.axhline(value, color=_INK, linewidth=0.9, linestyle=(0, (2, 2)), label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlabel("step")
    figure.legend(loc="outside upper left", ncols=2 if len(panel.curves) > 3 else 3, fontsize=9)
    return figure


@_chart
def reward_histogram(values: np.ndarray) -> Figure:
    """
    Histogram of a reward over all candidates, and of the best and the worst candidate of each state.

    Args:
        values (`np.ndarray`): float (states, candidates).
    """
    figure = Figure(figsize=(4.2, 2.7), layout="constrained")
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(values, bins=40)
    axes.hist(values.ravel(), edges, weights=np.full(values.size, 1 / values.shape[1]), color=GREY, alpha=0.45)
    axes.hist(values.max(axis=1), edges, histtype="step", color=GREEN, linewidth=1.8)
    axes.hist(values.min(axis=1), edges, histtype="step", color=ORANGE, linewidth=1.8, linestyle="--")
    axes.plot([], [], color=GREY, linewidth=6, alpha=0.45, label="all candidates")
    axes.plot([], [], color=GREEN, linewidth=1.8, label="best")
    axes.plot([], [], color=ORANGE, linewidth=1.8, linestyle="--", label="worst")
    axes.set_xlabel("reward, higher is better")
    axes.set_ylabel("states")
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2, fontsize=9)
    return figure


@_chart
def preference_on_frame(example: PreferenceExample) -> Figure:
    """
    The paths of the chosen, rejected and demonstrated chunk, drawn as arrows on the observation, [`MAGNIFICATION`] times
    their true length. Without `action_axes` the longest of the three spans a third of the picture.
    """
    chunks = _chunks(example)
    if example.action_axes is not None:
        action_axes = MAGNIFICATION * example.action_axes
    else:
        longest = max(np.abs(np.cumsum(chunk.actions[:, :2], axis=0)).max() for chunk in chunks)
        # an all-zero chunk has no direction to draw
        action_axes = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]) / (3 * longest if longest else 1)
    height, width = example.image.shape[:2]
    figure = Figure(figsize=(2.6, 2.6 * height / width), layout="constrained")
    draw_on_picture(figure.add_subplot(), example.image, chunks, example.origin, action_axes)
    return figure


@_chart
def preference_per_dimension(example: PreferenceExample, action_names: list[str]) -> Figure:
    """The chosen, rejected and demonstrated chunk as one small line chart per action dimension."""
    figure = Figure(figsize=(3.7, 2.7), layout="constrained")
    panels = figure.subplots(2, -(-len(action_names) // 2), sharex=True, sharey=True, squeeze=False).ravel()
    draw_dimensions(panels, _chunks(example), action_names)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=9)
    return figure


def _chunks(example: PreferenceExample) -> list[DrawnChunk]:
    return preference_chunks(example.chosen, example.rejected, example.demonstrated)


def _rates_and_errors(outcomes: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    rates = np.array([successes / episodes for successes, episodes in outcomes])
    intervals = np.array([wilson_interval(*outcome) for outcome in outcomes]).T
    return rates, np.stack([rates - intervals[0], intervals[1] - rates])
