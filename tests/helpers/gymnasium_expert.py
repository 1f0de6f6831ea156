# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Meta-World as gymnasium's environment, with its scripted expert. Worker processes import it: it must not import torch."""

ID = "nora15_hf.simulation.gymnasium_registration:nora15_hf/MetaWorld-handle-press-v3"
EXPERT = "helpers.gymnasium_expert:metaworld_expert"


def metaworld_expert(env):
    """What the expert does in a `RegisteredEnv`, at every call."""
    return env._environment.expert_action


__all__ = ["EXPERT", "ID", "metaworld_expert"]
