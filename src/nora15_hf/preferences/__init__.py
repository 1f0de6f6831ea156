# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preferences over action chunks: candidates, rewards, pairs and the dataset that holds them.

What needs a simulator lives in `simulator_reward` and `reached_states`, which are imported by their own names.
"""

from ..control.chunk_samplers import FastSampler, FlowSampler
from .candidates import sample_candidates
from .dataset_builder import NoPairsError, build_preferences, regenerate_candidates
from .metric_actions import MetricActions
from .pair_sources import EpisodeSuccess, Interventions, PairSource, StaleAgainstFresh
from .pairs import PairSelection, select_pairs
from .preference_dataset import check_preferences, load_preferences, preference_features, split_by_episode
from .preference_record import PreferenceInfo, PreferenceRecord, preference_info
from .reranking import rerank_preferences
from .reward_check import RewardCheck, check_reward
from .reward_decisions import RewardDecisions
from .rewards import (
    REWARD_PRESETS,
    GroundTruthActionReward,
    Reward,
    RewardBatch,
    WeightedReward,
    WorldModelGoalReward,
    preset_reward,
)
from .states import select_states

__all__ = [
    "REWARD_PRESETS",
    "EpisodeSuccess",
    "FastSampler",
    "FlowSampler",
    "GroundTruthActionReward",
    "Interventions",
    "MetricActions",
    "NoPairsError",
    "PairSelection",
    "PairSource",
    "PreferenceInfo",
    "PreferenceRecord",
    "Reward",
    "RewardBatch",
    "RewardCheck",
    "RewardDecisions",
    "StaleAgainstFresh",
    "WeightedReward",
    "WorldModelGoalReward",
    "build_preferences",
    "check_preferences",
    "check_reward",
    "load_preferences",
    "preference_features",
    "preference_info",
    "preset_reward",
    "regenerate_candidates",
    "rerank_preferences",
    "sample_candidates",
    "select_pairs",
    "select_states",
    "split_by_episode",
]
