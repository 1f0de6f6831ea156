# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The page of `nora15 demo`: one tab with a simulator, one with the visitor's own pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from ..preferences.simulator_states import SimulatorState
from ..simulation.environment import FIRST_EVALUATION_SEED, Observation
from ..simulation.simulation_pool import LostEnvironmentError
from .demo_simulator import DemoSimulator, noise_key
from .page_parts import picture_html
from .preference_browser import named_dimensions
from .ranked_policy import RankedPolicy
from .shown_proposal import film_html, outcome, proposal_html, read_state, sentence, told

MAX_CANDIDATES = 16
# One model and one simulator serve all visitors, one after another.
EVENT = {"concurrency_id": "models", "concurrency_limit": 1, "api_visibility": "private"}


@contextmanager
def errors_on_the_page() -> Iterator[None]:
    """What a visitor can mend, or should know, is shown to them, without a traceback on the terminal."""
    try:
        yield
    except (ValueError, LostEnvironmentError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def demo_page(
    ranked: RankedPolicy,
    *,
    title: str,
    num_candidates: int,
    simulator: DemoSimulator | None = None,
    tasks: Sequence[str] = (),
) -> gr.Blocks:
    """
    The page.

    Args:
        ranked ([`RankedPolicy`]): Who draws and ranks.
        title (`str`): Its headline.
        num_candidates (`int`): Chunks that are drawn unless the visitor wants another number.
        simulator ([`DemoSimulator`], *optional*), tasks (`Sequence[str]`): Where the best chunk can be executed, and tasks to
            choose from.
    """
    names = named_dimensions(ranked.contract.action_dim, ranked.contract.action_names, ranked.contract.action_units)
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(
            f"# {title}\n\nThe policy draws several chunks of actions for what it sees and is told. The world model imagines where "
            "each leads; the reward of a chunk is minus the distance between the last imagined frame and the goal, in latents."
        )
        with gr.Tabs():
            if simulator is not None:
                with gr.Tab(simulator.spec.title):
                    _simulator_tab(page, ranked, simulator, tasks, names, num_candidates)
            with gr.Tab("Your own picture"):
                _picture_tab(ranked, names, num_candidates)
    return page


def _simulator_tab(
    page: gr.Blocks,
    ranked: RankedPolicy,
    simulator: DemoSimulator,
    tasks: Sequence[str],
    names: Sequence[str],
    num_candidates: int,
) -> None:
    spec = simulator.spec
    whole_episode = -(-spec.max_steps // min(spec.n_action_steps or spec.max_steps, ranked.processor.chunk_size))
    with gr.Row():
        task = gr.Dropdown(list(tasks), value=tasks[0], label="Task", min_width=140)
        seed = gr.Number(FIRST_EVALUATION_SEED, label="Seed of the episode", minimum=0, precision=0, min_width=140)
        instruction = gr.Textbox(spec.task(tasks[0]).instruction, label="Instruction", min_width=240)
    with gr.Row():
        candidates = gr.Slider(
            1, max(MAX_CANDIDATES, num_candidates), num_candidates, step=1, label="Chunks to draw", min_width=200
        )
        chunks = gr.Slider(1, whole_episode, whole_episode, step=1, label="Chunks to execute at most", min_width=200)
    with gr.Row():
        propose = gr.Button("Draw and rank", min_width=120)
        execute = gr.Button("Execute the best", variant="primary", min_width=120)
        again = gr.Button("Back to the start", min_width=120)
    status = gr.Markdown(elem_id="status")
    with gr.Row():
        with gr.Column(min_width=300):
            picture, dimensions, ranking = gr.HTML(), gr.HTML(), gr.HTML()
        with gr.Column(min_width=300):
            film, imagined = gr.HTML(elem_id="film"), gr.HTML()
            goal = gr.Image(
                label="Goal, as the world model's camera should see it",
                type="numpy",
                format="png",
                sources=["upload", "clipboard"],
                height=320,
                buttons=[],
                elem_classes="pixels",
            )
    state, draw = gr.State(), gr.State(0)

    @errors_on_the_page()
    def start(task: str, seed: float | None) -> tuple[Any, ...]:
        beginning = simulator.beginning(task, int(seed or 0))
        wanted = simulator.goal_picture(task, beginning.seed, ranked.judged_camera)
        text = f"The first state of {task}, seed {beginning.seed}."
        if wanted is None:
            text += " There is no expert's goal for this episode: give a picture of your own to have chunks ranked."
        return beginning, 0, wanted, text, *shown_state(simulator.look(beginning))

    def shown_state(observation: Observation) -> tuple[str, ...]:
        """The picture without chunks; film, charts and table are emptied."""
        return picture_html(list(observation.images.values()), [], "The simulator's present state"), "", "", "", ""

    @errors_on_the_page()
    def draw_and_rank(
        state: SimulatorState, draw: int, instruction: str, goal: np.ndarray | None, candidates: int
    ) -> tuple[Any, ...]:
        observation = replace(simulator.look(state), instruction=told(instruction))
        draw += 1
        proposal = ranked.propose(observation, goal, int(candidates), noise_key(state, draw))
        hand = None if observation.state is None else observation.state[:3]
        shown = proposal_html(proposal, names, list(observation.images.values()), spec.hand_projection, hand)
        return draw, f"{len(state.executed)} steps were executed so far. {sentence(proposal)}", *shown

    def execute_best(
        state: SimulatorState, draw: int, instruction: str, goal: np.ndarray | None, candidates: int, chunks: int
    ) -> Iterator[tuple[Any, ...]]:
        before = len(state.executed)
        with errors_on_the_page():
            films = simulator.drive(
                ranked,
                state,
                told(instruction),
                goal,
                num_candidates=int(candidates),
                num_chunks=int(chunks),
                draw=draw,
            )
            for number, film in enumerate(films, start=1):
                executed = len(film.state.executed) - before
                text = f"Chunk {number} of at most {int(chunks)}: {executed} steps executed."
                yield state, text, *[gr.skip()] * 5
        seen, _, *emptied = shown_state(film.observation)
        yield film.state, outcome(film, before), seen, film_html(film, spec.control_rate), *emptied

    scene = [state, draw, goal, status, picture, film, imagined, dimensions, ranking]
    proposed = [draw, status, picture, imagined, dimensions, ranking]
    page.load(start, [task, seed], scene, **EVENT)
    task.input(lambda name: spec.task(name).instruction, task, instruction, **EVENT).then(
        start, [task, seed], scene, **EVENT
    )
    seed.submit(start, [task, seed], scene, **EVENT)
    again.click(start, [task, seed], scene, **EVENT)
    propose.click(draw_and_rank, [state, draw, instruction, goal, candidates], proposed, **EVENT)
    execute.click(
        execute_best,
        [state, draw, instruction, goal, candidates, chunks],
        [state, status, picture, film, imagined, dimensions, ranking],
        **EVENT,
    )


def _picture_tab(ranked: RankedPolicy, names: Sequence[str], num_candidates: int) -> None:
    gr.Markdown(
        "Nothing is executed here: the policy and the world model look at your pictures, and their answer is drawn."
    )
    upload = {
        "type": "numpy",
        "format": "png",
        "sources": ["upload", "clipboard", "webcam"],
        "height": 240,
        "buttons": [],
    }
    with gr.Row():
        pictures = [gr.Image(label=f"Camera {camera!r}", min_width=200, **upload) for camera in ranked.cameras]
        goal = gr.Image(
            label=f"Goal, as camera {ranked.judged_camera!r} should see it (optional)", min_width=200, **upload
        )
    width = ranked.contract.state_dim or 0
    state_names = named_dimensions(width, ranked.contract.state_names, ranked.contract.state_units)
    state = gr.Textbox(
        label=f"State: {width} numbers ({', '.join(state_names)})",
        visible=ranked.processor.needs_state,
    )
    with gr.Row():
        instruction = gr.Textbox(label="Instruction", min_width=240)
        candidates = gr.Slider(
            1, max(MAX_CANDIDATES, num_candidates), num_candidates, step=1, label="Chunks to draw", min_width=200
        )
    propose = gr.Button("Draw and rank", variant="primary")
    status = gr.Markdown()
    with gr.Row():
        with gr.Column(min_width=300):
            picture, ranking = gr.HTML(), gr.HTML()
        with gr.Column(min_width=300):
            dimensions, imagined = gr.HTML(), gr.HTML()

    @errors_on_the_page()
    def draw_and_rank(
        instruction: str, state: str, candidates: int, goal: np.ndarray | None, *given: np.ndarray | None
    ) -> tuple[str, ...]:
        missing = [camera for camera, image in zip(ranked.cameras, given, strict=True) if image is None]
        if missing:
            raise ValueError(f"The picture of camera {', '.join(map(repr, missing))} is missing: upload one.")
        numbers = read_state(state, width) if ranked.processor.needs_state else None
        observation = Observation(dict(zip(ranked.cameras, given, strict=True)), numbers, told(instruction))
        proposal = ranked.propose(observation, goal, int(candidates), (0,))
        shown = proposal_html(proposal, names, list(given))
        return sentence(proposal), *shown

    propose.click(
        draw_and_rank,
        [instruction, state, candidates, goal, *pictures],
        [status, picture, imagined, dimensions, ranking],
        **EVENT,
    )


__all__ = ["demo_page"]
