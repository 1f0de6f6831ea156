# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
diffusers schedulers that can integrate NORA-1.5's flow (sigma 1 is noise, 0 is data, velocity = noise - data), and what
they are: fixed linear combinations of the noise and the velocities seen so far.

Every solver this package offers is linear in them, with coefficients that depend on the time grid alone. They are read
off the scheduler itself, once per configuration and number of steps. Integration is then plain tensor arithmetic: no
scheduler state between calls, no host-side index, nothing that a CUDA graph or `torch.compile` could not take in.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
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

from ..repo_files.stored_tensors import inside_folder

FLOW_SCHEDULERS = {
    scheduler.__name__: scheduler
    for scheduler in (
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    )
}


SAMPLING_PRESETS = {"released": 10, "few_steps": 5}
"""
Steps of Euler's method: those of the released code, and half as many, which lost no success in closed loop
(docs/performance.md).
"""


def load_flow_scheduler(repo_or_folder: str | Path, **hub_options) -> SchedulerMixin:
    """
    Loads the scheduler of a policy's repo from its `scheduler/` folder.

    Args:
        repo_or_folder (`str` or `Path`): Hub id or local folder.
        hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder` (the policy's).

    Raises:
        ValueError: When the scheduler is of a class that does not integrate flows.
        OSError: When the repo has no `scheduler/scheduler_config.json`.
    """
    config = FlowMatchEulerDiscreteScheduler.load_config(
        str(repo_or_folder), **inside_folder(hub_options, "scheduler")
    )
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


@dataclass(frozen=True)
class FlowSolver:
    r"""
    The velocity is evaluated at `times[k]`, on `coefficients[k, 0] * noise + sum_j coefficients[k, j + 1] * velocity_j`;
    the last row of the coefficients gives the result.

    Args:
        times (`torch.FloatTensor` of shape `(evaluations,)`): Flow times, 1 = noise, 0 = data.
        coefficients (`torch.FloatTensor` of shape `(evaluations + 1, evaluations + 1)`): Lower triangular.
    """

    times: torch.Tensor
    coefficients: torch.Tensor

    def integrate(self, velocity: Callable[[torch.Tensor, int], torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
        """
        Args:
            velocity (`Callable`): From a sample of the shape of `noise` and the number of the evaluation to the velocity.
            noise (`torch.FloatTensor`): Start of the integration.

        Returns:
            `torch.FloatTensor` of the shape of `noise`.
        """
        terms = noise.new_empty(len(self.times) + 1, *noise.shape)
        terms[0] = noise
        weights = self.coefficients.to(noise.device).view(*self.coefficients.shape, *[1] * noise.ndim)
        sample = noise
        for evaluation in range(len(self.times)):
            terms[evaluation + 1] = velocity(sample, evaluation)
            seen = evaluation + 2
            sample = (weights[evaluation + 1, :seen] * terms[:seen]).sum(0)
        return sample


def flow_solver(scheduler: SchedulerMixin, num_steps: int) -> FlowSolver:
    """
    The solver that a scheduler stands for.

    Args:
        scheduler (`SchedulerMixin`): One of `FLOW_SCHEDULERS`; it is left as it is.
        num_steps (`int`): Solver steps.

    Raises:
        ValueError: The scheduler is not for flows, or draws noise or clips in its steps.
    """
    return _read_solver(type(scheduler), scheduler.to_json_string(), num_steps)


@functools.lru_cache(maxsize=128)
def _read_solver(scheduler_class: type[SchedulerMixin], config: str, num_steps: int) -> FlowSolver:
    scheduler = scheduler_class.from_config(json.loads(config))
    times = set_flow_timesteps(scheduler, num_steps)
    # Noise and velocities as the axes of a space: where a step arrives, its coordinates are the coefficients.
    axes = torch.eye(len(times) + 1)
    coefficients = _run(scheduler, axes[:, None])[:, 0]
    scheduler = scheduler_class.from_config(json.loads(config))
    set_flow_timesteps(scheduler, num_steps)
    trial = torch.randn(len(axes), 1, 64, generator=torch.Generator().manual_seed(0))
    expected = _run(scheduler, trial)
    if not torch.allclose(torch.einsum("kj,j...->k...", coefficients, trial), expected, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{scheduler_class.__name__} draws noise or clips in its steps, as its configuration asks: {config}. Actions "
            "are integrated by a deterministic solver: leave out stochastic_sampling, thresholding and sde-* algorithms."
        )
    return FlowSolver(times, coefficients)


def _run(scheduler: SchedulerMixin, terms: torch.Tensor) -> torch.Tensor:
    """The scheduler's points on the way from `terms[0]`, noise, when the velocities are `terms[1:]`; both ends included."""
    points = [terms[0]]
    for timestep, velocity in zip(scheduler.timesteps, terms[1:], strict=True):
        points.append(scheduler.step(velocity, timestep, points[-1]).prev_sample)
    return torch.stack(points)


__all__ = [
    "FLOW_SCHEDULERS",
    "SAMPLING_PRESETS",
    "FlowSolver",
    "flow_solver",
    "load_flow_scheduler",
    "set_flow_timesteps",
]
