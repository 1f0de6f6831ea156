# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Parts of a page as HTML, which load nothing from elsewhere: pictures, charts of chunks, tables."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from ..preferences.chunk_figures import (
    MAGNIFICATION,
    DrawnChunk,
    draw_dimensions,
    draw_on_picture,
    draw_picture,
)
from ..simulation.hand_projection import HandProjection

PICTURE_INCHES = 4.0
DOTS_PER_INCH = 130
ON_PICTURE = f"Arrows show where a chunk moves the hand, {MAGNIFICATION} times as far as it does."
BESIDE_PICTURE = (
    "Where the hand is on this picture is not known, so that the chunks are not drawn on it: each chart shows one dimension of "
    "the actions over the steps of the chunk."
)

CSS = """
.gradio-container {width: 100%; max-width: 1100px !important; margin: 0 auto !important;}
.nora15 img, .nora15 video {width: 100%; height: auto; border-radius: 6px; background: white;}
.nora15 figcaption, .nora15 p {font-size: 0.9rem; margin: 0.3rem 0;}
.nora15 .table {overflow-x: auto;}
.nora15 table {border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums;}
.nora15 th, .nora15 td {padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid var(--border-color-primary);}
.nora15 th:first-child, .nora15 td:first-child {text-align: left;}
.pixels img {image-rendering: pixelated;}
.pixels img[data-testid], .pixels .image-frame img {width: 100%; height: 100%; object-fit: contain;}
"""


def picture_html(
    images: Sequence[np.ndarray],
    chunks: Sequence[DrawnChunk],
    alt: str,
    *,
    projection: HandProjection | None = None,
    hand: np.ndarray | None = None,
) -> str:
    """
    The pictures of a state, with chunks on the first of them where it is known how that camera sees the hand.

    Args:
        images (`Sequence[np.ndarray]`): uint8 `(height, width, 3)`, one per camera.
        chunks (`Sequence[DrawnChunk]`): In physical units.
        alt (`str`): What a reader hears who does not see the picture.
        projection ([`HandProjection`], *optional*), hand (`np.ndarray`, *optional*): Of the first camera, and the hand's place
            `(3,)` in metres; without both the chunks are not drawn.
    """
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(PICTURE_INCHES * len(images), PICTURE_INCHES * height / width))
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.02)
    for axes, image in zip(panels, images, strict=True):
        draw_picture(axes, image)
    drawn = bool(chunks) and projection is not None and hand is not None
    if drawn:
        action_axes = MAGNIFICATION * projection.action_axes(hand)
        draw_on_picture(panels[0], images[0], chunks, projection.on_picture(hand), action_axes)
    caption = "" if not chunks else ON_PICTURE if drawn else BESIDE_PICTURE
    return _figure_html(figure, alt, caption)


def dimensions_html(chunks: Sequence[DrawnChunk], action_names: Sequence[str], alt: str) -> str:
    """Chunks as a small chart for each dimension; `action_names` are the titles."""
    rows = -(-len(action_names) // 2)
    figure = Figure(figsize=(PICTURE_INCHES, 0.5 + 1.35 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    draw_dimensions(panels, chunks, action_names)
    entries = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    return _figure_html(figure, alt)


def lines_html(
    lines: Sequence[tuple[DrawnChunk, np.ndarray]], reference: tuple[str, float], x_label: str, y_label: str, alt: str
) -> str:
    """
    A chart with a line for each chunk.

    Args:
        lines (`Sequence[tuple[DrawnChunk, np.ndarray]]`): Chunks, whose names and colours the lines have, and values after 1,
            2, ... steps.
        reference (`tuple[str, float]`): Name and height of a horizontal line.
        x_label, y_label, alt (`str`): Titles of the axes, and what a reader hears who does not see the chart.
    """
    figure = Figure(figsize=(PICTURE_INCHES, 0.7 * PICTURE_INCHES), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for chunk, values in lines:
        axes.plot(np.arange(1, len(values) + 1), values, color=chunk.colour, linestyle=chunk.style, linewidth=1.8)
    name, height = reference
    axes.axhline(height, color="#1f2328", linewidth=1, linestyle=":")
    axes.annotate(name, (1, height), (0, 3), textcoords="offset points", fontsize=8)
    axes.margins(y=0.15)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _figure_html(figure, alt)


def table_html(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table of texts; its first column is aligned to the left."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headers)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    table = f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'<div class="nora15">{table}<p>{escape(caption)}</p></div>'


def _figure_html(figure: Figure, alt: str, caption: str = "") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="nora15"><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


__all__ = ["CSS", "dimensions_html", "lines_html", "picture_html", "table_html"]
