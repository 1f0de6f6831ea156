# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Repos on the Hugging Face Hub: what goes into them and their cards."""

from .artefacts import Artefact, find_artefact
from .card_evaluation import add_evaluation, read_evaluation
from .describe import AuthorFacts, write_card
from .push import push_folder
from .push_plan import PushPlan, plan_push

__all__ = [
    "Artefact",
    "AuthorFacts",
    "PushPlan",
    "add_evaluation",
    "find_artefact",
    "plan_push",
    "push_folder",
    "read_evaluation",
    "write_card",
]
