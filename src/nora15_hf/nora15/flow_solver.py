# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A diffusers flow scheduler as what it is: a fixed linear combination of the noise and the velocities seen so far.

Every solver this package offers is linear in them, with coefficients that depend on the time grid alone. They are read
off the scheduler itself, once per configuration and number of steps. Integration is then plain tensor arithmetic: no
scheduler state between calls, no host-side index, nothing that a CUDA graph or `torch.compile` could not take in.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin

from .flow_schedulers import set_flow_timesteps


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
        scheduler (`SchedulerMixin`): See `flow_schedulers`; it is left as it is.
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


__all__ = ["FlowSolver", "flow_solver"]
