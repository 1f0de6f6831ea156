# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The robot's state as an input: its token, its statistics, and its way through processor, sampling and control."""

import numpy as np
import pytest
import torch

from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.actions.normalization import ActionStatistics, normalize
from nora15_hf.control import Nora15ControlPolicy
from nora15_hf.data import PolicyCollator
from nora15_hf.nora15.presets import tiny_policy

TEXTS = ["open the faucet", "press the button"]
RNG = np.random.default_rng(0)
IMAGES = list(RNG.integers(0, 256, (2, 56, 56, 3), dtype=np.uint8))
STATES = RNG.uniform(-2, 2, (2, 3)).astype(np.float32)
ACTIONS = RNG.uniform(-0.9, 0.9, (2, 5, 4)).astype(np.float32)


def statistics(width, scale):
    return ActionStatistics.from_actions(RNG.normal(size=(64, width)).astype(np.float32) * scale)


@pytest.fixture(scope="module")
def policy():
    norm_stats = {"arm": statistics(4, 1.0), "hand": statistics(4, 3.0)}
    state_stats = {"arm": statistics(3, 1.0), "hand": statistics(3, 3.0)}
    return tiny_policy(image_size=56, norm_stats=norm_stats, state_dim=3, state_stats=state_stats, seed=0)


@pytest.fixture(scope="module")
def inputs(policy):
    return policy[1](images=IMAGES, text=TEXTS, state=STATES, dataset_key=["arm", "hand"])


def noise_of(batch, *leading):
    return torch.randn(batch, *leading, 5, 4, generator=torch.Generator().manual_seed(0))


def test_a_policy_without_state_has_the_released_parameters(policy):
    released = tiny_policy(image_size=56, seed=0)[0]
    assert set(policy[0].state_dict()) - set(released.state_dict()) == {"state_proj.weight", "state_proj.bias"}
    assert released.config.state_dim is None


def test_state_is_normalised_with_the_statistics_of_its_key(policy, inputs):
    processor = policy[1]
    for row, key in enumerate(("arm", "hand")):
        expected = normalize(STATES[row], processor.state_stats[key], "min_max")
        np.testing.assert_allclose(inputs["state"][row], expected, atol=1e-6)


def test_actions_depend_on_the_state_of_their_own_row_only(policy, inputs):
    model, noise = policy[0], noise_of(2)
    before = model.sample_actions(**inputs, noise=noise)
    state = inputs["state"].clone()
    state[0] += 1.0
    after = model.sample_actions(**{**inputs, "state": state}, noise=noise)
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert torch.equal(after[1], before[1])


def test_chunks_of_one_row_share_its_state(policy, inputs):
    """One state token for four chunks side by side, against one pass for each chunk."""
    model, noise = policy[0], noise_of(2, 4)
    together = model.sample_actions(**inputs, noise=noise, num_samples=4)
    for draw in range(4):
        alone = model.sample_actions(**inputs, noise=noise[:, draw])
        torch.testing.assert_close(together[:, draw], alone, atol=1e-5, rtol=0)


def test_a_selected_prefix_keeps_its_state(policy, inputs):
    model, noise, rows = policy[0], noise_of(2), torch.tensor([1, 0])
    prefix = model.encode_prefix(**inputs)
    found = model.sample_actions(prefix=prefix.select(rows), noise=noise[rows])
    torch.testing.assert_close(found, model.sample_actions(prefix=prefix, noise=noise)[rows], atol=1e-5, rtol=0)


def test_the_state_token_learns(policy):
    model, processor = policy
    samples = [
        {
            "images": [image],
            "instruction": text,
            "actions": action,
            "action_mask": np.ones(5, bool),
            "state": state,
            "dataset_key": "arm",
        }
        for image, text, action, state in zip(IMAGES, TEXTS, ACTIONS, STATES, strict=True)
    ]
    model.zero_grad()
    model(**PolicyCollator(processor)(samples)).loss.backward()
    assert model.state_proj.weight.grad.abs().max() > 0


def test_control_loop_reads_the_state(policy):
    model, processor = policy
    control = Nora15ControlPolicy(model, processor, dataset_key="hand", seed=0)
    noise = torch.from_numpy(np.random.default_rng((0, 0)).standard_normal((1, 5, 4), dtype=np.float32))
    observation = {"image": IMAGES[0], "instruction": TEXTS[0], "state": STATES[0]}
    inputs = processor(images=IMAGES[0], text=TEXTS[0], state=STATES[0], dataset_key="hand")
    expected = processor.unnormalize_actions(model.sample_actions(**inputs, noise=noise)[0].numpy(), "hand")
    # Physical units of about ten: float32 tells them apart by 1e-7 of their size.
    np.testing.assert_allclose(control.predict_chunk(observation), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="lacks 'state'"):
        control.predict_chunk({"image": IMAGES[0], "instruction": TEXTS[0]})


def test_fast_tokens_ignore_the_state(policy, inputs):
    model = policy[0]
    prompt = {key: value for key, value in inputs.items() if key != "state"}
    assert model.generate_actions(**inputs, max_new_tokens=3) == model.generate_actions(**prompt, max_new_tokens=3)


def test_saved_and_loaded(policy, inputs, tmp_path):
    model, processor = policy
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = (cls.from_pretrained(tmp_path) for cls in (Nora15ForActionPrediction, Nora15Processor))
    again = loaded_processor(images=IMAGES, text=TEXTS, state=STATES, dataset_key=["arm", "hand"])
    assert torch.equal(again["state"], inputs["state"])
    noise = noise_of(2)
    assert torch.equal(loaded.sample_actions(**again, noise=noise), model.sample_actions(**inputs, noise=noise))


def test_a_policy_can_be_given_a_state_input(tmp_path):
    model, _ = tiny_policy(image_size=56, seed=0)
    model.add_state_input(6)
    model.save_pretrained(tmp_path)
    loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
    assert loaded.config.state_dim == 6
    assert torch.equal(loaded.state_proj.weight, model.state_proj.weight)
    assert model.state_proj.weight.std() > 0
    with pytest.raises(ValueError, match="reads a state of 6"):
        model.add_state_input(6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": None}, "state is missing"),
        ({"state": STATES[:, :2]}, r"state has shape \(2, 2\), expected \(batch, state_dim\) = \(2, 3\)"),
        ({"state": STATES * np.nan}, "NaN or infinity"),
        ({"dataset_key": None}, "2 to choose from"),
        ({"dataset_key": ["arm", "leg"]}, "'leg' is unknown"),
        ({"dataset_key": ["arm"]}, "1 entries for 2 texts"),
    ],
)
def test_processor_refuses(policy, change, message):
    arguments = {"state": STATES, "dataset_key": ["arm", "hand"]}
    with pytest.raises(ValueError, match=message):
        policy[1](images=IMAGES, text=TEXTS, **{**arguments, **change})


def test_model_refuses(policy, inputs):
    prompt = {key: value for key, value in inputs.items() if key != "state"}
    with pytest.raises(ValueError, match=r"state is missing; .*\(2, 3\)"):
        policy[0].sample_actions(**prompt)
    with pytest.raises(ValueError, match="has no state input"):
        tiny_policy(image_size=56, seed=0)[0].sample_actions(**inputs)


@pytest.mark.parametrize(
    ("norm_stats", "state_stats", "message"),
    [
        ({"arm": statistics(4, 1.0)}, {}, "every dataset needs statistics of its actions and of its state"),
        ({"arm": statistics(4, 1.0)}, {"arm": statistics(2, 1.0)}, "state_stats.*2 dimensions.*state_dim=3"),
    ],
)
def test_statistics_must_fit(policy, norm_stats, state_stats, message):
    with pytest.raises(ValueError, match=message):
        policy[1].set_norm_stats(norm_stats, state_stats)


def test_statistics_of_a_state_that_is_not_read():
    _, processor = tiny_policy(image_size=56, seed=0)
    with pytest.raises(ValueError, match="reads no state"):
        processor.set_norm_stats({"arm": statistics(4, 1.0)}, {"arm": statistics(3, 1.0)})
