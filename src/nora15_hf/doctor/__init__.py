# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 doctor`: what a user wants to know about a policy before it moves a robot."""

from .doctor import examine_policy
from .report import DoctorReport, Finding

__all__ = ["DoctorReport", "Finding", "examine_policy"]
