# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preference tuning in rounds: sample where the current policy goes, judge, tune, compare, and go again."""
