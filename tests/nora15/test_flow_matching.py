# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow matching's draws of noise and time, and its masked error, against frozen copies of what runs have used so far."""

import numpy as np
import pytest
import torch

from nora15_hf.nora15.configuration_nora15 import Nora15Config
from nora15_hf.nora15.flow_matching import draw_flow_samples
from nora15_hf.nora15.presets import tiny_policy

CONFIG = Nora15Config(chunk_size=3, action_dim=2)


def frozen_batch_draws(config, leading, generator):
    """Noise, then times as a ratio of Gamma variables, all from one generator: supervised training."""
    noise = torch.randn(*leading, config.chunk_size, config.action_dim, generator=generator)
    gamma = [
        torch._standard_gamma(torch.full(leading, concentration, dtype=torch.float64), generator=generator)
        for concentration in (config.time_sampling_beta_alpha, config.time_sampling_beta_beta)
    ]
    timestep = config.time_sampling_offset + config.time_sampling_scale * gamma[0] / (gamma[0] + gamma[1])
    return noise, timestep.float()


def frozen_row_draws(config, rows, key, num_chunks, num_draws, antithetic):
    """Stratified times, then noise, from one generator per row: flow DPO."""
    noises, times = [], []
    for row in rows:
        seed = int(np.random.SeedSequence([*key, row]).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(seed)
        position = torch.rand(1, num_chunks, num_draws, generator=generator)
        quantile = (torch.arange(num_draws) + position) / num_draws
        times.append(
            config.time_sampling_scale * quantile ** (1 / config.time_sampling_beta_alpha)
            + config.time_sampling_offset
        )
        noise = torch.randn(1, num_chunks, num_draws, config.chunk_size, config.action_dim, generator=generator)
        if antithetic:
            noise[:, :, 1::2] = -noise[:, :, 0::2]
        noises.append(noise)
    return torch.cat(noises), torch.cat(times)


@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_draws_from_one_generator_are_the_historical_ones(shape):
    key = (3, 11)
    [noise], [timestep] = draw_flow_samples(CONFIG, [key], shape)
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    expected = frozen_batch_draws(CONFIG, shape, torch.Generator().manual_seed(seed))
    assert torch.equal(noise, expected[0])
    assert torch.equal(timestep, expected[1])


@pytest.mark.parametrize(("num_chunks", "antithetic"), [(1, False), (2, False), (2, True)])
def test_draws_of_rows_are_the_historical_ones(num_chunks, antithetic):
    keys = [(1, 0, 9, row) for row in (7, 2)]
    found = draw_flow_samples(CONFIG, keys, (num_chunks, 4), stratified=True, antithetic=antithetic)
    noise, timestep = frozen_row_draws(CONFIG, [7, 2], (1, 0, 9), num_chunks, 4, antithetic)
    assert torch.equal(found.noise, noise)
    assert torch.equal(found.timestep, timestep)


class TestLossAgainstAPlainLoop:
    """Every chunk, draw and unmasked step by itself."""

    @pytest.fixture(scope="class")
    def policy(self):
        return tiny_policy(seed=0)

    @pytest.fixture(scope="class")
    def prefix(self, policy):
        images = list(np.random.default_rng(0).integers(0, 256, (2, 84, 84, 3), dtype=np.uint8))
        with torch.no_grad():
            return policy[0].encode_prefix(**policy[1](images=images, text=["open the faucet", "push"]))

    MASK = torch.tensor([[True] * 5, [True, True, False, False, False]])

    def squared_errors(self, model, prefix, actions, noise, timestep):
        """`(batch, chunks, draws, chunk_size, action_dim)`, from one expert pass each."""
        chunks, draws = timestep.shape[1:]
        errors = torch.empty(noise.shape)
        for chunk in range(chunks):
            for draw in range(draws):
                e, t, a = noise[:, chunk, draw], timestep[:, chunk, draw], actions[:, chunk]
                x = t[:, None, None] * e + (1 - t[:, None, None]) * a
                errors[:, chunk, draw] = (model.predict_velocity(x, t, prefix) - (e - a)) ** 2
        return errors

    @pytest.mark.parametrize("draws", [None, 3])
    @torch.no_grad()
    def test_mean_over_the_batch(self, policy, prefix, draws):
        model, generator = policy[0], torch.Generator().manual_seed(1)
        actions = torch.randn(2, 5, 4, generator=generator)
        leading = (2,) if draws is None else (2, draws)
        noise, timestep = frozen_batch_draws(model.config, leading, generator)
        found = model(prefix=prefix, actions=actions, action_mask=self.MASK, noise=noise, timestep=timestep)
        errors = self.squared_errors(
            model, prefix, actions[:, None], noise.view(2, 1, -1, 5, 4), timestep.view(2, 1, -1)
        )
        expected = errors[self.MASK[:, None, None].expand(errors.shape[:-1])].mean()
        torch.testing.assert_close(found.flow_loss, expected, atol=1e-6, rtol=1e-5)
        assert found.velocity.shape == noise.shape

    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @torch.no_grad()
    def test_one_error_per_chunk(self, policy, prefix, shared, reduction):
        model, generator = policy[0], torch.Generator().manual_seed(1)
        actions = torch.randn(2, 2, 5, 4, generator=generator)
        noise, timestep = frozen_row_draws(model.config, [0, 1], (5,), 1 if shared else 2, 3, False)
        found = model(
            prefix=prefix,
            actions=actions,
            action_mask=self.MASK,
            noise=noise,
            timestep=timestep,
            loss_reduction=f"chunk_{reduction}",
        )
        assert found.velocity.shape == (2, 2, 3, 5, 4)
        assert found.loss is None
        errors = self.squared_errors(
            model, prefix, actions, noise.expand(2, 2, 3, 5, 4), timestep.expand(2, 2, 3)
        ).mean(2)
        errors = errors.masked_fill(~self.MASK[:, None, :, None], 0).sum((-2, -1))
        expected = errors / (self.MASK.sum(-1)[:, None] * 4) if reduction == "mean" else errors
        torch.testing.assert_close(found.flow_loss, expected, atol=1e-5, rtol=1e-5)
