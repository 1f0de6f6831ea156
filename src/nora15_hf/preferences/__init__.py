# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preferences over action chunks: candidates, rewards, pairs and the dataset that holds them."""

from .candidates import candidate_noise, sample_candidates
from .preference_dataset import (
    PairSelection,
    build_preferences,
    check_preferences,
    load_preferences,
    preference_features,
    select_pairs,
)
from .rewards import (
    REWARD_PRESETS,
    GroundTruthActionReward,
    Reward,
    RewardBatch,
    WeightedReward,
    WorldModelGoalReward,
    preset_reward,
)

__all__ = [
    "REWARD_PRESETS",
    "GroundTruthActionReward",
    "PairSelection",
    "Reward",
    "RewardBatch",
    "WeightedReward",
    "WorldModelGoalReward",
    "build_preferences",
    "candidate_noise",
    "check_preferences",
    "load_preferences",
    "preference_features",
    "preset_reward",
    "sample_candidates",
    "select_pairs",
]
