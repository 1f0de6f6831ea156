# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
diffusers schedulers that can integrate NORA-1.5's flow (sigma 1 is noise, 0 is data, velocity = noise - data), and what
they are: fixed linear combinations of the noise and the velocities seen so far.

Every solver of a flow is linear in them, with coefficients that depend on the time grid alone. They are read off the
scheduler itself, once per configuration and number of steps, and tell whether it integrates a flow at all: along a straight
line, where all velocities are `noise - data`, it must stand at `data + t * (noise - data)` at every time t and end at the data.
Integration is then plain tensor arithmetic: no scheduler state between calls, no host-side index, nothing that a CUDA
graph or `torch.compile` could not take in.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin

from ..repo_files.stored_tensors import inside_folder

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
FLOW_SCHEDULERS: dict[str, dict[str, Any]] = {
    "FlowMatchEulerDiscreteScheduler": {"shift": 1.0},
    "FlowMatchHeunDiscreteScheduler": {},
    "DEISMultistepScheduler": _FLOW,
    "DPMSolverMultistepScheduler": _FLOW,
    "DPMSolverSinglestepScheduler": _FLOW,
    "UniPCMultistepScheduler": _FLOW,
}
"""Classes of diffusers that integrate a flow, with the options that make them do so. Others may; they are measured."""

# Grids that begin at 0.999 instead of 1, as diffusers' do, are off by that much.
_TOLERANCE = 0.01

_KNOWN = "Schedulers of flows are, among others: " + ", ".join(
    f"{name}({', '.join(f'{option}={value!r}' for option, value in options.items())})"
    for name, options in FLOW_SCHEDULERS.items()
)

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
        ValueError: When diffusers has no such scheduler, or it does not integrate a flow.
        OSError: When the repo has no `scheduler/scheduler_config.json`.
    """
    config = FlowMatchEulerDiscreteScheduler.load_config(
        str(repo_or_folder), **inside_folder(hub_options, "scheduler")
    )
    file = f"scheduler/scheduler_config.json of {str(repo_or_folder)!r}"
    name = config.get("_class_name") if isinstance(config, dict) else None
    scheduler_class = getattr(diffusers, str(name), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)):
        raise ValueError(
            f"{file} names {name!r}, which is not a scheduler of diffusers {diffusers.__version__}. {_KNOWN}"
        )
    try:
        scheduler = scheduler_class.from_config(config)
        flow_solver(scheduler, SAMPLING_PRESETS["released"])
    # A scheduler may do anything with values of another type.
    except Exception as error:
        what = (
            str(error)
            if isinstance(error, ValueError)
            else f"{type(error).__name__}: {error}. Correct its values. {_KNOWN}"
        )
        raise ValueError(f"{file}: {what}") from error
    return scheduler


def save_flow_scheduler(scheduler: SchedulerMixin, folder: str | Path, num_steps: int) -> None:
    """
    Writes a scheduler so that [`load_flow_scheduler`] gives it back.

    Args:
        scheduler (`SchedulerMixin`): The scheduler.
        folder (`str` or `Path`): Of the policy; the file goes into its folder `scheduler/`.
        num_steps (`int`): Solver steps of the policy.

    Raises:
        ValueError: It is of a class that diffusers does not have, so that nobody could load it, or it does not integrate a
            flow, which its configuration may have ceased to ask for since it was assigned.
    """
    flow_solver(scheduler, num_steps)
    name = type(scheduler).__name__
    if getattr(diffusers, name, None) is not type(scheduler):
        raise ValueError(
            f"model.scheduler is a {name} of {type(scheduler).__module__}, which diffusers {diffusers.__version__} does not "
            f"have: the saved policy could not be loaded. Assign one of diffusers' before saving. {_KNOWN}"
        )
    scheduler.save_pretrained(Path(folder) / "scheduler")


def set_flow_timesteps(
    scheduler: SchedulerMixin, num_steps: int, device: torch.device | str = "cpu"
) -> torch.FloatTensor:
    """
    Prepares a scheduler for `num_steps` steps and returns the flow times at which it evaluates the velocity.

    Euler gets NORA's grid 1, 1 - 1/n, ..., 1/n in float32 (its own default grid spends the last evaluation next to
    t = 0). Heun evaluates 2n - 1 times.

    Returns:
        `torch.FloatTensor` of shape `(evaluations,)`, on `device`.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=(1.0 - np.arange(num_steps) / num_steps).tolist(), device=device)
        return scheduler.sigmas[:-1].to(device)
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
        scheduler (`SchedulerMixin`): Recognised by what it does, whatever its class; it is left as it is.
        num_steps (`int`): Solver steps.

    Raises:
        ValueError: It does not integrate a flow, or draws noise or clips in its steps.
        TypeError: It is no scheduler of diffusers' kind.
    """
    if not isinstance(scheduler, SchedulerMixin):
        raise TypeError(
            f"The scheduler is a {type(scheduler).__name__}, expected a diffusers SchedulerMixin. {_KNOWN}"
        )
    return _read_solver(type(scheduler), scheduler.to_json_string(), num_steps)


@functools.lru_cache(maxsize=128)
def _read_solver(scheduler_class: type[SchedulerMixin], config: str, num_steps: int) -> FlowSolver:
    name = scheduler_class.__name__
    try:
        times, fresh = _prepare(scheduler_class, config, num_steps)
        # Noise and velocities as the axes of a space: where a step arrives, its coordinates are the coefficients.
        coefficients = _run(fresh, torch.eye(len(times) + 1)[:, None])[:, 0]
        trial = torch.randn(len(times) + 1, 1, 64, generator=torch.Generator().manual_seed(0))
        expected = _run(_prepare(scheduler_class, config, num_steps)[1], trial)
    # Whatever a scheduler for something else does with the arguments of one for flows.
    except Exception as error:
        raise ValueError(
            f"{name} cannot integrate a flow in num_steps={num_steps}: {type(error).__name__}: {error} {_KNOWN}"
        ) from error
    if not torch.allclose(torch.einsum("kj,j...->k...", coefficients, trial), expected, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{name} does not integrate a flow with its configuration: it draws noise or clips in its steps, as {config} requires. "
            "Actions are integrated by a deterministic solver: omit stochastic_sampling, thresholding and sde-* "
            f"algorithms. {_KNOWN}"
        )
    left = 1 + coefficients[-1, 1:].sum()
    if left > _TOLERANCE and (left - times[-1]).abs() < _TOLERANCE:
        # DEIS stops at its last time instead of 0: from there its last velocity carries on.
        coefficients[-1, -1] -= times[-1]
    noise, velocity = coefficients[:, 0], coefficients[:, 1:].sum(1)
    expected = torch.cat([times, times.new_zeros(1)]) - 1
    # Written so that NaN is refused.
    if not ((noise - 1).abs().max() < _TOLERANCE and (velocity - expected).abs().max() < _TOLERANCE):
        raise ValueError(
            f"{name} does not integrate a flow with its configuration: in {num_steps} steps along a straight line from the "
            f"noise to the actions it reaches {noise[-1]:.3g} * noise + {velocity[-1]:.3g} * (noise - actions); expected "
            f"1 and -1, and likewise at the times in between. {_KNOWN}"
        )
    return FlowSolver(times, coefficients)


def _prepare(
    scheduler_class: type[SchedulerMixin], config: str, num_steps: int
) -> tuple[torch.FloatTensor, SchedulerMixin]:
    scheduler = scheduler_class.from_config(json.loads(config))
    return set_flow_timesteps(scheduler, num_steps), scheduler


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
    "save_flow_scheduler",
    "set_flow_timesteps",
]
