# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a visitor of `nora15 demo` types, and the proposals and films on the page."""

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..evaluation.recordings import VIDEO_FPS, write_video
from ..preferences.chunk_figures import CHOSEN, DEMONSTRATED, REJECTED, DrawnChunk
from ..simulation.hand_projection import HandProjection
from .demo_simulator import Film
from .page_parts import dimensions_html, lines_html, picture_html, table_html
from .ranked_policy import Proposal


def told(instruction: str) -> str:
    """An instruction that is one; raises a `ValueError` for an empty text."""
    if not instruction.strip():
        raise ValueError("The instruction is empty: write what the robot should do, for example “open the faucet”.")
    return instruction.strip()


def read_state(text: str, width: int) -> np.ndarray:
    """Numbers of a robot's state, float32 `(width,)`, from a text with commas or blanks between them."""
    try:
        numbers = np.array(text.replace(",", " ").split(), dtype=np.float32)
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (width,) or not np.isfinite(numbers).all():
        raise ValueError(f"The state {text!r} is not {width} numbers with commas between them.")
    return numbers


def drawn_candidates(proposal: Proposal) -> list[DrawnChunk]:
    """The chunks of a proposal, numbered from 1; the best is drawn on top of the others, the worst dashed."""
    looks = [("others", DEMONSTRATED, "-")] * len(proposal.chunks)
    if proposal.distances is not None:
        looks[-1], looks[0] = ("worst", REJECTED, "--"), ("best", CHOSEN, "-")
    drawn = [
        DrawnChunk(name, proposal.chunks[number], colour, style, mark=str(number + 1))
        for (name, colour, style), number in zip(looks, proposal.ranking, strict=True)
    ]
    return drawn[::-1]


def proposal_html(
    proposal: Proposal,
    names: Sequence[str],
    images: Sequence[np.ndarray],
    projection: HandProjection | None = None,
    hand: np.ndarray | None = None,
) -> tuple[str, str, str, str]:
    """
    A proposal as the picture, distances over the imagined steps, charts of the chunks, and the ranking; without a goal there is
    nothing to show of distances and ranking.
    """
    chunks = drawn_candidates(proposal)
    picture = picture_html(images, chunks, "What the policy sees", projection=projection, hand=hand)
    dimensions = dimensions_html(chunks, names, "Each drawn chunk, per dimension of its actions")
    if proposal.distances is None:
        return picture, "", dimensions, ""
    imagined = lines_html(
        list(zip(chunks, proposal.distances[proposal.ranking[::-1]], strict=True)),
        ("now", proposal.distance_now),
        "imagined steps",
        "distance to the goal",
        "Imagined distance to the goal after each action, for each chunk",
    )
    rows = [
        [f"{place}. chunk {number + 1}", f"{-proposal.distances[number, -1]:.4f}"]
        for place, number in enumerate(proposal.ranking, start=1)
    ]
    caption = f"Higher is better; staying where it is has {-proposal.distance_now:.4f}."
    return picture, imagined, dimensions, table_html(["rank", "reward"], rows, caption)


def sentence(proposal: Proposal) -> str:
    """What came of a proposal."""
    count = len(proposal.chunks)
    if proposal.distances is None:
        return f"{count} chunks were drawn. Without a goal they are not ranked."
    last = np.sort(proposal.distances[:, -1])
    return (
        f"{count} chunks were drawn and imagined. Chunk {proposal.ranking[0] + 1} is ranked first: its reward is "
        f"{last[-1] - last[0]:.2g} above that of the last."
    )


def outcome(film: Film, before: int) -> str:
    """How a film ends, `before` steps of which had been executed earlier."""
    steps = len(film.state.executed)
    told = "**Success**" if film.success else "The episode ended **without success**" if film.ended else "Not done yet"
    return f"{told} after {steps} steps, {steps - before} of them in this film."


def film_html(film: Film, control_rate: float) -> str:
    """A film as a video that starts by itself and can be played again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        write_video(path, film.frames, VIDEO_FPS)
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    speed = VIDEO_FPS / control_rate
    caption = "in real time" if speed == 1 else f"at {speed:.2g} times real speed"
    return (
        f'<figure class="nora15"><video controls autoplay muted playsinline src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>Every control step, {caption}.</figcaption></figure>"
    )


__all__ = ["drawn_candidates", "film_html", "outcome", "proposal_html", "read_state", "sentence", "told"]
