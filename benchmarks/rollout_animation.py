# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Makes the animation of README: one episode of each task with random weights and after training, side by side.

    python benchmarks/rollout_animation.py outputs/quickstart --output docs/assets/rollouts.webp

The policy is that of a finished quickstart run. Each picture has the instruction that the policy was given, and a green frame once
the task is done.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.control.chunk_samplers import FlowSampler
from nora15_hf.evaluation.episodes import EpisodeResult
from nora15_hf.evaluation.evaluate import evaluate_policy
from nora15_hf.quickstart.config import QuickstartConfig
from nora15_hf.quickstart.policy_stages import initial_policy
from nora15_hf.repo_files.written_whole import written_whole
from nora15_hf.simulation.simulation_pool import SimulationPool
from nora15_hf.stages.post_training import load_policy

PICTURE, MARGIN, CAPTION, TITLE = 168, 8, 18, 22
RECORD_EVERY, FRAMES_PER_SECOND, SECONDS_AT_THE_END = 3, 10, 1.5
GREEN, GREY = (0, 150, 80), (90, 90, 90)


def animation(episodes: dict[str, list[EpisodeResult]]) -> list[Image.Image]:
    """Frames of a grid with one row per policy and one column per task."""
    length = max(len(episode.frames) for row in episodes.values() for episode in row)
    return [_grid(episodes, time) for time in range(length)]


def _grid(episodes: dict[str, list[EpisodeResult]], time: int) -> Image.Image:
    columns = max(map(len, episodes.values()))
    row_height = TITLE + PICTURE + CAPTION + MARGIN
    grid = Image.new("RGB", (MARGIN + columns * (PICTURE + MARGIN), MARGIN + len(episodes) * row_height), "white")
    draw = ImageDraw.Draw(grid)
    title_font, caption_font = ImageFont.load_default(15), ImageFont.load_default(12)
    for row, (title, results) in enumerate(episodes.items()):
        top = MARGIN + row * row_height
        draw.text((MARGIN, top), title, fill="black", font=title_font)
        for column, episode in enumerate(results):
            left = MARGIN + column * (PICTURE + MARGIN)
            frame = Image.fromarray(episode.frames[min(time, len(episode.frames) - 1)])
            grid.paste(frame.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC), (left, top + TITLE))
            if episode.success and time >= len(episode.frames) - 1:
                box = (left, top + TITLE, left + PICTURE - 1, top + TITLE + PICTURE - 1)
                draw.rectangle(box, outline=GREEN, width=4)
            draw.text((left, top + TITLE + PICTURE + 2), episode.instruction, fill=GREY, font=caption_font)
    return grid


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished quickstart run")
    parser.add_argument("--policy", default="policy-sft", help="which of its policies (default %(default)s)")
    parser.add_argument("--seed", type=int, default=10_000, help="of every episode (default %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="the .webp file")
    options = parser.parse_args(arguments)
    config = QuickstartConfig()
    policies = {
        "Random weights": initial_policy(options.run, config),
        "After supervised training": load_policy(options.run / options.policy),
    }
    with SimulationPool(config.environment, num_workers=config.num_workers, **config.environment_settings) as pool:
        episodes = {
            title: evaluate_policy(
                Nora15ChunkPolicy(*policy, sampler=FlowSampler(temperature=config.temperature)),
                config.tasks,
                pool,
                episodes_per_task=1,
                first_seed=options.seed,
                n_action_steps=config.num_action_steps,
                record_every=RECORD_EVERY,
            )
            for title, policy in policies.items()
        }
    first, *rest = animation(episodes)
    durations = [1000 // FRAMES_PER_SECOND] * len(rest) + [round(1000 * SECONDS_AT_THE_END)]
    with written_whole(options.output) as part:
        first.save(part, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=70, method=6)
    for title, results in episodes.items():
        print(f"{title}: {np.sum([each.success for each in results])} of {len(results)} episodes succeed")


if __name__ == "__main__":
    main()
