# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Chunks of actions in matplotlib: the path of the hand on a camera's picture, and a line for each action dimension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

# At least 3 : 1 against white and against near-black, and told apart by the colour-blind.
CHOSEN, REJECTED, DEMONSTRATED = "#1a9367", "#d97f00", "#818b98"

MAGNIFICATION = 4
"""Arrows on a picture are drawn longer than life: five steps move the hand a few pixels."""


@dataclass(frozen=True)
class DrawnChunk:
    """
    A chunk and how it is drawn.

    Attributes:
        name (`str`): For the legend.
        actions (`np.ndarray`): float `(H, A)`.
        colour (`str`), style (`str`): Of its line, as matplotlib takes them.
        mark (`str`, *optional*): What is written at the end of its path on a picture.
    """

    name: str
    actions: np.ndarray
    colour: str
    style: str = "-"
    mark: str = ""


def preference_chunks(chosen: np.ndarray, rejected: np.ndarray, demonstrated: np.ndarray) -> list[DrawnChunk]:
    """The chunks `(H, A)` of a preference pair and its demonstration, what matters most last, so that it is drawn on top."""
    return [
        DrawnChunk("demonstrated", demonstrated, DEMONSTRATED, ":"),
        DrawnChunk("rejected", rejected, REJECTED, "--"),
        DrawnChunk("chosen", chosen, CHOSEN),
    ]


def draw_on_picture(
    axes: Any,
    image: np.ndarray,
    chunks: Sequence[DrawnChunk],
    origin: Sequence[float],
    action_axes: np.ndarray,
) -> None:
    """
    Draws the paths of chunks, whose first three dimensions move the hand along x, y and z, as arrows on a picture.

    Args:
        axes (`matplotlib.axes.Axes`): Where.
        image (`np.ndarray`): uint8 `(height, width, 3)`.
        chunks (`Sequence[DrawnChunk]`): The last one is drawn on top.
        origin (`Sequence[float]`): Where the hand is, (right, down) in fractions of the picture's sides.
        action_axes (`np.ndarray`): float `(2, 3)`, how far one unit of x, y and z is drawn, in the same fractions.
    """
    size = np.array(image.shape[1::-1])
    start = np.asarray(origin) * size - 0.5
    draw_picture(axes, image)
    for chunk in chunks:
        path = np.vstack([np.zeros(3), np.cumsum(chunk.actions[:, :3], axis=0)])
        points = path @ action_axes.T * size + start
        # A white rim keeps the arrows visible on any background.
        axes.plot(*points.T, color="white", linewidth=4.6, solid_capstyle="round")
        axes.plot(*points.T, color=chunk.colour, linewidth=2.6, linestyle=chunk.style)
        arrow = {"arrowstyle": "-|>", "facecolor": chunk.colour, "edgecolor": "white", "mutation_scale": 17}
        axes.annotate("", points[-1], points[-2], arrowprops=arrow)
        if chunk.mark:
            box = {"boxstyle": "circle,pad=0.15", "facecolor": chunk.colour, "edgecolor": "white"}
            axes.annotate(chunk.mark, points[-1], color="white", fontsize=8, ha="center", va="center", bbox=box)
    axes.plot(*start, "o", color="white", markeredgecolor="black")


def draw_picture(axes: Any, image: np.ndarray) -> None:
    """Shows a picture, uint8 `(height, width, 3)`, and nothing around it."""
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()


def draw_dimensions(panels: Sequence[Any], chunks: Sequence[DrawnChunk], action_names: Sequence[str]) -> None:
    """
    Draws chunks as one small line chart per action dimension.

    Args:
        panels (sequence of `matplotlib.axes.Axes`): At least one per dimension; those that are left over are hidden.
        chunks (`Sequence[DrawnChunk]`): All with the same A.
        action_names (`Sequence[str]`): A titles.
    """
    for dimension, (axes, name) in enumerate(zip(panels[: len(action_names)], action_names, strict=True)):
        for chunk in chunks:
            steps = np.arange(1, len(chunk.actions) + 1)
            values = chunk.actions[:, dimension]
            axes.plot(steps, values, color=chunk.colour, linestyle=chunk.style, linewidth=1.8, label=chunk.name)
        axes.set_title(name, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    for axes in panels[len(action_names) :]:
        axes.set_axis_off()


__all__ = [
    "CHOSEN",
    "DEMONSTRATED",
    "MAGNIFICATION",
    "REJECTED",
    "DrawnChunk",
    "draw_dimensions",
    "draw_on_picture",
    "draw_picture",
    "preference_chunks",
]
