# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy in a control loop: one observation in, one action in physical units out."""

from .control_policy import InvalidChunkError, Nora15ControlPolicy
from .observation import check_observation
from .timing import ControlTiming, TimingSummary

__all__ = ["ControlTiming", "InvalidChunkError", "Nora15ControlPolicy", "TimingSummary", "check_observation"]
