# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The pictures of `nora15 imagine`: each function draws one, as a matplotlib figure."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..cards.wilson_interval import wilson_interval
from .film_strip import FilmStrip
from .imagination import Imagination, contestant_label

# Told apart by the colour-blind, and legible on white.
BLUE, ORANGE, GREEN, GREY, INK = "#2f6fc4", "#c26a00", "#14805a", "#737c87", "#1f2328"
INSTRUCTION_COLOURS = (BLUE, ORANGE, GREEN, "#8250c8", "#b3394b", "#5d7a00", "#007a8a", "#9a5b2f")


def film_strip(strip: FilmStrip, fps: float) -> Figure:
    """
    True frames above, the dataset's frames nearest to the imagined latents below.

    Args:
        strip ([`FilmStrip`]): What to draw.
        fps (`float`): Frames per second.
    """
    steps = len(strip.retrieved)
    height, width = strip.true_images[0].shape[:2]
    figure = Figure(figsize=(1.5 * (steps + 1), 3.0 * height / width + 1.3), layout="constrained")
    seen = "trained on" if strip.trained_on else "held out from training"
    figure.suptitle(
        f"Episode {strip.episode_index} ({seen}): {strip.instruction}", x=0.01, ha="left", fontsize=11, weight="bold"
    )
    rows = figure.subplots(2, steps + 1)
    for axes in rows.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    for step, image in enumerate(strip.true_images):
        axes = rows[0, step]
        axes.imshow(image, interpolation="nearest")
        when = "now" if step == 0 else f"+{step}  ({1000 * step / fps:.0f} ms)"
        axes.set_title(f"{when}\nframe {strip.first_frame + step}", fontsize=8.5)
        _frame(axes, GREY)
    rows[0, 0].set_ylabel("true", fontsize=10)
    rows[1, 0].set_axis_off()
    explanation = (
        "imagined from\nthe frame above\nwith the\ndemonstrated\nactions; shown\nis the nearest\nframe of the\ndataset"
    )
    rows[1, 0].text(
        0.5, 0.5, explanation, ha="center", va="center", fontsize=8, color=INK, transform=rows[1, 0].transAxes
    )
    for step, frame in enumerate(strip.retrieved, start=1):
        axes = rows[1, step]
        axes.imshow(frame.image, interpolation="nearest")
        lag = strip.lag(step)
        if lag is None:
            label, colour = f"episode {frame.episode_index},\nframe {frame.frame_index}", GREY
        elif lag == 0:
            label, colour = f"the true frame,\n{frame.frame_index}", GREEN
        else:
            late = f"{abs(lag)} {'later' if lag > 0 else 'earlier'}"
            label, colour = f"frame {frame.frame_index},\n{late}", BLUE if abs(lag) == 1 else ORANGE
        axes.set_title(label, fontsize=8.5, color=colour)
        energies = f"distance {strip.energies[step - 1]:.3f}\n(still {strip.still_energies[step - 1]:.3f})"
        axes.set_xlabel(energies, fontsize=8)
        _frame(axes, colour)
    return figure


def _frame(axes, colour: str) -> None:
    for spine in axes.spines.values():
        spine.set_edgecolor(colour)
        spine.set_linewidth(2)


def energy_curves(result: Imagination) -> Figure:
    """Mean distance to the true frame against the noise on the demonstrated chunk, for all cases and per instruction."""
    sensitivity = result.sensitivity
    levels = sorted({0.0: None} | sensitivity.noise)
    energies = np.stack(
        [(sensitivity.noise[level] if level else sensitivity.demonstrated).numpy() for level in levels]
    )
    figure = Figure(figsize=(5.4, 4.0), layout="constrained")
    axes = _axes(figure)
    names = sorted(set(result.instructions))
    # More lines than colours could not be told apart; the table has them all.
    for name, colour in zip(
        names if len(names) <= len(INSTRUCTION_COLOURS) else [], INSTRUCTION_COLOURS, strict=False
    ):
        cases = np.array([instruction == name for instruction in result.instructions])
        axes.plot(
            levels, energies[:, cases].mean(1), color=colour, linewidth=1, marker=".", label=f"{name} ({cases.sum()})"
        )
    error = 1.96 * energies.std(1) / np.sqrt(energies.shape[1])
    axes.errorbar(
        levels, energies.mean(1), error, color=INK, linewidth=2.2, capsize=3, label=f"all ({energies.shape[1]})"
    )
    others = {"another frame's chunk": (sensitivity.other_chunk, "--"), "no change at all": (sensitivity.still, ":")}
    for text, (energy, style) in others.items():
        axes.axhline(energy.mean().item(), color=GREY, linewidth=1.2, linestyle=style, label=text)
    axes.set_xlabel("noise on the demonstrated chunk (standard deviations)")
    axes.set_ylabel("distance to the true frame")
    axes.set_xticks(levels)
    figure.legend(
        loc="outside upper left", ncols=2, fontsize=8.5, frameon=False, title="instruction (cases)", title_fontsize=8.5
    )
    return figure


def ranking_bars(result: Imagination) -> Figure:
    """How often the demonstrated chunk is ranked above each contestant, all cases, with Wilson 95 % intervals."""
    rows = {contestant_label(name): row["all"] for name, row in result.ranking().items()}
    figure = Figure(figsize=(5.4, 0.9 + 0.5 * len(rows)), layout="constrained")
    axes = _axes(figure)
    for position, outcome in enumerate(rows.values()):
        rate = outcome[0] / outcome[1]
        low, high = wilson_interval(*outcome)
        axes.barh(position, rate, height=0.55, color=BLUE)
        axes.errorbar(rate, position, xerr=[[rate - low], [high - rate]], color=INK, linewidth=1, capsize=3)
        axes.annotate(f"{rate:.0%}", (high, position), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        "chance",
        (0.5, 1),
        (3, 0),
        textcoords="offset points",
        xycoords=("data", "axes fraction"),
        fontsize=8.5,
        color=GREY,
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("cases won by the demonstrated chunk")
    axes.grid(visible=False, axis="y")
    return figure


def _axes(figure: Figure):
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color="#d8dde3", linewidth=0.6)
    return axes


__all__ = ["energy_curves", "film_strip", "ranking_bars"]
