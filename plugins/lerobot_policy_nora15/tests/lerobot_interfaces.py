# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the plugin imports from lerobot 0.6.1, with the same names, abstract methods and checks, for environments without it."""

import abc
import sys
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType

import torch
from torch import nn


class FeatureType(str, Enum):
    STATE = "STATE"
    VISUAL = "VISUAL"
    ACTION = "ACTION"


class NormalizationMode(str, Enum):
    IDENTITY = "IDENTITY"


@dataclass
class PolicyFeature:
    type: FeatureType
    shape: tuple[int, ...]


@dataclass
class PreTrainedConfig(abc.ABC):
    n_obs_steps: int = 1
    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    device: str | None = None
    use_amp: bool = False

    choices = {}

    def __post_init__(self):
        self.device = self.device or "cpu"

    @classmethod
    def register_subclass(cls, name):
        def register(config_class):
            cls.choices[name] = config_class
            return config_class

        return register

    @classmethod
    def get_choice_class(cls, name):
        return cls.choices[name]

    @property
    def robot_state_feature(self):
        return self.input_features.get("observation.state")

    @property
    def image_features(self):
        return {key: feature for key, feature in self.input_features.items() if feature.type is FeatureType.VISUAL}

    @property
    def action_feature(self):
        return self.output_features.get("action")

    observation_delta_indices = abc.abstractproperty()
    action_delta_indices = abc.abstractproperty()
    reward_delta_indices = abc.abstractproperty()

    @abc.abstractmethod
    def get_optimizer_preset(self): ...

    @abc.abstractmethod
    def get_scheduler_preset(self): ...

    @abc.abstractmethod
    def validate_features(self): ...


class PreTrainedPolicy(nn.Module, abc.ABC):
    def __init__(self, config, *inputs, **kwargs):
        super().__init__()
        assert isinstance(config, PreTrainedConfig)
        self.config = config

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        assert cls.config_class
        assert cls.name

    @abc.abstractmethod
    def get_optim_params(self): ...

    @abc.abstractmethod
    def reset(self): ...

    @abc.abstractmethod
    def forward(self, batch): ...

    @abc.abstractmethod
    def predict_action_chunk(self, batch, **kwargs): ...

    @abc.abstractmethod
    def select_action(self, batch, **kwargs): ...


def make_default_pre_post_processors(config, dataset_stats=None, *, normalizer_device=None):
    assert set(config.normalization_mapping.values()) == {NormalizationMode.IDENTITY}

    def add_batch_axis(observation):
        """As lerobot's step does: of a single observation."""
        return {
            key: [value] if isinstance(value, str) else value[None] if value.ndim in (1, 3) else value
            for key, value in observation.items()
        }

    return add_batch_axis, torch.Tensor.cpu


def install() -> None:
    """Puts the stand-ins where the plugin looks for lerobot."""
    modules = {
        "lerobot": {},
        "lerobot.configs": {
            "FeatureType": FeatureType,
            "NormalizationMode": NormalizationMode,
            "PolicyFeature": PolicyFeature,
            "PreTrainedConfig": PreTrainedConfig,
        },
        "lerobot.policies": {"PreTrainedPolicy": PreTrainedPolicy},
        "lerobot.processor": {"make_default_pre_post_processors": make_default_pre_post_processors},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module


__all__ = ["install"]
