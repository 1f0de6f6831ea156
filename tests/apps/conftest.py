# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders that the commands `demo` and `view` take."""

import pytest

from nora15_hf.clips import ClipConventions
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.vjepa2_ac import tiny_world_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with `policy` and `world-model`, with random weights, for Meta-World's pictures of 56 pixels."""
    root = tmp_path_factory.mktemp("models")
    policy, processor = tiny_policy(
        image_size=56, conventions={"default": {"simulator": "metaworld", "image_size": 56, "renderer": "raycast"}}
    )
    world_model, world_model_processor = tiny_world_model(image_size=56, action_dim=4)
    conventions = ClipConventions(
        dataset="demonstrations",
        dataset_fingerprint="f",
        image_key="observation.image",
        action_key="action",
        statistics=processor.norm_stats["default"],
        normalization_mode=processor.normalization_mode,
    )
    for part in (policy, processor):
        part.save_pretrained(root / "policy")
    for part in (world_model, world_model_processor, conventions):
        part.save_pretrained(root / "world-model")
    return root
