# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The plots of docs/evidence.md."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis import PairedDifference, SuccessRate

COLOURS = ("#2f81d6", "#d9480f", "#2da44e", "#8250df", "#bf8700", "#57606a", "#cf222e", "#1b7c83")
GREY = "#59636e"


def forest(differences: Mapping[str, Sequence[PairedDifference]], target: float) -> Figure:
    """
    A panel for each control and a row for each arm: points and interval, and each training seed as a dot.

    Args:
        differences (`Mapping[str, Sequence[PairedDifference]]`): Control to the arms compared with it.
        target (`float`): Points, drawn as a line.
    """
    arms = list(dict.fromkeys(each.arm for those in differences.values() for each in those))
    figure = Figure(figsize=(9.0, 1.1 + 0.32 * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(differences), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (control, those) in zip(panels, differences.items(), strict=True):
        for each in those:
            row = arms.index(each.arm)
            low, high = each.interval
            axis.plot(list(each.per_seed.values()), [row] * each.seeds, ".", color=GREY, alpha=0.5)
            axis.plot([low, high], [row, row], color=COLOURS[0], linewidth=2)
            axis.plot(each.points, row, "o", color=COLOURS[0])
        axis.axvline(0, color="black", linewidth=0.8)
        axis.axvline(target, color=GREY, linewidth=0.8, linestyle="--")
        axis.set_title(f"against {control}", fontsize="medium", loc="left")
        axis.set_xlabel("points")
        axis.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].invert_yaxis()
    return figure


def success_per_task(success: Mapping[str, SuccessRate]) -> Figure:
    """A heat map: a row for each arm, a column for each task and for all."""
    tasks = sorted({task for rate in success.values() for task in rate.per_task})
    values = np.array([[*(rate.per_task.get(task, np.nan) for task in tasks), rate.rate] for rate in success.values()])
    figure = Figure(figsize=(2.6 + 0.75 * len(tasks), 1.8 + 0.32 * len(success)), layout="constrained")
    _heat_map(figure.subplots(), values, list(success), [*tasks, "all"])
    return figure


def reward_quality(quality: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Figure:
    """
    A panel for each way to group pairs, with a curve for each reward.

    Args:
        quality (`pd.DataFrame`): Of [`analysis.reward_quality`].
        groups (`Mapping[str, Sequence[str]]`): What pairs are grouped by, and the groups in order.
    """
    figure = Figure(figsize=(1.6 + 4.2 * len(groups), 3.6), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    rewards = quality["reward"].unique()
    for axis, (by, names) in zip(panels, groups.items(), strict=True):
        for number, reward in enumerate(rewards):
            own = quality[(quality["by"] == by) & (quality["reward"] == reward)]
            rows = own.set_index("group").loc[list(names)]
            # Side by side, so that intervals do not hide one another.
            places = np.arange(len(names)) + 0.06 * (number - (len(rewards) - 1) / 2)
            errors = [(rows["share"] - rows["low"]).clip(lower=0), (rows["high"] - rows["share"]).clip(lower=0)]
            colour = COLOURS[number % len(COLOURS)]
            axis.errorbar(places, rows["share"], yerr=errors, color=colour, marker="o", capsize=3, label=reward)
        axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(names)), names, fontsize="small")
        axis.set_title(f"by {by}", fontsize="medium", loc="left")
        axis.grid(axis="y", alpha=0.3)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("prefers the candidate that succeeds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    return figure


def settings_map(arms: pd.DataFrame) -> Figure:
    """
    Heat maps of success over learning rate and beta, one for each combination of the other settings.

    Args:
        arms (`pd.DataFrame`): A row per arm: `learning_rate`, `beta`, `success` in [0, 1] and other settings.
    """
    others = [
        name
        for name in arms.columns.difference(["learning_rate", "beta", "success"], sort=False)
        if arms[name].map(repr).nunique() > 1
    ]
    titles = ["\n".join(f"{name} {row[name]}" for name in others if pd.notna(row[name])) for _, row in arms.iterrows()]
    arms = arms.assign(panel=titles)
    maps = {
        panel: own.pivot_table(index="learning_rate", columns="beta", values="success")
        for panel, own in arms.groupby("panel", sort=False)
    }
    figure = Figure(figsize=(3.4 * len(maps), 3.6), layout="constrained")
    for axis, (panel, values) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        _heat_map(axis, values.to_numpy(), [f"{rate:g}" for rate in values.index], [f"{beta:g}" for beta in values])
        axis.set_title(panel, fontsize="small", loc="left")
        axis.set_xlabel("beta")
        axis.set_ylabel("learning rate")
    return figure


def _heat_map(axis, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Shares in [0, 1] as colours with their percentage."""
    axis.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > 0.6 else "black"
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize="small")
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize="small")
    axis.set_yticks(range(len(rows)), rows, fontsize="small")


__all__ = ["forest", "reward_quality", "settings_map", "success_per_task"]
