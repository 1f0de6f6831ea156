# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What must hold for any policy, whatever its weights: invariances, solvers, saving and loading, training."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import AutoModel, AutoProcessor, PreTrainedConfig

from nora15_hf.data.collator import PolicyCollator
from nora15_hf.nora15 import Nora15Config, Nora15ForActionPrediction
from nora15_hf.nora15.backbone_parts import multimodal_position_ids
from nora15_hf.nora15.flow_matching import draw_flow_samples
from nora15_hf.nora15.flow_schedulers import set_flow_timesteps
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers.ema import EMA_FILE, EmaCallback
from nora15_hf.trainers.supervised.sft_config import Nora15SFTConfig
from nora15_hf.trainers.supervised.sft_trainer import Nora15SFTTrainer

TEXTS = ["open the faucet", "press the button, then close the faucet again", "press the handle down"]
FLOW_OPTIONS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
SOLVERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=1.0),
    "heun": lambda: FlowMatchHeunDiscreteScheduler(shift=1.0),
    "dpm": lambda: DPMSolverMultistepScheduler(**FLOW_OPTIONS),
    "unipc": lambda: UniPCMultistepScheduler(**FLOW_OPTIONS),
}


def widen(model):
    """Weights wide enough for the action to depend visibly on every input."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.normal_(std=1.0 / parameter[0].numel() ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1, generator=generator)
            elif "embed_tokens" in name:
                parameter.normal_(std=1.0, generator=generator)
    return model


@pytest.fixture(scope="module")
def policy():
    model, processor = tiny_policy(seed=0)
    return widen(model), processor


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).integers(0, 256, (3, 84, 84, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def chunks():
    return np.random.default_rng(1).uniform(-0.9, 0.9, (3, 5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(policy, images):
    """Three prompts of different lengths, left-padded."""
    batch = policy[1](images=images, text=TEXTS)
    assert len(set(batch["attention_mask"].sum(-1).tolist())) > 1
    return batch


@pytest.fixture(scope="module")
def noise():
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2))


def single(processor, image, text):
    return processor(images=image, text=text)


def right_padded(batch):
    """The same rows with their padding moved to the right."""
    moved = dict(batch)
    for name in ("input_ids", "attention_mask", "labels"):
        if name in batch:
            rows = [
                torch.cat([row[mask == 1], row[mask == 0]])
                for row, mask in zip(batch[name], batch["attention_mask"], strict=True)
            ]
            moved[name] = torch.stack(rows)
    return moved


class TestInvariances:
    def test_batch_equals_singles(self, policy, inputs, images, noise):
        model, processor = policy
        together = model.sample_actions(**inputs, noise=noise)
        for i, (image, text) in enumerate(zip(images, TEXTS, strict=True)):
            alone = model.sample_actions(**single(processor, image, text), noise=noise[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, atol=3e-5, rtol=0)

    def test_left_and_right_padding_agree(self, policy, images, chunks, noise):
        model, processor = policy
        batch = processor(images=images, text=TEXTS, actions=chunks)
        times = torch.tensor([0.1, 0.5, 0.9])
        with torch.no_grad():
            left = model(**batch, noise=noise, timestep=times)
            right = model(**right_padded(batch), noise=noise, timestep=times)
        torch.testing.assert_close(left.velocity, right.velocity, atol=3e-5, rtol=0)
        torch.testing.assert_close(left.loss, right.loss, atol=5e-5, rtol=0)

    def test_what_pads_hold_does_not_matter(self, policy, inputs, noise):
        model, _ = policy
        changed = dict(inputs)
        changed["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 7)
        assert torch.equal(model.sample_actions(**changed, noise=noise), model.sample_actions(**inputs, noise=noise))

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_num_samples_equals_separate_calls(self, policy, inputs, attention):
        model = Nora15ForActionPrediction._from_config(copy.deepcopy(policy[0].config), attn_implementation=attention)
        model.load_state_dict(policy[0].state_dict())
        noise = torch.randn(3, 4, 5, 4, generator=torch.Generator().manual_seed(3))
        together = model.eval().sample_actions(**inputs, noise=noise, num_samples=4)
        assert together.shape == (3, 4, 5, 4)
        for draw in range(4):
            alone = model.sample_actions(**inputs, noise=noise[:, draw])
            torch.testing.assert_close(together[:, draw], alone, atol=3e-5, rtol=0)

    @torch.no_grad()
    def test_chunks_of_a_row_do_not_see_one_another(self, policy, inputs):
        model, _ = policy
        prefix = model.encode_prefix(**inputs)
        noisy = torch.randn(3, 4, 5, 4, generator=torch.Generator().manual_seed(4))
        times = torch.rand(3, 4, generator=torch.Generator().manual_seed(5))
        together = model.predict_velocity(noisy, times, prefix)
        for draw in range(4):
            alone = model.predict_velocity(noisy[:, draw], times[:, draw], prefix)
            torch.testing.assert_close(together[:, draw], alone, atol=3e-5, rtol=0)
        noisy[:, 1] += 5
        again = model.predict_velocity(noisy, times, prefix)
        others = [0, 2, 3]
        assert torch.equal(again[:, others], together[:, others])
        assert not torch.allclose(again[:, 1], together[:, 1])

    @torch.no_grad()
    def test_prefix_and_velocity_equal_forward(self, policy, images, chunks, noise, monkeypatch):
        model, processor = policy
        monkeypatch.setattr(model, "use_inference_path", False)
        batch = processor(images=images, text=TEXTS, actions=chunks)
        times = torch.tensor([0.1, 0.5, 0.9])
        forward = model(**batch, noise=noise, timestep=times)
        prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
        noisy = times[:, None, None] * noise + (1 - times[:, None, None]) * batch["actions"]
        with_fast = model.predict_velocity(noisy, times, model.encode_prefix(**prompt))
        assert torch.equal(with_fast, forward.velocity)
        # FAST tokens stand behind the prompt, so leaving them out changes nothing either.
        without_fast = model.predict_velocity(
            noisy, times, model.encode_prefix(**processor(images=images, text=TEXTS))
        )
        torch.testing.assert_close(without_fast, forward.velocity, atol=3e-5, rtol=0)
        expected = (forward.velocity - (noise - batch["actions"])).pow(2).mean()
        torch.testing.assert_close(forward.flow_loss, expected)

    @torch.no_grad()
    def test_selected_rows_of_a_prefix(self, policy, inputs, noise):
        model, _ = policy
        prefix = model.encode_prefix(**inputs)
        rows = torch.tensor([2, 0, 0])
        found = model.sample_actions(prefix=prefix.select(rows), noise=noise[rows])
        expected = model.sample_actions(prefix=prefix, noise=noise)[rows]
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)

    @torch.no_grad()
    def test_draws_of_one_sample_share_the_mean(self, policy, images, chunks):
        model, processor = policy
        batch = processor(images=images, text=TEXTS, actions=chunks, action_tokens=False)
        draws, times = draw_flow_samples(model.config, [(row,) for row in range(len(images))], (6,))
        assert draws.shape == (3, 6, 5, 4)
        assert times.shape == (3, 6)
        together = model(**batch, noise=draws, timestep=times).flow_loss
        alone = [model(**batch, noise=draws[:, i], timestep=times[:, i]).flow_loss for i in range(6)]
        torch.testing.assert_close(together, torch.stack(alone).mean(), atol=1e-5, rtol=0)

    @torch.no_grad()
    def test_padded_steps_are_left_out_of_the_loss(self, policy, images, chunks, noise):
        model, processor = policy
        mask = np.ones((3, 5), dtype=bool)
        mask[1, 2:] = False
        batch = processor(images=images, text=TEXTS, actions=chunks, action_mask=mask)
        times = torch.tensor([0.1, 0.5, 0.9])
        output = model(**batch, noise=noise, timestep=times)
        error = (output.velocity - (noise - batch["actions"])).pow(2)
        torch.testing.assert_close(output.flow_loss, error[torch.from_numpy(mask)].mean())

    def test_a_sample_without_fast_tokens(self, policy, images, chunks, noise):
        """A padded chunk has no FAST tokens: its row is supervised by flow matching alone."""
        model, processor = policy
        mask = np.ones((3, 5), dtype=bool)
        mask[0, 4] = False
        times = torch.tensor([0.1, 0.5, 0.9])
        with torch.no_grad():
            mixed = model(
                **processor(images=images, text=TEXTS, actions=chunks, action_mask=mask), noise=noise, timestep=times
            )
            complete = processor(images=images[1:], text=TEXTS[1:], actions=chunks[1:])
            rest = model(**complete, noise=noise[1:], timestep=times[1:])
        torch.testing.assert_close(mixed.lm_loss, rest.lm_loss, atol=5e-5, rtol=0)
        torch.testing.assert_close(mixed.velocity[1:], rest.velocity, atol=3e-5, rtol=0)

    def test_a_batch_of_padded_chunks_only_trains_flow(self, policy, images, chunks, noise):
        model, processor = policy
        mask = np.ones((3, 5), dtype=bool)
        mask[:, 4] = False
        batch = processor(images=images, text=TEXTS, actions=chunks, action_mask=mask)
        with torch.no_grad():
            output = model(**batch, noise=noise, timestep=torch.tensor([0.1, 0.5, 0.9]))
        torch.testing.assert_close(output.loss, 10 * output.flow_loss)

    def test_two_cameras(self, policy, images, noise):
        model, processor = policy
        cameras = [[images[0], images[1]], [images[2], images[0]]]
        batch = processor(images=cameras, text=TEXTS[:2])
        assert batch["image_grid_thw"].shape == (4, 3)
        together = model.sample_actions(**batch, noise=noise[:2])
        for i in range(2):
            alone = model.sample_actions(**processor(images=cameras[i], text=TEXTS[i]), noise=noise[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, atol=3e-5, rtol=0)
        swapped = model.sample_actions(**processor(images=cameras[0][::-1], text=TEXTS[0]), noise=noise[:1])
        assert not torch.allclose(swapped, together[:1], atol=1e-3)

    def test_a_sample_may_have_more_cameras_than_another(self, policy, images, noise):
        model, processor = policy
        batch = processor(images=[[images[0], images[1]], [images[2]]], text=TEXTS[:2])
        together = model.sample_actions(**batch, noise=noise[:2])
        alone = model.sample_actions(**processor(images=images[2], text=TEXTS[1]), noise=noise[1:2])
        torch.testing.assert_close(together[1:], alone, atol=3e-5, rtol=0)

    def test_other_chunk_and_action_sizes(self, images):
        model, processor = tiny_policy(chunk_size=8, action_dim=3, seed=0)
        actions = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 8, 3)).astype(np.float32)
        batch = processor(images=images[:2], text=TEXTS[:2], actions=actions)
        output = model(**batch)
        assert output.velocity.shape == (2, model.config.num_flow_samples, 8, 3)
        output.loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
        observation = processor(images=images[:2], text=TEXTS[:2])
        assert model.sample_actions(**observation, num_samples=3).shape == (2, 3, 8, 3)

    @pytest.mark.parametrize(("removed", "message"), [("image", "image tokens"), ("text", "image_grid_thw")])
    def test_prompt_and_images_must_belong_together(self, policy, inputs, removed, message):
        model, _ = policy
        broken = dict(inputs)
        if removed == "image":
            broken["image_grid_thw"] = inputs["image_grid_thw"][:2]
        else:
            del broken["image_grid_thw"], broken["pixel_values"]
        with pytest.raises(ValueError, match=message):
            model.sample_actions(**broken)


class TestPositions:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_equal_transformers(self, policy, data):
        """Ragged batches, several images of different sizes, padding on either side."""
        config = policy[0].config.vlm_config
        rows, grids = [], []
        for _ in range(data.draw(st.integers(1, 3))):
            row = []
            for _ in range(data.draw(st.integers(0, 3))):
                row += [9] * data.draw(st.integers(0, 4))
                height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
                grids.append([1, 2 * height, 2 * width])
                row += [config.vision_start_token_id] + [config.image_token_id] * (height * width)
            row += [9] * data.draw(st.integers(1, 4))
            rows.append(row)
        length = max(map(len, rows)) + data.draw(st.integers(0, 2))
        left = data.draw(st.booleans())
        pads = [[0] * (length - len(row)) for row in rows]
        ids = torch.tensor([pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)])
        mask = torch.tensor(
            [pad + [1] * len(row) if left else [1] * len(row) + pad for row, pad in zip(rows, pads, strict=True)]
        )
        grid = torch.tensor(grids) if grids else None
        found = multimodal_position_ids(ids, mask, grid, config.image_token_id, 2)
        image_tokens = (ids == config.image_token_id).int()
        expected = policy[0].vlm.model.get_rope_index(ids, image_tokens, grid, attention_mask=mask)[0]
        real = mask.bool()
        assert torch.equal(found[:, real], expected[:, real])


class CountingModel(Nora15ForActionPrediction):
    """Records the flow times at which it is asked for a velocity, and answers with a known flow."""

    def velocity_field(self, prefix, times, num_samples=1):
        def velocity(sample, evaluation):
            self.times.append(times[evaluation : evaluation + 1])
            self.dtypes.add(sample.dtype)
            return self.flow(sample, times[evaluation].expand(sample.shape[:-2]))

        return velocity


@pytest.fixture
def counting(policy, inputs):
    """A policy whose velocity is given, and the prefix of one row."""
    with torch.no_grad():
        prefix = policy[0].encode_prefix(**inputs).select(torch.tensor([0]))
    model = CountingModel(policy[0].config)
    model.times, model.dtypes, model.flow = [], set(), lambda x, t: torch.zeros_like(x)
    return model, prefix


def gaussian_velocity(x, t, mean=0.4, std=0.3):
    """The exact velocity of the flow from N(0, 1) at t = 1 to N(mean, std) at t = 0."""
    t = t[..., None, None]
    variance = (t**2 + (1 - t) ** 2 * std**2).clamp(min=1e-12)
    noise = t / variance * (x - (1 - t) * mean)
    action = mean + (1 - t) * std**2 / variance * (x - (1 - t) * mean)
    return noise - action


class TestSolvers:
    @pytest.mark.slow
    def test_every_step_count_takes_that_many_evaluations(self, counting):
        """In bfloat16 the released loop takes another number for 18 of the counts 1 ... 50."""
        model, prefix = counting
        model.to(torch.bfloat16)
        for num_steps in [*range(1, 65), 127, 255, 500, 511, 512, 777, 1000]:
            model.times.clear()
            model.sample_actions(prefix=prefix, num_steps=num_steps, noise=torch.zeros(1, 5, 4))
            times = torch.cat(model.times)
            assert times.dtype == torch.float32
            expected = 1 - torch.arange(num_steps, dtype=torch.float64) / num_steps
            assert len(times) == num_steps
            assert (times.double() - expected).abs().max() < 1e-6
        assert model.dtypes == {torch.float32}

    def test_grid_of_every_step_count(self):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        for num_steps in range(1, 1001):
            times = set_flow_timesteps(scheduler, num_steps)
            assert len(times) == num_steps
            assert times[0] == 1
            assert times.dtype == torch.float32

    def test_a_bfloat16_policy_integrates_in_float32(self, policy, inputs, noise):
        model, _ = policy
        half = Nora15ForActionPrediction(model.config).eval()
        half.load_state_dict(model.state_dict())
        half.to(torch.bfloat16)
        prompt = dict(inputs)
        half_prompt = {**prompt, "pixel_values": prompt["pixel_values"].bfloat16()}
        found = half.sample_actions(**half_prompt, noise=noise)
        assert found.dtype == torch.float32
        with torch.no_grad():
            prefix, exact = half.encode_prefix(**half_prompt), model.encode_prefix(**prompt)
            times = torch.tensor([0.1, 0.5, 0.9])
            velocity = half.predict_velocity(noise, times, prefix)
            expected = model.predict_velocity(noise, times, exact)
        assert velocity.dtype == torch.float32
        assert {table.dtype for table in half.action_expert.rotary_embedding(torch.arange(5))} == {torch.float32}
        relative = ((velocity - expected).norm() / expected.norm()).item()
        assert relative < 0.05
        actions = model.sample_actions(**prompt, noise=noise)
        assert ((found - actions).norm() / actions.norm()).item() < 0.05

    def test_autocast_stays_near_float32(self, policy, images, chunks, noise):
        model, processor = policy
        batch = processor(images=images, text=TEXTS, actions=chunks)
        times = torch.tensor([0.1, 0.5, 0.9])
        with torch.no_grad():
            exact = model(**batch, noise=noise, timestep=times)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model(**batch, noise=noise, timestep=times)
        assert rounded.velocity.dtype == rounded.loss.dtype == torch.float32
        assert not torch.equal(rounded.velocity, exact.velocity)
        assert ((rounded.velocity - exact.velocity).norm() / exact.velocity.norm()).item() < 0.05
        assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)

    def test_euler_equals_a_plain_loop(self, policy, inputs, noise):
        model, _ = policy
        with torch.no_grad():
            prefix = model.encode_prefix(**inputs)
            for num_steps in (1, 3, 10, 27):
                x = noise
                times = torch.tensor([1 - step / num_steps for step in range(num_steps)])
                velocity = model.velocity_field(prefix, times)
                for step in range(num_steps):
                    x = x - velocity(x, step) / num_steps
                found = model.sample_actions(prefix=prefix, noise=noise, num_steps=num_steps)
                torch.testing.assert_close(found, x, atol=1e-6, rtol=1e-6)

    def test_a_constant_velocity_is_integrated_exactly(self, counting):
        model, prefix = counting
        noise = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
        model.flow = lambda x, t: torch.full_like(x, 0.5)
        found = model.sample_actions(prefix=prefix, noise=noise, num_steps=7)
        torch.testing.assert_close(found, noise - 0.5, atol=1e-6, rtol=0)

    @pytest.mark.parametrize(
        ("solver", "num_steps", "evaluations", "bound"),
        [
            ("euler", 10, 10, 0.06),
            ("euler", 100, 100, 0.006),
            ("heun", 5, 9, 0.06),
            ("heun", 20, 39, 0.003),
            ("dpm", 10, 10, 0.04),
            ("unipc", 10, 10, 0.04),
        ],
    )
    def test_solvers_on_a_flow_with_known_answer(self, counting, solver, num_steps, evaluations, bound):
        model, prefix = counting
        model.scheduler = SOLVERS[solver]()
        model.flow = gaussian_velocity
        noise = torch.randn(1, 40, 5, 4, generator=torch.Generator().manual_seed(0))
        exact = 0.4 + 0.3 * noise
        for _ in range(2):  # a scheduler counts its steps: calls must neither notice one another nor leave a trace
            model.times.clear()
            found = model.sample_actions(prefix=prefix, noise=noise, num_samples=40, num_steps=num_steps)
            assert len(model.times) == evaluations
            assert (found - exact).abs().mean() < bound
        assert model.scheduler.step_index is None

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_scheduler_survives_saving(self, policy, inputs, noise, solver, tmp_path):
        model, _ = policy
        original = model.scheduler
        model.scheduler = SOLVERS[solver]()
        expected = model.sample_actions(**inputs, noise=noise, num_steps=3)
        model.save_pretrained(tmp_path)
        model.scheduler = original
        loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
        assert type(loaded.scheduler) is type(SOLVERS[solver]())
        assert torch.equal(loaded.sample_actions(**inputs, noise=noise, num_steps=3), expected)


class TestSampling:
    def test_presets_are_saved(self, policy, inputs, noise, tmp_path):
        model = copy.deepcopy(policy[0])
        released = model.sample_actions(**inputs, noise=noise)
        model.scheduler = SOLVERS["heun"]()
        model.use_sampling_preset("few_steps")
        few = model.sample_actions(**inputs, noise=noise)
        torch.testing.assert_close(few, policy[0].sample_actions(**inputs, noise=noise, num_steps=5))
        assert (few - released).abs().max() > 1e-3
        model.save_pretrained(tmp_path)
        again = Nora15ForActionPrediction.from_pretrained(tmp_path)
        torch.testing.assert_close(again.sample_actions(**inputs, noise=noise), few)
        again.use_sampling_preset("released")
        torch.testing.assert_close(again.sample_actions(**inputs, noise=noise), released)
        with pytest.raises(
            ValueError, match=r"name='faster' is not a sampling preset\. Known presets: released, few_steps"
        ):
            again.use_sampling_preset("faster")

    def test_generator_makes_it_reproducible(self, policy, inputs):
        model, _ = policy
        first, second = (model.sample_actions(**inputs, generator=torch.Generator().manual_seed(s)) for s in (0, 0))
        other = model.sample_actions(**inputs, generator=torch.Generator().manual_seed(1))
        assert torch.equal(first, second)
        assert not torch.allclose(first, other)

    def test_image_and_instruction_matter(self, policy, images, noise):
        model, processor = policy
        base = model.sample_actions(**single(processor, images[0], TEXTS[0]), noise=noise[:1])
        other_image = model.sample_actions(**single(processor, images[1], TEXTS[0]), noise=noise[:1])
        black = model.sample_actions(**single(processor, np.zeros_like(images[0]), TEXTS[0]), noise=noise[:1])
        other_text = model.sample_actions(**single(processor, images[0], TEXTS[2]), noise=noise[:1])
        for changed in (other_image, black, other_text):
            assert (changed - base).abs().max() > 1e-2

    def test_flow_times_follow_the_beta_distribution(self, policy):
        model, _ = policy
        draws = [draw_flow_samples(model.config, [(0,)], (4000, 5)) for _ in range(2)]
        assert all(torch.equal(first, second) for first, second in zip(*draws, strict=True))
        [noise], [times] = draws[0]
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(1, abs=0.01)
        assert times.min() > 0.001
        assert times.max() < 1
        # Mean and variance of Beta(1.5, 1), scaled.
        assert times.mean().item() == pytest.approx(0.001 + 0.999 * 0.6, abs=0.005)
        assert times.var().item() == pytest.approx(0.999**2 * 0.6 * 0.4 / 3.5, abs=0.002)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_steps": 0}, "num_steps=0"),
            ({"num_samples": 0}, "num_samples=0"),
            ({"noise": torch.zeros(3, 4, 4)}, "noise has shape"),
            ({"noise": torch.zeros(3, 5, 4), "num_samples": 2}, "num_samples=2"),
            ({"input_ids": None}, "encode_prefix"),
        ],
    )
    def test_bad_arguments(self, policy, inputs, arguments, message):
        with pytest.raises(ValueError, match=message):
            policy[0].sample_actions(**{**inputs, **arguments})

    @pytest.mark.parametrize(
        ("noisy", "times", "message"),
        [
            (torch.zeros(3, 5, 7), torch.zeros(3), "action_dim=4"),
            (torch.zeros(5, 4), torch.zeros(3), "noisy_actions has shape"),
            (torch.zeros(3, 5, 4), torch.zeros(3, 1), "timestep"),
            (torch.zeros(3, 2, 5, 4), torch.zeros(3), "one flow time per chunk"),
            (torch.zeros(2, 5, 4), torch.zeros(2), "prefix of 3 rows"),
        ],
    )
    def test_bad_velocity_arguments(self, policy, inputs, noisy, times, message):
        with torch.no_grad(), pytest.raises(ValueError, match=message):
            policy[0].predict_velocity(noisy, times, policy[0].encode_prefix(**inputs))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "nothing to compute"),
            ({"actions": torch.zeros(3, 4, 4)}, "actions has shape"),
            ({"actions": torch.zeros(3, 5, 4), "noise": torch.zeros(3, 4, 4)}, "noise has shape"),
            ({"actions": torch.zeros(3, 5, 4), "timestep": torch.zeros(2)}, "noise has shape"),
            ({"actions": torch.zeros(3, 5, 4), "loss_reduction": "none"}, "loss_reduction='none' is unknown"),
        ],
    )
    def test_bad_training_arguments(self, policy, inputs, arguments, message):
        with torch.no_grad(), pytest.raises(ValueError, match=message):
            policy[0](**inputs, **arguments)


class TestGeneration:
    def test_only_action_tokens_and_a_stop(self, policy, inputs):
        model, processor = policy
        for options in ({}, {"do_sample": True, "temperature": 2.0}):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                rows = model.generate_actions(**inputs, max_new_tokens=6, **options)
            assert len(rows) == 3
            for row in rows:
                assert len(row) <= 6
                assert all(0 <= token < model.config.num_action_tokens for token in row)
            actions, valid = processor.decode_action_tokens(rows)
            assert actions.shape == (3, 5, 4)
            assert np.isnan(actions[~valid]).all()

    @pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 5.0}], ids=["greedy", "sampling"])
    def test_other_tokens_are_out_of_the_question(self, policy, inputs, options):
        """Text is far more likely here than any action, and the end is out of reach: rows are complete all the same."""
        model, processor = policy
        start, end = model.config.action_token_start_id, processor.tokenizer.eos_token_id
        text = [token for token in range(start) if token != end]

        def prefer_text(module, args, output):
            return output.index_fill(-1, torch.tensor(text), 1e4).index_fill(-1, torch.tensor([end]), -1e4)

        handle = model.vlm.lm_head.register_forward_hook(prefer_text)
        rows = model.generate_actions(**inputs, max_new_tokens=6, **options)
        handle.remove()
        assert [len(row) for row in rows] == [6, 6, 6]

    def test_sampling_follows_the_seed(self, policy, inputs):
        def sample(seed):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return policy[0].generate_actions(**inputs, max_new_tokens=6, do_sample=True, temperature=2.0)

        assert sample(0) == sample(0)
        assert sample(0) != sample(1)

    def test_each_row_of_a_batch_ends_on_its_own(self, policy, inputs):
        model, processor = policy
        end = processor.tokenizer.eos_token_id
        free = model.generate_actions(**inputs, max_new_tokens=5)
        assert [len(row) for row in free] == [5, 5, 5]
        calls = []

        def end_row_one_after_two_tokens(module, args, output):
            calls.append(output.shape[0])
            if len(calls) == 3:
                output[1, :, end] = 1e4
            return output

        handle = model.vlm.lm_head.register_forward_hook(end_row_one_after_two_tokens)
        rows = model.generate_actions(**inputs, max_new_tokens=5)
        handle.remove()
        assert rows == [free[0], free[1][:2], free[2]]

    def test_stops_at_the_end_marker(self, policy, images):
        """An LM head that always prefers the end marker gives an empty row."""
        model, processor = policy
        end = processor.tokenizer.eos_token_id
        handle = model.vlm.lm_head.register_forward_hook(
            lambda module, args, output: output.index_fill(-1, torch.tensor([end]), 1e4)
        )
        rows = model.generate_actions(**processor(images=images[0], text=TEXTS[0]))
        handle.remove()
        assert rows == [[]]

    def test_batch_equals_singles(self, policy, inputs, images):
        model, processor = policy
        together = model.generate_actions(**inputs, max_new_tokens=4)
        alone = [
            model.generate_actions(**single(processor, image, text), max_new_tokens=4)[0]
            for image, text in zip(images, TEXTS, strict=True)
        ]
        assert together == alone

    def test_three_axis_positions(self, policy, inputs):
        """Without `mm_token_type_ids` transformers would count text and image tokens alike, without a word."""
        model, _ = policy
        seen = []
        hook = model.vlm.model.language_model.register_forward_pre_hook(
            lambda module, args, options: seen.append(options["position_ids"]), with_kwargs=True
        )
        model.generate_actions(**inputs, max_new_tokens=2)
        hook.remove()
        image_token = model.config.vlm_config.image_token_id
        expected = multimodal_position_ids(
            inputs["input_ids"], inputs["attention_mask"], inputs["image_grid_thw"], image_token, 2
        )
        real = inputs["attention_mask"].bool()
        assert torch.equal(seen[0][-3:][:, real], expected[:, real])
        assert torch.equal(seen[1][-3:], expected[:, :, -1:] + 1)

    def test_greedy_tokens_are_those_of_the_training_pass(self, policy, images):
        model, processor = policy
        prompt = single(processor, images[0], TEXTS[0])
        row = model.generate_actions(**prompt, max_new_tokens=4)[0]
        start, count = model.config.action_token_start_id, model.config.num_action_tokens
        ids = torch.cat([prompt["input_ids"], torch.tensor([[token + start for token in row]])], dim=1)
        with torch.no_grad():
            logits = model(
                ids,
                pixel_values=prompt["pixel_values"],
                image_grid_thw=prompt["image_grid_thw"],
                return_logits=True,
            ).logits[0, prompt["input_ids"].shape[1] - 1 : -1]
        assert logits[:, start : start + count].argmax(-1).tolist() == row

    def test_without_an_end_marker(self, policy, inputs, monkeypatch):
        monkeypatch.setattr(policy[0].generation_config, "eos_token_id", None)
        with pytest.raises(ValueError, match="eos_token_id"):
            policy[0].generate_actions(**inputs)

    def test_right_padding_is_refused(self, policy, inputs):
        with pytest.raises(ValueError, match="left-padded"):
            policy[0].generate_actions(**right_padded(inputs))


class TestSavingAndLoading:
    @pytest.fixture(scope="class")
    def folder(self, policy, tmp_path_factory):
        folder = tmp_path_factory.mktemp("policy")
        policy[0].save_pretrained(folder)
        policy[1].save_pretrained(folder)
        return folder

    def test_bit_equal_through_auto_classes(self, policy, images, noise, folder):
        model, processor = policy
        loaded, loaded_processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        assert type(loaded) is Nora15ForActionPrediction
        assert not loaded.training
        expected = model.sample_actions(**processor(images=images, text=TEXTS), noise=noise)
        found = loaded.sample_actions(**loaded_processor(images=images, text=TEXTS), noise=noise)
        assert torch.equal(found, expected)
        assert torch.equal(loaded_processor.unnormalize_actions(found), processor.unnormalize_actions(expected))
        assert loaded.generate_actions(
            **loaded_processor(images=images, text=TEXTS), max_new_tokens=3
        ) == model.generate_actions(**processor(images=images, text=TEXTS), max_new_tokens=3)

    def test_file_holds_the_released_names(self, policy, folder):
        """Trainer resumes with strict=False: under any other name a weight would silently stay random."""
        expected = set(policy[0].state_dict()) - {"vlm.lm_head.weight"}
        assert set(load_file(folder / "model.safetensors")) == expected

    def test_pushing_while_saving_is_refused(self, policy, tmp_path):
        with pytest.raises(ValueError, match="call push_to_hub"):
            policy[0].save_pretrained(tmp_path, push_to_hub=True)

    def test_parameters_and_buffers(self, policy, folder):
        loaded = Nora15ForActionPrediction.from_pretrained(folder)
        for kind in ("named_parameters", "named_buffers"):
            expected, found = dict(getattr(policy[0], kind)()), dict(getattr(loaded, kind)())
            assert set(found) == set(expected)
            assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert loaded.vlm.lm_head.weight is loaded.vlm.model.language_model.embed_tokens.weight

    def test_configuration(self, policy, folder):
        loaded = Nora15Config.from_pretrained(folder)
        assert loaded.to_dict().keys() == policy[0].config.to_dict().keys()
        for name in ("chunk_size", "action_dim", "action_token_start_id", "num_action_tokens", "num_flow_samples"):
            assert getattr(loaded, name) == getattr(policy[0].config, name)
        assert loaded.vlm_config.text_config.to_dict() == policy[0].config.vlm_config.text_config.to_dict()

    def test_sharded(self, policy, inputs, noise, tmp_path):
        policy[0].save_pretrained(tmp_path, max_shard_size="4MB")
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
        loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
        expected = policy[0].sample_actions(**inputs, noise=noise)
        assert torch.equal(loaded.sample_actions(**inputs, noise=noise), expected)

    def test_dtype(self, policy, folder):
        loaded = Nora15ForActionPrediction.from_pretrained(folder, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda weights: weights.pop("action_out_proj.bias"), "1 missing: .'action_out_proj.bias'"),
            (lambda weights: weights.update(extra=torch.zeros(2)), "1 unexpected: .'extra'"),
            (
                lambda weights: weights.update(
                    {"expert.norm.weight": weights.pop("action_expert.norm.weight")},
                ),
                "1 missing.*; 1 unexpected",
            ),
            (lambda weights: weights.pop("vlm.model.language_model.embed_tokens.weight"), "missing.*embed_tokens"),
        ],
    )
    def test_incomplete_checkpoint(self, folder, tmp_path, change, message):
        copy_of(folder, tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        change(weights)
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            Nora15ForActionPrediction.from_pretrained(tmp_path)

    @pytest.mark.parametrize("options", [{}, {"ignore_mismatched_sizes": True}])
    def test_mismatched_shape(self, folder, tmp_path, options):
        copy_of(folder, tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        weights["action_out_proj.weight"] = torch.zeros(9, 128)
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises((ValueError, RuntimeError), match=r"action_out_proj\.weight|mismatch"):
            Nora15ForActionPrediction.from_pretrained(tmp_path, **options)

    def test_truncated_file(self, folder, tmp_path):
        copy_of(folder, tmp_path)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(
            ValueError, match=r"model\.safetensors is truncated or corrupted: .*Download or save it again"
        ):
            Nora15ForActionPrediction.from_pretrained(tmp_path)

    def test_pickle_is_refused(self, folder, tmp_path):
        copy_of(folder, tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        torch.save(weights, tmp_path / "pytorch_model.bin")
        with pytest.raises((OSError, ValueError), match="safetensors"):
            Nora15ForActionPrediction.from_pretrained(tmp_path)

    def test_a_scheduler_that_does_not_integrate_flows(self, folder, tmp_path):
        copy_of(folder, tmp_path)
        DDPMScheduler().save_pretrained(tmp_path / "scheduler")
        with pytest.raises(ValueError, match=r"DDPMScheduler.*does not integrate"):
            Nora15ForActionPrediction.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("scheduler/scheduler_config.json", "null", "names None, which is not a scheduler"),
            ("scheduler/scheduler_config.json", "{}", "names None, which is not a scheduler"),
            ("scheduler/scheduler_config.json", '{"_class_name": 3}', "names 3, which is not a scheduler"),
            (
                "scheduler/scheduler_config.json",
                '{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": null}',
                "TypeError.*Correct its values",
            ),
            ("generation_config.json", '{"pad_token_id": "x"}', "cannot be used: .*Correct it, or remove it"),
        ],
    )
    def test_odd_values(self, folder, tmp_path, file, content, message):
        copy_of(folder, tmp_path)
        (tmp_path / file).write_text(content)
        with pytest.raises(ValueError, match=rf"{Path(file).name} of .*{tmp_path.name}.*{message}"):
            Nora15ForActionPrediction.from_pretrained(tmp_path)

    def test_no_scheduler(self, folder, tmp_path):
        copy_of(folder, tmp_path)
        (tmp_path / "scheduler" / "scheduler_config.json").unlink()
        with pytest.raises(OSError, match="scheduler_config"):
            Nora15ForActionPrediction.from_pretrained(tmp_path)


def copy_of(folder, target):
    for file in folder.rglob("*"):
        if file.is_file():
            (target / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(folder)).write_bytes(file.read_bytes())


class TestConfiguration:
    def test_defaults_are_the_released_model(self):
        config = Nora15Config()
        text, vision, expert = (
            config.vlm_config.text_config,
            config.vlm_config.vision_config,
            config.action_expert_config,
        )
        assert (text.hidden_size, text.num_hidden_layers, text.num_key_value_heads) == (2048, 36, 2)
        assert text.rope_parameters["rope_theta"] == 1e6
        assert text.rope_parameters["mrope_section"] == [16, 24, 24]
        assert (vision.depth, vision.hidden_size, list(vision.fullatt_block_indexes)) == (32, 1280, [7, 15, 23, 31])
        assert (expert.hidden_size, expert.num_attention_heads, expert.intermediate_size) == (768, 6, 2048)
        assert (config.chunk_size, config.action_dim, config.num_inference_steps) == (5, 7, 10)
        assert config.tie_word_embeddings

    def test_released_size(self):
        """228 M parameters of the expert and its heads; nothing is allocated."""
        with torch.device("meta"):
            model = Nora15ForActionPrediction(Nora15Config())
        expert = sum(p.numel() for name, p in model.named_parameters() if name.startswith("action_"))
        assert expert == pytest.approx(228e6, rel=0.01)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"action_expert_config": {"hidden_size": 700}}, "hidden_size = 128 . num_attention_heads"),
            ({"action_expert_config": {"hidden_size": 384, "num_attention_heads": 3}}, "multiple of the"),
            ({"chunk_size": 0}, "chunk_size=0"),
            ({"action_dim": 0}, "action_dim=0"),
            ({"num_inference_steps": 0}, "num_inference_steps=0"),
            ({"num_flow_samples": 0}, "num_flow_samples=0"),
            ({"action_token_start_id": 153000}, "outside the backbone's vocabulary"),
            ({"chunk_size": "five"}, "chunk_size"),
        ],
    )
    def test_contradictions(self, change, message):
        with pytest.raises(Exception, match=message):
            Nora15Config(**change)

    def test_round_trip_of_a_dict(self):
        config = Nora15Config(chunk_size=8, action_dim=4)
        again = Nora15Config.from_dict(json.loads(config.to_json_string(use_diff=False)))
        assert again.to_dict() == config.to_dict()
        assert isinstance(again.vlm_config, PreTrainedConfig)


class Demonstrations(Dataset):
    """Twelve random samples in the layout of the data room."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        mask = np.ones(5, dtype=bool)
        mask[5 - index % 3 :] = index % 3 == 0
        return {
            "images": [rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)],
            "instruction": TEXTS[index % 3],
            "actions": rng.uniform(-0.9, 0.9, (5, 4)).astype(np.float32),
            "action_mask": mask,
            "dataset_key": "default",
        }


def make_trainer(folder, **options):
    model, processor = tiny_policy(image_size=56, num_flow_samples=2, seed=0)
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
    }
    collator = PolicyCollator(processor, action_tokens=options.get("objective") != "flow")
    return Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(**{**arguments, **options}),
        train_dataset=Demonstrations(),
        data_collator=collator,
    )


class TestSupervisedTrainer:
    @pytest.fixture(scope="class")
    def uninterrupted(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("uninterrupted")
        trainer = make_trainer(folder, ema_decay=0.9)
        trainer.train()
        return trainer, folder

    @pytest.mark.slow
    def test_resumed_run_equals_uninterrupted_bit_for_bit(self, uninterrupted, tmp_path):
        whole, folder = uninterrupted
        copy_of(folder / "checkpoint-3", tmp_path / "checkpoint-3")
        resumed = make_trainer(tmp_path, ema_decay=0.9)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        expected = whole.model.state_dict()
        found = resumed.model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        for file in ("model.safetensors", EMA_FILE):
            first, second = load_file(folder / "checkpoint-6" / file), load_file(tmp_path / "checkpoint-6" / file)
            assert all(torch.equal(second[name], value) for name, value in first.items())

    def test_average_is_that_of_the_weights(self, uninterrupted):
        """Weights and average of steps 3 and 6, and the average put into the model at the end."""
        trainer, folder = uninterrupted
        last, average = (load_file(folder / "checkpoint-6" / name) for name in ("model.safetensors", EMA_FILE))
        for name, parameter in trainer.model.named_parameters():
            assert torch.equal(parameter, average[name])
        assert any(not torch.equal(last[name], value) for name, value in average.items())

    def test_decay_ramps_up(self):
        """Against the recurrence in plain numbers: decay at step n is min(0.5, (1 + n) / (10 + n))."""
        model = torch.nn.Linear(1, 1, bias=False)
        callback = EmaCallback(0.5)
        state = type("State", (), {"global_step": 0, "is_world_process_zero": True})()
        with torch.no_grad():
            model.weight.fill_(0.0)
        callback.on_train_begin(None, state, None, model=model)
        expected = 0.0
        for step in range(1, 21):
            state.global_step = step
            with torch.no_grad():
                model.weight.fill_(float(step))
            callback.on_step_end(None, state, None, model=model)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * step
            assert callback.average["weight"].item() == pytest.approx(expected, rel=1e-6)
            assert decay == 0.5 or step < 8
        callback.on_train_end(None, state, None, model=model)
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.slow
    def test_resuming_without_an_average_is_refused(self, tmp_path):
        make_trainer(tmp_path, max_steps=1, save_steps=1).train()
        trainer = make_trainer(tmp_path, max_steps=2, ema_decay=0.9)
        with pytest.raises(FileNotFoundError, match="without a moving average"):
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))

    @pytest.mark.parametrize(
        ("freeze", "objective", "still"),
        [
            (["backbone"], "flow", ("vlm.",)),
            (["vision_tower"], "joint", ("vlm.model.visual.",)),
            (["expert"], "fast", ("action_",)),
        ],
    )
    def test_frozen_parts(self, freeze, objective, still, tmp_path):
        trainer = make_trainer(tmp_path, freeze=freeze, objective=objective, max_steps=2, save_strategy="no")
        before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
        trainer.train()
        moved = {
            name: not torch.equal(parameter, before[name]) for name, parameter in trainer.model.named_parameters()
        }
        assert not any(changed for name, changed in moved.items() if name.startswith(still))
        assert sum(moved.values()) > 0.5 * sum(not name.startswith(still) for name in moved)

    def test_logged_parts_add_up(self, tmp_path):
        trainer = make_trainer(tmp_path, max_steps=2, save_strategy="no")
        trainer.train()
        for entry in trainer.state.log_history[:2]:
            assert entry["loss"] == pytest.approx(entry["lm_loss"] + 10 * entry["flow_loss"], rel=1e-3)

    def test_coarse_weights_are_refused(self, tmp_path):
        model, processor = tiny_policy(seed=0)
        arguments = Nora15SFTConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True)
        with pytest.raises(ValueError, match=r"bfloat16.*float32"):
            Nora15SFTTrainer(model.to(torch.bfloat16), arguments, data_collator=PolicyCollator(processor))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"objective": "both"}, "objective='both'"),
            ({"freeze": ["head"]}, "known parts"),
            ({"freeze": ["backbone", "expert"]}, "nothing would be trained"),
        ],
    )
    def test_contradicting_arguments(self, options, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            Nora15SFTConfig(output_dir=str(tmp_path), **options)

    @pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
    def test_impossible_decay(self, decay):
        with pytest.raises(ValueError, match="ema_decay"):
            EmaCallback(decay)


def test_scores_of_supervised_tokens_alone_give_the_same_loss_and_gradients(policy):
    """Without `return_logits` the backbone's last layer finishes these tokens only."""
    model, processor = copy.deepcopy(policy)
    chunks = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 5, 4)).astype(np.float32)
    images = np.random.default_rng(1).integers(0, 256, (2, 84, 84, 3), dtype=np.uint8)
    batch = processor(images=list(images), text=["open the faucet", "push"], actions=chunks)
    noise, timestep = draw_flow_samples(model.config, [(0,), (1,)], ())
    results = []
    for return_logits in (True, False):
        model.zero_grad()
        output = model(**batch, noise=noise, timestep=timestep, return_logits=return_logits)
        output.loss.backward()
        results.append((output.loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    (loss, gradients), (alone, gradients_alone) = results
    torch.testing.assert_close(alone, loss, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        assert (gradients_alone[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


def test_the_gradient_of_the_embeddings_waits_until_the_images_are_done(policy):
    """It is as large as the embeddings, and would otherwise lie beside the activations of the vision tower."""
    model = copy.deepcopy(policy[0]).train()
    order = []
    watched = {"tokens": model.get_input_embeddings().weight, "images": next(model.vlm.model.visual.parameters())}
    for name, parameter in watched.items():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    ids = policy[1](images=np.zeros((84, 84, 3), np.uint8), text=TEXTS[0])
    labels = torch.full_like(ids["input_ids"], -100)
    labels[:, -1] = ids["input_ids"][:, -1]
    model(**ids, labels=labels).loss.backward()
    assert order == ["images", "tokens"]
