# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""lerobot's own pipelines before and after the policy, without normalisation: the server does that."""

from lerobot.processor import make_default_pre_post_processors

from .configuration_nora15 import Nora15Config


def make_nora15_pre_post_processors(config: Nora15Config, dataset_stats=None):
    """Batch axis and device before the policy, CPU after it. lerobot finds this function by its name."""
    return make_default_pre_post_processors(config, dataset_stats, normalizer_device=config.device)


__all__ = ["make_nora15_pre_post_processors"]
