# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A reward by its name, with the world model that it needs."""

from pathlib import Path
from typing import Any

import torch
from transformers import ProcessorMixin

from ..clips.clip_conventions import ClipConventions
from ..data.lerobot_dataset import LeRobotDataset
from ..simulation.simulation_pool import SimulationPool
from ..vjepa2_ac.modeling_vjepa2_ac import VJEPA2ACModel
from ..vjepa2_ac.processing_vjepa2_ac import VJEPA2ACProcessor
from .metric_actions import MetricActions
from .rewards import GroundTruthActionReward, WeightedReward, preset_reward


def load_reward(
    name: str,
    processor: ProcessorMixin,
    dataset: LeRobotDataset,
    *,
    world_model: str | Path | None = None,
    pool: SimulationPool | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    ground_truth: GroundTruthActionReward | None = None,
    standardize: bool = False,
    **options: Any,
) -> WeightedReward:
    """
    A reward of candidates.

    Args:
        name (`str`): `"ground_truth"`, the deviation from the demonstration alone; `"success"`, the simulator's verdict, earlier
            success a little better; or one of [`~nora15_hf.preferences.REWARD_PRESETS`].
        processor ([`Nora15Processor`]): Of the policy whose candidates are judged.
        dataset ([`LeRobotDataset`]): Of the states.
        world_model (`str` or `Path`, *optional*): Folder or Hub id, for the presets.
        pool ([`SimulationPool`], *optional*): For `"success"`: simulators under the dataset's conventions.
        device (`torch.device`, *optional*), dtype (`torch.dtype`, *optional*): Of the world model; by default the CPU, and the
            type that it is stored in.
        ground_truth ([`GroundTruthActionReward`], *optional*): With other weights of its dimensions than the default.
        standardize (`bool`, *optional*, defaults to `False`): See [`WeightedReward`].
        options: `goal`, `released_horizon` and `weights` of [`preset_reward`].

    Raises:
        ValueError: An unknown name, or as the reward's class.
    """
    if name == "ground_truth":
        return WeightedReward({name: (ground_truth or GroundTruthActionReward(), 1.0)}, standardize)
    if name == "success":
        # Imported here, since it needs the simulator.
        from .simulator_reward import SimulatorSuccessReward

        return WeightedReward({name: (SimulatorSuccessReward(pool, processor, dataset, discount=0.99), 1.0)})
    model = VJEPA2ACModel.from_pretrained(world_model, dtype=dtype or "auto").to(device)
    conventions = ClipConventions.from_pretrained(world_model)
    is_metric = model.config.action_convention == "metric"
    return preset_reward(
        name,
        model,
        VJEPA2ACProcessor.from_pretrained(world_model),
        standardize=standardize,
        ground_truth=ground_truth,
        conventions=conventions,
        metric_actions=MetricActions(processor, dataset, conventions.state_key) if is_metric else None,
        **options,
    )


__all__ = ["load_reward"]
