# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips of an episode that a world model learns from, and the conventions that they were cut by."""

from .clip_conventions import ClipConventions
from .episode_clips import EpisodeClips

__all__ = ["ClipConventions", "EpisodeClips"]
