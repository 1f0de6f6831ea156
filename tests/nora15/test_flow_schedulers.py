# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""diffusers schedulers as solvers of the flow: recognised by what they do, never by their name."""

import diffusers
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from helpers.inference_runs import draw
from nora15_hf.nora15.flow_schedulers import (
    FLOW_SCHEDULERS,
    flow_solver,
    load_flow_scheduler,
    save_flow_scheduler,
    set_flow_timesteps,
)
from nora15_hf.nora15.presets import tiny_policy

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
# As in `type(other).from_config(model.scheduler.config)`, which drops what the class does not know.
OPTIONS = {
    "default": {},
    "flow": FLOW,
    "shifted": FLOW | {"flow_shift": 3.0, "shift": 3.0},
    "inverted": {"invert_sigmas": True},
}
SOLVERS = {(name, options) for name in FLOW_SCHEDULERS for options in ("flow", "shifted")} | {
    *((f"FlowMatch{name}DiscreteScheduler", "default") for name in ("Euler", "Heun")),
    ("FlowMatchHeunDiscreteScheduler", "inverted"),
    # No classes that are listed.
    *(("DPMSolverMultistepInverseScheduler", options) for options in ("flow", "shifted")),
    *(("FlowMapEulerDiscreteScheduler", options) for options in ("default", "flow", "shifted", "inverted")),
}
CLASSES = [
    kind
    for name in dir(diffusers)
    if name.endswith("Scheduler") and issubclass(kind := getattr(diffusers, name), diffusers.SchedulerMixin)
]


def named(name):
    return getattr(diffusers, name)(**FLOW_SCHEDULERS[name])


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("name", FLOW_SCHEDULERS)
def test_coefficients_give_what_the_scheduler_gives(name, num_steps):
    """A nonlinear field, so that every point on the way counts."""
    scheduler = named(name)
    solver = flow_solver(scheduler, num_steps)
    assert scheduler.step_index is None

    def velocity(x, time):
        return torch.sin(3 * x + time) - 0.3 * x

    noise = draw(2, 5, 4)
    found = solver.integrate(lambda x, number: velocity(x, solver.times[number]), noise)
    times = set_flow_timesteps(scheduler, num_steps)
    assert torch.equal(times, solver.times)
    sample = noise
    for time, timestep in zip(times, scheduler.timesteps, strict=True):
        slope = velocity(sample, time)
        sample = scheduler.step(slope, timestep, sample).prev_sample
    if name.startswith("DEIS"):
        # It stops at its last time.
        sample = sample - slope * time
    # Heun's second stage divides by a last sigma of 0.001, and DEIS's steps by differences of logarithms, which magnify the
    # rounding of either.
    magnifies = "Heun" in name or name.startswith("DEIS")
    torch.testing.assert_close(found, sample, atol=2e-4 if magnifies else 2e-5, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.slow
def test_every_scheduler_of_diffusers_is_refused_or_converges(kind, options, tmp_path):
    """And what converges is saved and loaded. The exact flow from N(0, 1) to N(0.4, 0.3) has a known answer."""
    try:
        scheduler = kind.from_config(OPTIONS[options])
    except TypeError:
        pytest.skip("has arguments without a default")
    if (kind.__name__, options) not in SOLVERS:
        with pytest.raises(ValueError, match=f"^{kind.__name__} (does not|cannot) integrate a flow") as caught:
            flow_solver(scheduler, 40)
        assert all(name in str(caught.value) for name in FLOW_SCHEDULERS)
        return
    solver = flow_solver(scheduler, 40)
    noise = draw(64, 5, 4)

    def velocity(x, number):
        t = solver.times[number]
        variance = t**2 + (1 - t) ** 2 * 0.3**2
        return t / variance * (x - (1 - t) * 0.4) - 0.4 - (1 - t) * 0.3**2 / variance * (x - (1 - t) * 0.4)

    assert (solver.integrate(velocity, noise) - (0.4 + 0.3 * noise)).abs().mean() < 0.03
    save_flow_scheduler(scheduler, tmp_path, 10)
    again = load_flow_scheduler(tmp_path)
    assert type(again) is kind
    assert torch.equal(flow_solver(again, 40).coefficients, solver.coefficients)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DPMSolverMultistepScheduler(), "reaches 157"),
        (FlowMatchEulerDiscreteScheduler(shift=1.0, stochastic_sampling=True), "draws noise"),
        (DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"), "draws noise"),
    ],
    ids=["diffusion", "stochastic Euler", "SDE solver"],
)
def test_a_policy_refuses_what_does_not_integrate_its_flow(scheduler, message):
    model, _ = tiny_policy()
    before = model.scheduler
    with pytest.raises(ValueError, match=rf"does not integrate a flow.*{message}(.|\n)*UniPCMultistepScheduler"):
        model.scheduler = scheduler
    assert model.scheduler is before
    with pytest.raises(TypeError, match="is a str, expected a diffusers SchedulerMixin"):
        model.scheduler = "euler"


def test_a_policy_is_not_saved_with_a_scheduler_that_could_not_be_loaded(tmp_path):
    class OwnScheduler(FlowMatchEulerDiscreteScheduler):
        pass

    model, _ = tiny_policy()
    model.scheduler = OwnScheduler()
    with pytest.raises(ValueError, match=r"OwnScheduler of test_flow_schedulers, which diffusers .* does not have"):
        model.save_pretrained(tmp_path)
    model.scheduler = FlowMatchEulerDiscreteScheduler()
    model.scheduler.register_to_config(invert_sigmas=True)
    with pytest.raises(ValueError, match="does not integrate a flow"):
        model.save_pretrained(tmp_path)


def test_solvers_are_read_once():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    assert flow_solver(scheduler, 6) is flow_solver(FlowMatchEulerDiscreteScheduler(shift=1.0), 6)
    assert flow_solver(scheduler, 5).times.shape == (5,)
