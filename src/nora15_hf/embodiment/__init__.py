# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The contract that travels with every artefact, and its check wherever two artefacts meet."""

from .comparison import compare
from .embodiment import Camera, Embodiment
from .junctions import EmbodimentError, check_junction

__all__ = ["Camera", "Embodiment", "EmbodimentError", "check_junction", "compare"]
