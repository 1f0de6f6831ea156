# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The PNG files of `nora15 imagine` and the page that shows them, which loads nothing from elsewhere."""

import base64
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from ..cards.wilson_interval import wilson_interval
from .figures import energy_curves, film_strip, ranking_bars
from .imagination import Imagination, contestant_label

PAGE_FILE = "index.html"
DOTS_PER_INCH = 130


def write_page(folder: Path, result: Imagination) -> Path:
    """
    Writes `film-strip-<episode>.png`, `energy.png`, `ranking.png` and `index.html`.

    Args:
        folder (`Path`): An existing folder. Film strips of an earlier call are removed.
        result ([`Imagination`]): What to show.

    Returns:
        `Path`: The page.
    """
    for stale in folder.glob("film-strip-*.png"):
        stale.unlink()
    strips = [
        (strip, _save(film_strip(strip, result.fps), folder / f"film-strip-{strip.episode_index:06d}.png"))
        for strip in result.strips
    ]
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    ranking = result.ranking()
    html = (
        Environment(autoescape=True, undefined=StrictUndefined)
        .from_string(template)
        .render(
            result=result,
            strips=strips,
            energy=_save(energy_curves(result), folder / "energy.png"),
            bars=_save(ranking_bars(result), folder / "ranking.png"),
            groups=["all", *sorted(set(result.instructions))],
            ranking={contestant_label(name): row for name, row in ranking.items()},
            metrics=result.sensitivity.metrics(),
            percent=lambda outcome: f"{100 * outcome[0] / outcome[1]:.0f}\u00a0%",
            interval=_interval,
        )
    )
    path = folder / PAGE_FILE
    path.write_text(html, encoding="utf-8")
    return path


def _save(figure: Figure, path: Path) -> str:
    """Writes a PNG and returns it as a data URI."""
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _interval(outcome: tuple[int, int]) -> str:
    low, high = wilson_interval(*outcome)
    return f"{100 * low:.0f}\u00a0–\u00a0{100 * high:.0f}\u00a0%"


__all__ = ["PAGE_FILE", "write_page"]
