# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The page of `nora15 view`."""

from typing import Any

import gradio as gr

from .preference_browser import PreferenceBrowser
from .shown_pair import pair_html, sentence, slider_limits

EVERY_INSTRUCTION = "every instruction"


def view_page(browser: PreferenceBrowser) -> gr.Blocks:
    """A page that filters the pairs of a preference set and shows one of them at a time."""
    lowest, highest, step = slider_limits(browser.margins)
    with gr.Blocks(title="Preferences", analytics_enabled=False) as page:
        gr.Markdown(f"# Preferences\n\n{browser.describe()}")
        with gr.Row():
            instruction = gr.Dropdown([EVERY_INSTRUCTION, *browser.instructions()], label="Instruction", min_width=200)
            limits = {"minimum": lowest, "maximum": highest, "step": step, "min_width": 200}
            smallest = gr.Slider(**limits, value=lowest, label="Smallest margin")
            largest = gr.Slider(**limits, value=highest, label="Largest margin")
            position = gr.Number(1, label="Pair, from the largest margin", minimum=1, precision=0, min_width=200)
        count = gr.Markdown(elem_id="count")
        with gr.Row():
            back = gr.Button("Previous pair", min_width=120)
            onward = gr.Button("Next pair", min_width=120)
        with gr.Row():
            with gr.Column(min_width=300):
                picture = gr.HTML()
            with gr.Column(min_width=300):
                dimensions = gr.HTML()
        rewards = gr.HTML()

        def show(instruction: str, smallest: float, largest: float, position: float | None) -> tuple[Any, ...]:
            wanted = None if instruction == EVERY_INSTRUCTION else instruction
            rows = browser.find(wanted, smallest, largest)
            if not rows:
                return 1, "**No pair** has this instruction and a margin between these limits.", "", "", ""
            place = min(max(int(position or 1), 1), len(rows))
            pair = browser.pair(rows[place - 1])
            found = f"**Pair {place} of {len(rows)}** ({len(browser.margins)} in all): {sentence(pair)}"
            return place, found, *pair_html(browser, pair)

        filters, shown = [instruction, smallest, largest], [position, count, picture, dimensions, rewards]
        options = {"show_progress": "hidden", "concurrency_id": "pairs", "api_visibility": "private"}
        page.load(show, [*filters, position], shown, **options)
        for each in filters:
            each.change(lambda *chosen: show(*chosen, 1), filters, shown, **options)
        position.submit(show, [*filters, position], shown, **options)
        for button, step in ((back, -1), (onward, 1)):
            button.click(
                lambda *given, step=step: show(*given[:-1], (given[-1] or 1) + step),
                [*filters, position],
                shown,
                **options,
            )
    return page


__all__ = ["view_page"]
