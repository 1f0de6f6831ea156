# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Trainers on transformers and TRL, one configuration class each."""

from .adapters import load_merged_policy, nf4_config, policy_lora_config
from .flow_dpo.flow_dpo_config import FlowDPOConfig
from .flow_dpo.flow_dpo_trainer import FlowDPOTrainer
from .policy_setup import dataset_members, load_policy_for, tiny_policy_for
from .resume import find_checkpoint, is_finished
from .supervised.sft_config import Nora15SFTConfig
from .supervised.sft_trainer import Nora15SFTTrainer
from .world_model.encoder_pretraining_config import EncoderPretrainingConfig
from .world_model.encoder_pretraining_trainer import EncoderPretrainingTrainer
from .world_model.world_model_trainer import WorldModelTrainer
from .world_model.world_model_training_config import WorldModelTrainingConfig

__all__ = [
    "EncoderPretrainingConfig",
    "EncoderPretrainingTrainer",
    "FlowDPOConfig",
    "FlowDPOTrainer",
    "Nora15SFTConfig",
    "Nora15SFTTrainer",
    "WorldModelTrainer",
    "WorldModelTrainingConfig",
    "dataset_members",
    "find_checkpoint",
    "is_finished",
    "load_merged_policy",
    "load_policy_for",
    "nf4_config",
    "policy_lora_config",
    "tiny_policy_for",
]
