# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a preference dataset for its card: how rewards are spread, and what some pairs look like."""

from pathlib import Path

import numpy as np
from datasets import Dataset
from matplotlib.figure import Figure

from .chunk_figures import CHOSEN, DEMONSTRATED, REJECTED, draw_dimensions, preference_chunks
from .pairs import candidate_numbers

FIGURES_FOLDER = "figures"


def write_preference_figures(folder: str | Path, dataset: Dataset, num_examples: int = 3) -> list[Path]:
    """
    Draws `figures/rewards.png` and `figures/examples.png`.

    Args:
        folder (`str` or `Path`): of the preference dataset.
        dataset ([`~datasets.Dataset`]): its rows.
        num_examples (`int`, *optional*, defaults to 3): pairs to show, of small, middle and large margin.

    Returns:
        `list[Path]`: the pictures.
    """
    figures = Path(folder) / FIGURES_FOLDER
    figures.mkdir(exist_ok=True)
    pictures = {"rewards": _draw_rewards(dataset), "examples": _draw_examples(dataset, num_examples)}
    paths = []
    for name, figure in pictures.items():
        paths.append(figures / f"{name}.png")
        # Without the date and the version of matplotlib: the same rows give the same file.
        figure.savefig(paths[-1], dpi=90, metadata={"Software": None})
    return paths


def _draw_rewards(dataset: Dataset) -> Figure:
    """A histogram for each reward and their combination, chosen against rejected, and one for the margins."""
    columns = dataset.select_columns(["candidates", "chosen", "rejected", "rewards", "reward", "margin"])
    rows = columns.with_format("numpy")[:]
    of_side = {side: candidate_numbers(rows["candidates"], rows[side]) for side in ("chosen", "rejected")}
    names = list(dataset.features["rewards"])
    values = {name: np.stack([row[name] for row in rows["rewards"]]) for name in names}
    if len(names) > 1:
        values["combined"] = rows["reward"]
    figure = Figure(figsize=(3.2 * (len(values) + 1), 2.8), layout="constrained")
    axes = figure.subplots(1, len(values) + 1, squeeze=False)[0]
    for axis, (name, reward) in zip(axes, values.items(), strict=False):
        bins = np.histogram_bin_edges(reward, 30)
        for side, colour in (("chosen", CHOSEN), ("rejected", REJECTED)):
            picked = np.take_along_axis(reward, of_side[side][:, None], 1)
            axis.hist(picked.ravel(), bins, color=colour, alpha=0.6, label=side)
        axis.set_xlabel(f"reward {name!r}")
    axes[-1].hist(rows["margin"], 30, color=DEMONSTRATED)
    axes[-1].set_xlabel("margin")
    axes[0].set_ylabel("pairs")
    axes[0].legend(frameon=False)
    return figure


def _draw_examples(dataset: Dataset, num_examples: int) -> Figure:
    """Images next to plots of the chosen, rejected and demonstrated chunks, one panel per dimension."""
    order = np.argsort(np.array(dataset["margin"]))
    picked = order[np.linspace(0, len(order) - 1, min(num_examples, len(order)), dtype=int)]
    rows = [dataset[int(row)] for row in picked]
    action_dim = len(rows[0]["chosen"][0])
    figure = Figure(figsize=(2.4 + 1.5 * action_dim, 2.3 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), action_dim + 1, squeeze=False, width_ratios=[1.5] + [1] * action_dim)
    for row, axes in zip(rows, panels, strict=True):
        axes[0].imshow(np.asarray(row["images"][0]))
        axes[0].set_axis_off()
        axes[0].set_title(f"{row['instruction']}\nmargin {row['margin']:.3g}", fontsize="small")
        chunks = preference_chunks(*(np.array(row[name]) for name in ("chosen", "rejected", "actions")))
        draw_dimensions(axes[1:], chunks, [f"dimension {dim}" for dim in range(action_dim)])
        for axis in axes[1:]:
            axis.tick_params(labelsize="x-small")
    for axis in panels[-1][1:]:
        axis.set_xlabel("step", fontsize="small")
    handles, labels = panels[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


__all__ = ["FIGURES_FOLDER", "write_preference_figures"]
