# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""NORA-1.5 on the Hugging Face Hub. Importing this package registers its models with transformers' Auto classes."""

from importlib.metadata import version

from .actions import ActionStatistics, FastActionTokenizer
from .nora15 import (
    Nora15ActionExpertConfig,
    Nora15Config,
    Nora15ForActionPrediction,
    Nora15Output,
    Nora15Processor,
    PrefixCache,
)
from .vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, VJEPA2ACProcessor

__version__ = version("nora15_hf")

__all__ = [
    "ActionStatistics",
    "FastActionTokenizer",
    "Nora15ActionExpertConfig",
    "Nora15Config",
    "Nora15ForActionPrediction",
    "Nora15Output",
    "Nora15Processor",
    "PrefixCache",
    "VJEPA2ACConfig",
    "VJEPA2ACModel",
    "VJEPA2ACProcessor",
    "__version__",
]
