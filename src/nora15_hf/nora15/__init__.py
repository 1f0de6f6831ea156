# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The NORA-1.5 policy."""

from transformers import AutoConfig, AutoModel, AutoProcessor

from .backbone_parts import PrefixCache
from .configuration_nora15 import Nora15ActionExpertConfig, Nora15Config
from .modeling_nora15 import Nora15ForActionPrediction, Nora15Output
from .processing_nora15 import Nora15Processor

AutoConfig.register(Nora15ActionExpertConfig.model_type, Nora15ActionExpertConfig)
AutoConfig.register(Nora15Config.model_type, Nora15Config)
AutoModel.register(Nora15Config, Nora15ForActionPrediction)
AutoProcessor.register(Nora15Config, Nora15Processor)

__all__ = [
    "Nora15ActionExpertConfig",
    "Nora15Config",
    "Nora15ForActionPrediction",
    "Nora15Output",
    "Nora15Processor",
    "PrefixCache",
]
