# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stage that samples candidates, scores them and writes the preference dataset."""

from pathlib import Path
from typing import Any

import numpy as np

from ..preferences.dataset_builder import build_preferences
from ..preferences.reward_loading import load_reward
from ..stages.post_training import load_policy
from ..trainers.policy_setup import complete_chunk_indices
from .config import QuickstartConfig
from .policy_stages import open_demonstrations

REWARD_PRESET = "paper"


def build_preference_dataset(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """Candidates of the SFT policy at demonstrated states; best against worst by the paper's reward."""
    policy, processor = load_policy(output / "policy-sft")
    dataset = open_demonstrations(output, config)
    indices = complete_chunk_indices(dataset)
    chosen = np.random.default_rng(config.seed).permutation(len(indices))[: config.preference_states]
    preferences = build_preferences(
        output / "preferences",
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=np.sort(indices[chosen]).tolist(),
        reward=load_reward(REWARD_PRESET, processor, dataset, world_model=output / "world-model"),
        num_candidates=config.num_candidates,
        seed=config.seed,
    )
    return {"pairs": len(preferences), "states": min(config.preference_states, len(indices))}


__all__ = ["REWARD_PRESET", "build_preference_dataset"]
