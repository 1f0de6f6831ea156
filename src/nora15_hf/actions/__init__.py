# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Numbers of actions: normalisation with its statistics, the FAST codec, noise from keys."""

from .fast_codec import FastActionTokenizer
from .normalization import ActionStatistics

__all__ = ["ActionStatistics", "FastActionTokenizer"]
