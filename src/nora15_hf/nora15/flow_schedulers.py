# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""diffusers schedulers that can integrate NORA-1.5's flow: sigma 1 is noise, 0 is data, velocity = noise - data."""

from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

FLOW_SCHEDULERS = {
    scheduler.__name__: scheduler
    for scheduler in (
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    )
}


SAMPLING_PRESETS = {"released": 10, "fast": 5}
"""
Steps of Euler's method: those of the released code, and half as many, which lost no success in closed loop
(docs/performance.md).
"""


def load_flow_scheduler(repo_or_folder: str | Path, **hub_options) -> SchedulerMixin:
    """
    Loads the scheduler of a policy's repo from its `scheduler/` folder.

    Args:
        repo_or_folder (`str` or `Path`): Hub id or local folder.
        hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.

    Raises:
        ValueError: When the scheduler is of a class that does not integrate flows.
        OSError: When the repo has no `scheduler/scheduler_config.json`.
    """
    config = FlowMatchEulerDiscreteScheduler.load_config(str(repo_or_folder), subfolder="scheduler", **hub_options)
    name = config["_class_name"]
    if name not in FLOW_SCHEDULERS:
        raise ValueError(
            f"scheduler/scheduler_config.json of {str(repo_or_folder)!r} names {name!r}, which does not integrate a "
            f"flow. Supported: {sorted(FLOW_SCHEDULERS)}."
        )
    return FLOW_SCHEDULERS[name].from_config(config)


def set_flow_timesteps(
    scheduler: SchedulerMixin, num_steps: int, device: torch.device | str = "cpu"
) -> torch.FloatTensor:
    """
    Prepares a scheduler for `num_steps` steps and returns the flow times at which it evaluates the velocity.

    Euler gets NORA's grid 1, 1 - 1/n, ..., 1/n in float32 (its own default grid spends the last evaluation next to
    t = 0). Heun evaluates 2n - 1 times; DPM-Solver and UniPC must be configured with
    `prediction_type="flow_prediction", use_flow_sigmas=True`.

    Returns:
        `torch.FloatTensor` of shape `(evaluations,)`, on `device`.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=(1.0 - np.arange(num_steps) / num_steps).tolist(), device=device)
        return scheduler.sigmas[:-1].to(device)
    if isinstance(scheduler, (DPMSolverMultistepScheduler, UniPCMultistepScheduler)) and not (
        scheduler.config.use_flow_sigmas and scheduler.config.prediction_type == "flow_prediction"
    ):
        raise ValueError(
            f"{type(scheduler).__name__} is configured for diffusion, not for flow: make it with "
            'prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0.'
        )
    scheduler.set_timesteps(num_steps, device=device)
    return scheduler.timesteps.float() / scheduler.config.num_train_timesteps


__all__ = ["FLOW_SCHEDULERS", "SAMPLING_PRESETS", "load_flow_scheduler", "set_flow_timesteps"]
