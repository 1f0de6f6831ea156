# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A preference pair as `nora15 view` shows it."""

import math

import numpy as np

from ..preferences.chunk_figures import preference_chunks
from .page_parts import dimensions_html, picture_html, table_html
from .preference_browser import Pair, PreferenceBrowser


def sentence(pair: Pair) -> str:
    """What a pair is, and which reward decided it."""
    decided = pair.decided_by
    share = "" if pair.margin == 0 else f", which gave {decided.share / pair.margin:.0%} of the margin"
    return (
        f"“{pair.instruction}”, episode {pair.episode_index}, frame {pair.frame_index}; margin {pair.margin:.4g}, decided by "
        f"{decided.name}{share}."
    )


def pair_html(browser: PreferenceBrowser, pair: Pair) -> tuple[str, str, str]:
    """A pair as a picture, charts of its chunks, and a table of rewards."""
    chunks = preference_chunks(pair.chosen, pair.rejected, pair.demonstrated)
    seen = f"What the robot saw when it was told “{pair.instruction}”"
    picture = picture_html(pair.images, chunks, seen, projection=browser.projection, hand=pair.hand)
    dimensions = dimensions_html(
        chunks, browser.action_names, "Chosen, rejected and demonstrated actions per dimension"
    )
    marks = {pair.chosen_number: "chosen", pair.rejected_number: "rejected"}
    rows = [
        [
            " ".join(filter(None, [str(number + 1), marks.get(number, "")])),
            *(f"{share.scores[number]:.4g}" for share in pair.shares),
            f"{pair.reward[number]:.4g}",
        ]
        for number in np.argsort(-pair.reward)
    ]
    rows.append(["share of the margin", *(f"{share.share:+.4g}" for share in pair.shares), f"{pair.margin:.4g}"])
    headers = ["candidate", *(f"{share.name} (weight {share.weight:g})" for share in pair.shares), "ranked by"]
    return (
        picture,
        dimensions,
        table_html(
            headers,
            rows,
            "Higher is better. A reward's share is weighted, and negative where it preferred the rejected chunk.",
        ),
    )


def slider_limits(margins: np.ndarray) -> tuple[float, float, float]:
    """Limits of a slider that include all margins, and its step, as short decimal numbers."""
    lowest, highest = float(margins.min()), float(margins.max())
    # Equal margins need a slider with some room, too.
    digits = math.floor(math.log10(highest - lowest or abs(highest) or 1.0)) - 2
    step = 10.0**digits
    # Divided before they are rounded, and rounded again: 3 * 0.1 is not 0.3.
    low, high = math.floor(lowest / step), math.ceil(highest / step)
    return tuple(round(number * step, max(0, -digits)) for number in (low, max(high, low + 1), 1))


__all__ = ["pair_html", "sentence", "slider_limits"]
