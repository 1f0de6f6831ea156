# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Planning by the cross-entropy method: the released planner's recorded draws, its limits, what is refused."""

import pytest
import torch

from helpers.small_world_models import PARITY, fixture, small_model
from nora15_hf.vjepa2_ac import CrossEntropyConfig, plan_actions

pytestmark = pytest.mark.isa

RECORDED = CrossEntropyConfig(
    horizon=2, num_samples=16, num_elites=4, num_iterations=3, momentum=0.15, max_position_step=0.075
)


@pytest.fixture(scope="module")
def model():
    return small_model(action_convention="metric")


def recorded_noise(io):
    """The released planner draws iteration by iteration, step by step."""
    return torch.stack([io[f"randn_{i}"] for i in range(6)]).unflatten(0, (3, 2))[:, :, None]


def test_recorded_draws_give_the_recorded_plan(model):
    io = fixture("cem_A")
    plan = plan_actions(model, io["context"][:, None], io["goal"], io["pose"], RECORDED, noise=recorded_noise(io))
    torch.testing.assert_close(plan, io["action"], **PARITY)


def test_states_are_planned_independently(model):
    io = fixture("cem_A")
    latents, goals = (torch.cat([io[name], io[name].flip(1)])[:, None] for name in ("context", "goal"))
    poses = torch.cat([io["pose"], io["pose"] + 0.1])
    noise = torch.cat([recorded_noise(io), recorded_noise(io).flip(3)], dim=2)
    together = plan_actions(model, latents, goals, poses, RECORDED, noise=noise)
    for state in range(2):
        one = slice(state, state + 1)
        alone = plan_actions(
            model, latents[one], goals[one], poses[one], RECORDED, noise=noise[:, :, one], batch_size=5
        )
        torch.testing.assert_close(together[one], alone, **PARITY)


def test_plans_keep_within_the_limits_and_lower_the_energy(model):
    io = fixture("cem_A")
    latents, goal, pose = io["context"][:, None], io["goal"], io["pose"]
    config = CrossEntropyConfig(num_samples=32, num_elites=4, num_iterations=4)
    plan = plan_actions(model, latents, goal, pose, config, generator=torch.Generator().manual_seed(0))
    assert plan.shape == (1, 2, 7)
    assert plan[..., :3].abs().max() <= config.max_position_step
    assert (plan[..., 3:6] == 0).all()
    with torch.no_grad():
        planned, idle = (
            model.goal_energy(model.rollout(latents, a, pose), goal) for a in (plan, torch.zeros_like(plan))
        )
    assert planned < idle


def test_small_gripper_movements_are_dropped(model):
    io = fixture("cem_A")
    arguments = (model, io["context"][:, None], io["goal"], io["pose"])
    noise = recorded_noise(io)
    kept = plan_actions(*arguments, CrossEntropyConfig(**vars(RECORDED) | {"gripper_threshold": 0.0}), noise=noise)
    dropped = plan_actions(*arguments, RECORDED, noise=noise)
    assert kept[..., 6].abs().min() > 0
    assert kept[..., 6].abs().max() < RECORDED.gripper_threshold
    assert (dropped[..., 6] == 0).all()
    assert torch.equal(kept[..., :6], dropped[..., :6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "`horizon`=0"),
        ({"num_iterations": 0}, "`num_iterations`=0"),
        ({"num_elites": 1}, "between 2"),
        ({"num_elites": 500}, "num_samples=400"),
        ({"momentum": 1.0}, "nothing would be learned"),
        ({"max_position_step": 0.0}, "must be positive"),
        ({"gripper_threshold": -0.1}, "must not be negative"),
    ],
)
def test_settings_refuse(changes, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropyConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda: small_model()}, "'normalized'"),
        ({"latents": lambda: torch.zeros(1, 2, 16, 48)}, "1 frame"),
        ({"noise": lambda: torch.zeros(3, 2, 1, 15, 4)}, "`noise` has shape"),
        ({"noise": lambda: torch.full((3, 2, 1, 16, 4), torch.nan)}, "`noise` holds NaN"),
        ({"generator": torch.Generator}, "both given"),
        ({"states": lambda: None}, "`states` is missing"),
        ({"states": lambda: torch.zeros(1, 1, 6)}, "`states` has shape"),
        ({"goal_latents": lambda: torch.zeros(1, 16, 47)}, "`goal_latents` has shape"),
    ],
)
def test_planning_refuses(model, changes, message):
    io = fixture("cem_A")
    arguments = {
        "model": model,
        "latents": io["context"][:, None],
        "goal_latents": io["goal"],
        "states": io["pose"],
        "config": RECORDED,
        "noise": recorded_noise(io),
    }
    with pytest.raises(ValueError, match=message):
        plan_actions(**arguments | {name: make() for name, make in changes.items()})
