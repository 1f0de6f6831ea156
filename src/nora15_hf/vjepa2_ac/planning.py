# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Planning with the world model: the cross-entropy method of V-JEPA 2-AC."""

from dataclasses import dataclass

import torch

from .modeling_vjepa2_ac import VJEPA2ACModel, check_finite

# Position differences and the gripper are searched, rotations stay zero, as in the released planner.
_SEARCHED_DIMS = [0, 1, 2, 6]


@dataclass(frozen=True)
class CrossEntropyConfig:
    """
    Settings of [`plan_actions`]. The defaults are those of the released planner's notebook
    (`facebookresearch/vjepa2`, `notebooks/energy_landscape_example.ipynb`); the paper's robot experiments used 800
    samples, one step and a position limit of 0.075 m.

    Args:
        horizon (`int`, *optional*, defaults to 2): Actions to plan, H.
        num_samples (`int`, *optional*, defaults to 400): Chunks that are imagined per iteration, N.
        num_elites (`int`, *optional*, defaults to 10): Best chunks to which the sampling distribution is fitted.
        num_iterations (`int`, *optional*, defaults to 10): Rounds of sampling and fitting.
        momentum (`float`, *optional*, defaults to 0.15): Share of the old mean and standard deviation that is kept.
        max_position_step (`float`, *optional*, defaults to 0.05):
            Largest position difference per axis and step, in metres; also the first standard deviation.
        max_gripper_step (`float`, *optional*, defaults to 0.75): Largest gripper difference per step.
        gripper_threshold (`float`, *optional*, defaults to 0.25): Planned gripper differences below it become zero.

    Raises:
        ValueError: A setting outside its range.
    """

    horizon: int = 2
    num_samples: int = 400
    num_elites: int = 10
    num_iterations: int = 10
    momentum: float = 0.15
    max_position_step: float = 0.05
    max_gripper_step: float = 0.75
    gripper_threshold: float = 0.25

    def __post_init__(self):
        for name in ("horizon", "num_iterations"):
            if vars(self)[name] < 1:
                raise ValueError(f"`{name}`={vars(self)[name]} must be at least 1.")
        if not 2 <= self.num_elites <= self.num_samples:
            raise ValueError(
                f"`num_elites`={self.num_elites} must lie between 2, which a standard deviation needs, and num_samples="
                f"{self.num_samples}."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum`={self.momentum} must lie in [0, 1); at 1 nothing would be learned.")
        for name in ("max_position_step", "max_gripper_step"):
            if vars(self)[name] <= 0:
                raise ValueError(f"`{name}`={vars(self)[name]} must be positive.")
        if self.gripper_threshold < 0:
            raise ValueError(f"`gripper_threshold`={self.gripper_threshold} must not be negative.")


@torch.no_grad()
def plan_actions(
    model: VJEPA2ACModel,
    latents: torch.Tensor,
    goal_latents: torch.Tensor,
    states: torch.Tensor,
    config: CrossEntropyConfig | None = None,
    *,
    noise: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> torch.Tensor:
    """
    Actions whose imagined end comes closest to a goal, by the cross-entropy method (V-JEPA 2 paper, arXiv 2506.09985,
    section 3.2; `facebookresearch/vjepa2`, `notebooks/utils/mpc_utils.py`): sample chunks from a normal distribution
    per step and dimension, imagine them, fit the distribution to the best ones, repeat.

    Args:
        model ([`VJEPA2ACModel`]): Of the `"metric"` action convention.
        latents (`torch.Tensor` of shape `(B, 1, P, D)`): The current frame of each state.
        goal_latents (`torch.Tensor` of shape `(B, P, D)`, or `(B, T, P, D)` whose last frame is the goal): The goals.
        states (`torch.Tensor` of shape `(B, 1, 7)`): The current poses: metres, radians, gripper closedness.
        config ([`CrossEntropyConfig`], *optional*): Settings; the released ones by default.
        noise (`torch.Tensor` of shape `(num_iterations, H, B, N, 4)`, *optional*):
            Standard normal draws for x, y, z and the gripper. Drawn when absent.
        generator (`torch.Generator`, *optional*): For the draws, on the model's device.
        batch_size (`int`, *optional*): Chunks that are imagined at once, see [`~VJEPA2ACModel.rollout`].

    Returns:
        `torch.Tensor` of shape `(B, H, 7)`: pose differences in metres and radians; execute the first and plan again.

    Raises:
        ValueError: A model of another convention; more than one frame; noise of another shape; both noise and
            generator; whatever [`~VJEPA2ACModel.rollout`] refuses.

    Example:

    ```python
    >>> actions = plan_actions(model, model.encode(now), model.encode(goal), pose[:, None])  # doctest: +SKIP
    ```
    """
    config = config or CrossEntropyConfig()
    if model.config.action_convention != "metric":
        raise ValueError(
            f"Planning searches pose differences in metres, but the model's config.action_convention is "
            f"'{model.config.action_convention}'. Use a model of the 'metric' convention, as the released "
            "V-JEPA 2-AC, or rank a policy's candidates with `rollout` and `goal_energy`."
        )
    if latents.ndim != 4 or latents.shape[1] != 1:
        raise ValueError(
            f"`latents` has shape {tuple(latents.shape)}, expected (batch, 1 frame, patches, dimensions)."
        )
    batch = latents.shape[0]
    shape = (config.num_iterations, config.horizon, batch, config.num_samples, len(_SEARCHED_DIMS))
    if noise is None:
        noise = torch.randn(shape, generator=generator, device=latents.device)
    elif generator is not None:
        raise ValueError("`noise` and `generator` were both given. Pass only one of them.")
    elif noise.shape != shape:
        raise ValueError(
            f"`noise` has shape {tuple(noise.shape)}, expected {shape}: iterations, steps, batch, samples and the "
            f"{len(_SEARCHED_DIMS)} searched dimensions."
        )
    check_finite("noise", noise)

    limits = noise.new_tensor([config.max_position_step] * 3 + [config.max_gripper_step])
    mean = noise.new_zeros(batch, config.horizon, len(limits))
    std = noise.new_tensor([config.max_position_step] * 3 + [1.0]).expand_as(mean)
    for draws in noise.movedim(1, 3):
        samples = (draws * std[:, None] + mean[:, None]).clamp(-limits, limits)
        imagined = model.rollout(latents, _to_actions(samples), states, batch_size=batch_size, last_only=True)
        energies = model.goal_energy(imagined, goal_latents)
        elites = energies.topk(config.num_elites, dim=1, largest=False).indices
        best = samples.gather(1, elites[:, :, None, None].expand(-1, -1, *samples.shape[2:]))
        mean = (1 - config.momentum) * best.mean(1) + config.momentum * mean
        std = (1 - config.momentum) * best.std(1) + config.momentum * std
    plan = _to_actions(mean)
    gripper = plan[..., 6]
    plan[..., 6] = gripper.masked_fill(gripper.abs() < config.gripper_threshold, 0.0)
    return plan


def _to_actions(searched: torch.Tensor) -> torch.Tensor:
    actions = searched.new_zeros(*searched.shape[:-1], 7)
    actions[..., _SEARCHED_DIMS] = searched
    return actions


__all__ = ["CrossEntropyConfig", "plan_actions"]
