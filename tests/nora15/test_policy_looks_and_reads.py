# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A small policy trained on two tasks of one scene must succeed, and fail when it is told or shown the wrong thing."""

import pytest

from nora15_hf.quickstart.config import QuickstartConfig
from nora15_hf.quickstart.evaluation_stages import evaluate_arm, evaluate_controls, record
from nora15_hf.quickstart.policy_stages import train_sft
from nora15_hf.simulation.simulation_pool import SimulationPool

pytestmark = [pytest.mark.simulator, pytest.mark.slow]

EPISODES = 10


@pytest.fixture(scope="module")
def successes(tmp_path_factory) -> dict[str, int]:
    """Successes out of 2 x EPISODES with intact inputs, with the other task's instruction, with shuffled pictures."""
    config = QuickstartConfig(
        tasks=("faucet-open", "faucet-close"),
        episodes=15,
        sft_steps=180,
        sft_batch_size=32,
        evaluation_episodes=EPISODES,
        control_episodes=EPISODES,
    )
    output = tmp_path_factory.mktemp("policy")
    (output / ".quickstart").mkdir()
    with SimulationPool(config.environment, num_workers=2, **config.environment_settings) as pool:
        record(output, config, pool)
        train_sft(output, config)
        runs = {"intact": evaluate_arm(output, config, pool, "sft")["episodes"]}
        runs |= evaluate_controls(output, config, pool)
    return {name: sum(episode["success"] for episode in episodes) for name, episodes in runs.items()}


def test_learns(successes):
    # Far above what a policy that ignores the instruction could reach, half of the episodes.
    assert successes["intact"] >= 1.4 * EPISODES, successes


def test_reads_the_instruction(successes):
    assert successes["swapped_instruction"] <= successes["intact"] - EPISODES, successes


def test_looks_at_the_image(successes):
    assert successes["shuffled_images"] <= successes["intact"] - EPISODES, successes
