# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""V-JEPA 2-AC, the world model. Importing this package registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoProcessor

from .attention_vjepa2_ac import FrameCache
from .configuration_vjepa2_ac import VJEPA2ACConfig
from .modeling_vjepa2_ac import VJEPA2ACModel, VJEPA2ACPreTrainedModel, normalize_latents
from .planning import CrossEntropyConfig, plan_actions
from .poses import integrate_pose, pose_difference
from .predictor_vjepa2_ac import VJEPA2ACPredictor
from .presets import tiny_world_model
from .processing_vjepa2_ac import VJEPA2ACProcessor

AutoConfig.register("vjepa2_ac", VJEPA2ACConfig)
AutoModel.register(VJEPA2ACConfig, VJEPA2ACModel)
AutoProcessor.register(VJEPA2ACConfig, VJEPA2ACProcessor)

__all__ = [
    "CrossEntropyConfig",
    "FrameCache",
    "VJEPA2ACConfig",
    "VJEPA2ACModel",
    "VJEPA2ACPreTrainedModel",
    "VJEPA2ACPredictor",
    "VJEPA2ACProcessor",
    "integrate_pose",
    "normalize_latents",
    "plan_actions",
    "pose_difference",
    "tiny_world_model",
]
