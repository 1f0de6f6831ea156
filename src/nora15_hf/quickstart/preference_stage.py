# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stage that samples candidates, scores them and writes the preference dataset."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..clips.clip_conventions import ClipConventions
from ..preferences.dataset_builder import build_preferences
from ..preferences.rewards import preset_reward
from ..trainers.policy_setup import complete_chunk_indices
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from .config import QuickstartConfig
from .policy_stages import load_policy, open_demonstrations

REWARD_PRESET = "paper"


def build_preference_dataset(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """Candidates of the SFT policy at demonstrated states; best against worst by the paper's reward."""
    policy, processor = load_policy(output / "policy-sft")
    world_model = VJEPA2ACModel.from_pretrained(output / "world-model", dtype=torch.float32)
    reward = preset_reward(
        REWARD_PRESET,
        world_model,
        VJEPA2ACProcessor.from_pretrained(output / "world-model"),
        conventions=ClipConventions.from_pretrained(output / "world-model"),
    )
    dataset = open_demonstrations(output, config)
    indices = complete_chunk_indices(dataset)
    chosen = np.random.default_rng(config.seed).permutation(len(indices))[: config.preference_states]
    preferences = build_preferences(
        output / "preferences",
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=np.sort(indices[chosen]).tolist(),
        reward=reward,
        num_candidates=config.num_candidates,
        seed=config.seed,
    )
    return {"pairs": len(preferences), "states": min(config.preference_states, len(indices))}


__all__ = ["REWARD_PRESET", "build_preference_dataset"]
