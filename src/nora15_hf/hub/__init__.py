# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Repos on the Hugging Face Hub: what goes into them and their cards."""

from .artefacts import Artefact, find_artefact
from .push import push_folder
from .push_plan import PushPlan, plan_push

__all__ = ["Artefact", "PushPlan", "find_artefact", "plan_push", "push_folder"]
