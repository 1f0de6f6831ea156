# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A record of how preferences came about, for tests that build none."""

from nora15_hf.preferences.preference_record import PreferenceCounts, PreferenceRecord, PreferenceSettings

SETTINGS = PreferenceSettings(
    policy="robots/policy",
    policy_fingerprint="f0",
    dataset_key="arm",
    num_states=3,
    states_fingerprint="f1",
    num_candidates=4,
    sampler={"type": "FlowSampler", "num_steps": 10},
    num_noisy_negatives=1,
    noise_std=0.5,
    chunk_size=5,
    action_dim=7,
    reward={
        "standardize": False,
        "rewards": {
            "world_model": {"weight": 1.0, "world_model": "robots/world-model"},
            "ground_truth": {"weight": 0.5},
        },
    },
    pairing="best_worst",
    min_margin=0.0,
    shard_size=2,
    batch_size=2,
    seed=0,
)


def make_record() -> PreferenceRecord:
    """The record of a finished set of two shards."""
    shards = {
        "train-00000-of-00002.parquet": PreferenceCounts(states=2, ties=1, pairs=1),
        "train-00001-of-00002.parquet": PreferenceCounts(states=1, pairs=1),
    }
    return PreferenceRecord(
        SETTINGS, {"packages": {"torch": "2"}}, [4, 7, 9], shards, sum(shards.values(), PreferenceCounts())
    )
