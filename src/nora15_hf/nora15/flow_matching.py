# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Flow matching: the draws of noise and time that a policy is trained under, and the squared error of its velocity.

A noisy chunk is `t * noise + (1 - t) * actions`, where t = 1 is noise and t = 0 is data; the policy predicts the velocity
`noise - actions`. For flow DPO the same error stands for a log-likelihood that a flow policy does not have:
`log p(a) ~ -error(a)` (arXiv 2511.14659, Eq. 9).

Two axes are optional. Several *chunks* of one state are an axis of `actions`, `(batch, [chunks,] chunk_size, action_dim)`.
Several *draws* for each chunk are an axis of `noise` and `timestep` behind that one: `noise` then has one axis more than
`actions`. Where all chunks of a state share their draws, the axis of chunks is 1 in `noise` and `timestep`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..actions.keyed_noise import NoiseKey, keyed_torch_generator
from .configuration_nora15 import Nora15Config

LOSS_REDUCTIONS = ("mean", "chunk_mean", "chunk_sum")


class FlowDraws(NamedTuple):
    """
    Noise and times of flow matching.

    Attributes:
        noise (`torch.FloatTensor` of shape `(*shape, chunk_size, action_dim)`): Standard normal.
        timestep (`torch.FloatTensor` of shape `shape`): In `(offset, offset + scale)`; 1 is noise, 0 is data.
    """

    noise: torch.Tensor
    timestep: torch.Tensor


def draw_flow_samples(
    config: Nora15Config,
    keys: Sequence[NoiseKey],
    shape: tuple[int, ...],
    *,
    stratified: bool = False,
    antithetic: bool = False,
) -> FlowDraws:
    """
    Noise and times that are functions of their keys alone.

    So they depend neither on the device that trains nor on how rows are spread over batches and processes nor on what was
    drawn before, and a continued run draws what the uninterrupted one would have drawn.

    Args:
        config ([`Nora15Config`]): Chunk size, action dimension and the distribution of times.
        keys (`Sequence[tuple[int, ...]]`): Not negative, for example seed, step and row. Each gives one set of draws.
        shape (`tuple[int, ...]`): Of one set, for example `(chunks, draws)`.
        stratified (`bool`, *optional*, defaults to `False`): See [`draw_times`].
        antithetic (`bool`, *optional*, defaults to `False`):
            Along the last axis, draws 2, 4, ... take the negated noise of draws 1, 3, ...

    Returns:
        [`FlowDraws`] on the CPU, with noise `(len(keys), *shape, chunk_size, action_dim)` and timestep
        `(len(keys), *shape)`.

    Raises:
        ValueError: `antithetic` with an odd number of draws, or as for [`draw_times`].
    """
    if antithetic and shape[-1] % 2:
        raise ValueError(
            f"shape={shape} must end with an even number with antithetic=True: draws come in opposite pairs."
        )
    noises, times = [], []
    for key in keys:
        generator = keyed_torch_generator(key)
        # Which of the two is drawn first decides the numbers, so it stays as the first runs had it.
        if stratified:
            times.append(draw_times(config, shape, stratified=True, generator=generator))
        noises.append(torch.randn(*shape, config.chunk_size, config.action_dim, generator=generator))
        if not stratified:
            times.append(draw_times(config, shape, generator=generator))
        if antithetic:
            noises[-1][..., 1::2, :, :] = -noises[-1][..., 0::2, :, :]
    return FlowDraws(torch.stack(noises), torch.stack(times))


def draw_times(
    config: Nora15Config,
    shape: tuple[int, ...],
    *,
    stratified: bool = False,
    generator: torch.Generator | None = None,
) -> torch.FloatTensor:
    """
    Flow times `offset + scale * Beta(alpha, beta)`.

    Args:
        config ([`Nora15Config`]): The distribution, `time_sampling_*`.
        shape (`tuple[int, ...]`): Of the result.
        stratified (`bool`, *optional*, defaults to `False`):
            Whether each of the K equal slices of the distribution holds exactly one of the K times along the last axis.
        generator (`torch.Generator`, *optional*): On the CPU; default: the global one.

    Returns:
        `torch.FloatTensor` of shape `shape`, on the CPU.

    Raises:
        ValueError: `stratified` with a distribution whose quantiles have no closed form.
    """
    alpha, beta = config.time_sampling_beta_alpha, config.time_sampling_beta_beta
    if not stratified:
        # A ratio of Gamma variables: unlike torch.distributions it takes a generator.
        first, second = (
            torch._standard_gamma(torch.full(shape, concentration, dtype=torch.float64), generator=generator)
            for concentration in (alpha, beta)
        )
        return (config.time_sampling_offset + config.time_sampling_scale * first / (first + second)).float()
    if beta != 1.0:
        raise ValueError(
            f"config.time_sampling_beta_beta={beta}, but stratified times need the quantiles of the time distribution, "
            "which are known in closed form for Beta(alpha, 1) only. Set it to 1.0."
        )
    quantile = (torch.arange(shape[-1]) + torch.rand(shape, generator=generator)) / shape[-1]
    # The distribution function of Beta(alpha, 1) is u ** alpha.
    return config.time_sampling_scale * quantile ** (1 / alpha) + config.time_sampling_offset


def flow_loss(
    velocity: torch.Tensor,
    actions: torch.Tensor,
    noise: torch.Tensor,
    action_mask: torch.BoolTensor | None = None,
    reduction: str = "mean",
    chunk_weights: torch.Tensor | None = None,
) -> torch.FloatTensor:
    """
    Squared velocity error over valid steps.

    Args:
        velocity (`torch.Tensor` of shape `(batch, [chunks,] [draws,] chunk_size, action_dim)`): Predicted.
        actions (`torch.Tensor` of shape `(batch, [chunks,] chunk_size, action_dim)`): Normalised.
        noise (`torch.Tensor` of shape `(batch, [chunks or 1,] [draws,] chunk_size, action_dim)`): As it was predicted for.
        action_mask (`torch.BoolTensor` of shape `(batch, chunk_size)`, *optional*):
            False where a chunk runs past its episode's end.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` over all valid steps and dimensions of the batch. One error for each chunk, a mean over its draws:
            `"chunk_mean"` over its valid steps and dimensions (released DPO code), `"chunk_sum"` over them (arXiv
            2511.14659, Eq. 9).
        chunk_weights (`torch.Tensor` of shape `(batch, [chunks])`, *optional*):
            What each chunk's errors are multiplied by; weights of 1 change no bit.

    Returns:
        `torch.FloatTensor` of shape `()`, or `(batch, [chunks])` for each chunk.
    """
    if reduction not in LOSS_REDUCTIONS:
        raise ValueError(f"loss_reduction={reduction!r} is unknown. Expected one of {', '.join(LOSS_REDUCTIONS)}.")
    has_draws = noise.ndim > actions.ndim
    error = (velocity.float() - (noise - (actions.unsqueeze(-3) if has_draws else actions))).pow(2)
    if action_mask is None:
        valid = torch.ones(actions.shape[-2], dtype=torch.bool, device=error.device).expand(len(error), -1)
    else:
        valid = action_mask
        error = error.masked_fill(~valid.view(len(error), *[1] * (error.ndim - 3), -1, 1), 0.0)
    if chunk_weights is not None:
        error = error * chunk_weights.view(*chunk_weights.shape, *[1] * (error.ndim - chunk_weights.ndim))
    if reduction == "mean":
        return error.sum() / (valid.sum() * error[0, ..., 0, :].numel())
    per_chunk = error.sum((-2, -1))
    if reduction == "chunk_mean":
        per_chunk = per_chunk / (valid.sum(-1).view(-1, *[1] * (per_chunk.ndim - 1)) * actions.shape[-1])
    return per_chunk.mean(-1) if has_draws else per_chunk


def sinusoidal_time_embedding(
    timestep: torch.Tensor, dim: int, min_period: float, max_period: float
) -> torch.FloatTensor:
    """
    `[sin | cos]` features of flow time, with float32 angles, the same on every processor.

    The order of the products is that of the released code: another order moves the embedding by 1e-4.

    Args:
        timestep (`torch.Tensor` of any shape): Flow time in [0, 1].
        dim (`int`): Even size of the embedding.
        min_period, max_period (`float`): Range of the geometric periods.

    Returns:
        `torch.FloatTensor` of shape `(*timestep.shape, dim)`.
    """
    # In float64 and rounded: float32 steps and powers depend on the instruction set, and an ulp of the shortest period moves the
    # embedding by 1e-5. MPS has no float64.
    exact = torch.float32 if timestep.device.type == "mps" else torch.float64
    count = dim // 2
    place = torch.arange(count, device=timestep.device)
    # As torch.linspace divides [0, 1] on AVX: from both ends, by a float32 step.
    step = (torch.ones((), dtype=torch.float32, device=timestep.device) / (count - 1)).to(exact)
    fraction = torch.where(place < count // 2, place * step, 1.0 - step * (count - 1 - place)).float()
    period = min_period * ((max_period / min_period) ** fraction.to(exact)).float()
    angle = 1.0 / period * 2 * math.pi * timestep.float()[..., None]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


__all__ = ["LOSS_REDUCTIONS", "FlowDraws", "draw_flow_samples", "draw_times", "flow_loss", "sinusoidal_time_embedding"]
