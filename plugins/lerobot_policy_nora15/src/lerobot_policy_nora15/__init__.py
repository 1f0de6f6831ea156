# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""NORA-1.5 as a lerobot policy: `--policy.type=nora15`. lerobot imports this package by itself once it is installed."""

from .configuration_nora15 import Nora15Config

__all__ = ["Nora15Config"]
