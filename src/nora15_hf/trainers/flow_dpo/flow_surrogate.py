# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The flow-matching stand-in for a log-likelihood: draws of noise and time, and the velocity error under them.

A flow policy has no tractable likelihood. The paper (arXiv 2511.14659, Eq. 9) compares squared velocity errors
instead: `l(a) = -error(a)` with `error(a) = reduce((v(x_t, t, observation) - (e - a))^2)` and
`x_t = t e + (1 - t) a`, where t = 1 is noise and t = 0 is data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...actions.keyed_noise import keyed_torch_generator
from ...nora15.configuration_nora15 import Nora15Config


@dataclass(frozen=True)
class FlowDraws:
    """
    Noise and times under which chunks are compared.

    Attributes:
        noise (`torch.Tensor`): float32 `(B, C, K, H, A)`, standard normal; C = 1 when all chunks of a state share it.
        timestep (`torch.Tensor`): float32 `(B, C, K)`, in `(offset, offset + scale)`; 1 is noise, 0 is data.
    """

    noise: torch.Tensor
    timestep: torch.Tensor


def sample_flow_draws(
    config: Nora15Config,
    batch_size: int,
    *,
    num_draws: int = 1,
    num_chunks: int = 1,
    antithetic: bool = False,
    generator: torch.Generator | None = None,
) -> FlowDraws:
    """
    Draws noise and times on the CPU, so that the numbers do not depend on the device that trains.

    The K times of a chunk are stratified: each of the K equal slices of the time distribution holds exactly one.

    Args:
        config ([`Nora15Config`]): chunk size, action dimension and the time distribution.
        batch_size (`int`): states, B.
        num_draws (`int`, *optional*, defaults to 1): draws per chunk, K.
        num_chunks (`int`, *optional*, defaults to 1): 1 for draws shared by all chunks of a state, else one set each.
        antithetic (`bool`, *optional*, defaults to `False`): draws 2, 4, ... take the negated noise of draws 1, 3, ...
        generator (`torch.Generator`, *optional*): a CPU generator; the global one by default.

    Returns:
        [`FlowDraws`] with noise `(B, num_chunks, K, H, A)` and timestep `(B, num_chunks, K)`.

    Raises:
        ValueError: `antithetic` with an odd `num_draws`, or a time distribution without closed-form quantiles.
    """
    if config.time_sampling_beta_beta != 1.0:
        raise ValueError(
            f"config.time_sampling_beta_beta={config.time_sampling_beta_beta}, but stratified times need the quantiles "
            "of the time distribution, which are known in closed form for Beta(alpha, 1) only. Set it to 1.0."
        )
    if antithetic and num_draws % 2:
        raise ValueError(f"num_draws={num_draws} must be even with antithetic=True: draws come in pairs of opposites.")
    slice_position = torch.rand(batch_size, num_chunks, num_draws, generator=generator)
    quantile = (torch.arange(num_draws) + slice_position) / num_draws
    # The distribution function of Beta(alpha, 1) is u ** alpha.
    timestep = config.time_sampling_scale * quantile ** (1 / config.time_sampling_beta_alpha)
    timestep = timestep + config.time_sampling_offset
    noise = torch.randn(batch_size, num_chunks, num_draws, config.chunk_size, config.action_dim, generator=generator)
    if antithetic:
        noise[:, :, 1::2] = -noise[:, :, 0::2]
    return FlowDraws(noise=noise, timestep=timestep)


def sample_row_draws(
    config: Nora15Config,
    rows: Sequence[int],
    key: tuple[int, ...],
    *,
    num_draws: int = 1,
    num_chunks: int = 1,
    antithetic: bool = False,
) -> FlowDraws:
    """
    The draws of some rows of a dataset: functions of the key and the row alone.

    So they depend neither on how rows are spread over batches and processes nor on what was drawn before, and a
    continued run draws what the uninterrupted one would have drawn.

    Args:
        config ([`Nora15Config`]): as for [`sample_flow_draws`].
        rows (`Sequence[int]`): numbers of the rows, not negative.
        key (`tuple[int, ...]`): for example seed and step, not negative.
        num_draws, num_chunks, antithetic: as for [`sample_flow_draws`].

    Returns:
        [`FlowDraws`] with one entry per row.
    """
    draws = [
        sample_flow_draws(
            config,
            1,
            num_draws=num_draws,
            num_chunks=num_chunks,
            antithetic=antithetic,
            generator=keyed_torch_generator((*key, row)),
        )
        for row in rows
    ]
    return FlowDraws(
        noise=torch.cat([draw.noise for draw in draws]), timestep=torch.cat([draw.timestep for draw in draws])
    )


def flow_inputs(chunks: torch.Tensor, draws: FlowDraws) -> dict[str, torch.Tensor]:
    """
    What the policy's `forward` takes to predict the velocities behind [`flow_errors`], in one expert pass.

    Args:
        chunks (`torch.Tensor`): `(B, C, H, A)`, normalised actions.
        draws ([`FlowDraws`]): noise `(B, C or 1, K, H, A)` and times `(B, C or 1, K)`.

    Returns:
        `dict[str, torch.Tensor]`: `actions` and `noise` `(B, C * K, H, A)`, `timestep` `(B, C * K)`.
    """
    shape = _velocity_shape(chunks, draws)
    return {
        "actions": chunks[:, :, None].expand(shape).flatten(1, 2),
        "noise": draws.noise.to(chunks).expand(shape).flatten(1, 2),
        "timestep": draws.timestep.to(chunks).expand(shape[:3]).flatten(1, 2),
    }


def flow_errors(
    velocity: torch.Tensor,
    chunks: torch.Tensor,
    draws: FlowDraws,
    *,
    action_mask: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """
    Squared velocity error of several chunks of one state.

    Args:
        velocity (`torch.Tensor`): `(B, C * K, H, A)`, predicted for [`flow_inputs`].
        chunks, draws: as for [`flow_inputs`].
        action_mask (`torch.Tensor`, *optional*): bool `(B, H)`, False where a chunk runs past its episode's end.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` over valid steps and dimensions (released code) or `"sum"` over them (paper, Eq. 9).

    Returns:
        `torch.Tensor`: float32 `(B, C)`, reduced over valid steps and dimensions, averaged over the draws.
    """
    velocity = velocity.float().view(_velocity_shape(chunks, draws))
    chunk_size, action_dim = chunks.shape[2:]
    squared = (velocity - (draws.noise.to(chunks) - chunks[:, :, None])) ** 2
    if action_mask is None:
        error = squared.sum((-2, -1))
        num_valid = chunk_size
    else:
        valid = action_mask[:, None, None, :, None]
        error = squared.masked_fill(~valid, 0.0).sum((-2, -1))
        num_valid = action_mask.sum(-1)[:, None, None]
    if reduction == "mean":
        error = error / (num_valid * action_dim)
    return error.mean(-1)


def _velocity_shape(chunks: torch.Tensor, draws: FlowDraws) -> tuple[int, int, int, int, int]:
    batch_size, num_chunks, chunk_size, action_dim = chunks.shape
    return batch_size, num_chunks, draws.noise.shape[2], chunk_size, action_dim


__all__ = ["FlowDraws", "flow_errors", "flow_inputs", "sample_flow_draws", "sample_row_draws"]
