# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy in a control loop: queue, ensembling, reproducibility, both decoders, timing, observations, bad arguments."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from nora15_hf.actions import ActionStatistics
from nora15_hf.control import InvalidChunkError, Nora15ControlPolicy
from nora15_hf.control.observation import check_observation
from nora15_hf.nora15.presets import tiny_policy

H, A = 5, 4
# Far from [-1, 1], and different in each dimension: actions that were not un-normalised would show.
LOW, HIGH = np.array([10.0, -4.0, 0.0, 100.0]), np.array([12.0, 4.0, 1.0, 300.0])


@pytest.fixture(scope="module")
def tiny():
    statistics = ActionStatistics.from_actions(np.stack([LOW, HIGH]), mask=np.array([True, True, False, True]))
    return tiny_policy(norm_stats={"arm": statistics}, seed=0)


def make_observations(count: int, seed: int = 0) -> list[dict]:
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 84, 84, 3), dtype=np.uint8)
    return [{"image": picture, "instruction": "open the faucet"} for picture in pictures]


OBSERVATIONS = make_observations(8)


def expected_chunk(model, processor, observation, seed, prediction, num_steps=None, temperature=1.0):
    """A chunk in physical units, straight from the model and the statistics."""
    inputs = processor(images=observation["image"], text=observation["instruction"])
    noise = temperature * np.random.default_rng((seed, prediction)).standard_normal((1, H, A), dtype=np.float32)
    actions = model.sample_actions(**inputs, noise=torch.from_numpy(noise), num_steps=num_steps)[0].numpy()
    physical = (actions + 1) / 2 * (HIGH - LOW) + LOW
    return np.where([True, True, False, True], physical, actions)


def run_episode(policy, observations=OBSERVATIONS):
    policy.reset()
    return np.stack([policy.select_action(observation) for observation in observations])


def test_queue_executes_each_chunk_in_order_in_physical_units(tiny):
    policy = Nora15ControlPolicy(*tiny, n_action_steps=3, seed=4, num_steps=2)
    actions = run_episode(policy)
    assert actions.shape == (8, A)
    assert actions.dtype == np.float32
    for step in range(8):
        prediction = step // 3
        chunk = expected_chunk(*tiny, OBSERVATIONS[3 * prediction], 4, prediction, num_steps=2)
        np.testing.assert_allclose(actions[step], chunk[step % 3], rtol=1e-4, atol=1e-4)


def test_the_noise_has_the_temperature(tiny):
    policy = Nora15ControlPolicy(*tiny, seed=4, num_steps=2, temperature=0.3)
    expected = expected_chunk(*tiny, OBSERVATIONS[0], 4, 0, num_steps=2, temperature=0.3)
    np.testing.assert_allclose(run_episode(policy, OBSERVATIONS[:1])[0], expected[0], rtol=1e-4, atol=1e-4)


def test_default_executes_the_whole_chunk(tiny):
    policy = Nora15ControlPolicy(*tiny, seed=0, num_steps=1)
    run_episode(policy, OBSERVATIONS[:6])
    assert policy.n_action_steps == H
    assert policy.timing_summary().planned == 2


@pytest.mark.parametrize(("decay", "n_action_steps"), [(0.01, 1), (0.7, 2), (-1.5, 1), (0.0, 1), (1e5, 1), (-1e5, 1)])
def test_temporal_ensembling_is_the_stated_average(tiny, decay, n_action_steps):
    policy = Nora15ControlPolicy(
        *tiny, temporal_ensemble_decay=decay, n_action_steps=n_action_steps, seed=1, num_steps=1
    )
    actions = run_episode(policy)
    starts = range(0, 8, n_action_steps)
    chunks = [expected_chunk(*tiny, OBSERVATIONS[start], 1, i, num_steps=1) for i, start in enumerate(starts)]
    for step in range(8):
        covering = [
            chunk[step - start] for start, chunk in zip(starts, chunks, strict=True) if start <= step < start + H
        ]
        logs = [-decay * i for i in range(len(covering))]
        weights = [math.exp(log - max(logs)) for log in logs]
        expected = sum(weight * action for weight, action in zip(weights, covering, strict=True)) / sum(weights)
        np.testing.assert_allclose(actions[step], expected, rtol=1e-4, atol=1e-4)


def test_ensembling_predicts_at_every_step_by_default(tiny):
    policy = Nora15ControlPolicy(*tiny, temporal_ensemble_decay=0.01, seed=0, num_steps=1)
    run_episode(policy, OBSERVATIONS[:3])
    assert policy.timing_summary().planned == 3


@pytest.mark.parametrize("decay", [None, 0.01])
def test_an_episode_does_not_depend_on_earlier_ones(tiny, decay):
    options = {"n_action_steps": 2, "temporal_ensemble_decay": decay, "seed": 3, "num_steps": 1}
    fresh = run_episode(Nora15ControlPolicy(*tiny, **options))
    used = Nora15ControlPolicy(*tiny, **options)
    run_episode(used, make_observations(3, seed=9))  # ends in the middle of a chunk
    used.predict_chunk(OBSERVATIONS[5])
    used.warm_up(OBSERVATIONS[6])
    torch.randn(3)  # the global generator has nothing to do with it
    np.testing.assert_array_equal(run_episode(used), fresh)


@pytest.mark.parametrize("decoder", ["flow", "fast"])
def test_warming_up_compiles_for_what_the_policy_will_be_given(tiny, monkeypatch, decoder):
    model, processor = tiny
    asked = []
    monkeypatch.setattr(model, "warm_up", lambda **inputs: asked.append(inputs), raising=False)
    policy = Nora15ControlPolicy(model, processor, seed=3, decoder=decoder)
    policy.warm_up(OBSERVATIONS[0])
    assert not asked
    policy.warm_up(OBSERVATIONS[0], compile=True)
    (inputs,) = asked
    expected = processor(images=OBSERVATIONS[0]["image"], text=OBSERVATIONS[0]["instruction"])
    assert inputs.pop("decoder") == decoder
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_the_seed_of_reset_is_for_one_episode(tiny):
    policy = Nora15ControlPolicy(*tiny, seed=3, num_steps=1)
    first = run_episode(policy, OBSERVATIONS[:1])
    policy.reset(seed=4)
    other = policy.select_action(OBSERVATIONS[0])
    assert not np.allclose(other, first[0])
    np.testing.assert_array_equal(run_episode(policy, OBSERVATIONS[:1]), first)
    np.testing.assert_array_equal(
        other, Nora15ControlPolicy(*tiny, seed=4, num_steps=1).select_action(OBSERVATIONS[0])
    )


def test_without_a_seed_episodes_differ(tiny):
    policy = Nora15ControlPolicy(*tiny, num_steps=1)
    assert not np.allclose(run_episode(policy, OBSERVATIONS[:1]), run_episode(policy, OBSERVATIONS[:1]))


def test_an_action_changed_in_place_is_not_executed_again(tiny, monkeypatch):
    policy = Nora15ControlPolicy(*tiny, n_action_steps=1, seed=0, num_steps=1, on_invalid="previous")
    action = policy.select_action(OBSERVATIONS[0])
    expected = action.copy()
    action[:] = 0
    monkeypatch.setattr(tiny[0], "sample_actions", lambda **_: torch.full((1, H, A), torch.nan))
    np.testing.assert_array_equal(policy.select_action(OBSERVATIONS[1]), expected)


def test_several_cameras_and_every_kind_of_image(tiny):
    policy = Nora15ControlPolicy(*tiny, seed=0, num_steps=1)
    picture, other = OBSERVATIONS[0]["image"], OBSERVATIONS[1]["image"]

    def first(**cameras):
        policy.reset()
        return policy.select_action({**cameras, "instruction": "open the faucet"})

    one = first(image=picture)
    np.testing.assert_array_equal(first(images=[picture]), one)
    np.testing.assert_array_equal(first(image=Image.fromarray(picture)), one)
    np.testing.assert_array_equal(first(image=torch.from_numpy(picture)), one)
    two = first(images=[picture, other])
    assert not np.allclose(two, one)
    assert not np.allclose(two, first(images=[other, picture]))


# FAST


def with_tokens(monkeypatch, model, rows):
    """The backbone emits the given FAST ids, one row per call."""
    rows = iter(rows)
    monkeypatch.setattr(model, "generate_actions", lambda **_: [next(rows)])


def fast_ids(processor, seed):
    chunk = np.clip(np.random.default_rng(seed).normal(scale=0.3, size=(1, H, A)), -1, 1)
    ids = processor.action_codec.encode(chunk)
    return ids[0], processor.unnormalize_actions(processor.decode_action_tokens(ids)[0][0], "arm")


def test_fast_decoder_gives_the_chunk_its_tokens_spell(tiny, monkeypatch):
    model, processor = tiny
    ids, chunk = fast_ids(processor, 0)
    with_tokens(monkeypatch, model, [ids])
    policy = Nora15ControlPolicy(model, processor, decoder="fast")
    actions = run_episode(policy, OBSERVATIONS[:H])
    np.testing.assert_allclose(actions, chunk, rtol=1e-6)
    assert policy.last_timing.planned is False


def test_fast_decoder_really_generates(tiny):
    # Random weights spell no chunk; what they spell is the model's own greedy answer.
    model, processor = tiny
    policy = Nora15ControlPolicy(model, processor, decoder="fast")
    ids = model.generate_actions(**processor(images=OBSERVATIONS[0]["image"], text="open the faucet"), do_sample=False)
    assert not processor.decode_action_tokens(ids)[1][0]
    with pytest.raises(InvalidChunkError, match=r"FAST tokens for 'open the faucet' do not decode to a chunk"):
        policy.select_action(OBSERVATIONS[0])
    assert policy.invalid_chunks == 1
    assert policy.last_timing.denoise > 0


def test_invalid_tokens_repeat_the_previous_action_and_predict_again(tiny, monkeypatch):
    model, processor = tiny
    (good, first), (better, second) = fast_ids(processor, 0), fast_ids(processor, 1)
    with_tokens(monkeypatch, model, [good, good[:-1], [], better])
    policy = Nora15ControlPolicy(model, processor, decoder="fast", n_action_steps=2, on_invalid="previous")
    actions = run_episode(policy, OBSERVATIONS[:6])
    np.testing.assert_allclose(actions, [first[0], first[1], first[1], first[1], second[0], second[1]], rtol=1e-6)
    assert policy.invalid_chunks == 2


def test_invalid_tokens_keep_ensembled_chunks_in_step(tiny, monkeypatch):
    model, processor = tiny
    (good, first), (better, second) = fast_ids(processor, 0), fast_ids(processor, 1)
    with_tokens(monkeypatch, model, [good, [], better])
    policy = Nora15ControlPolicy(model, processor, decoder="fast", temporal_ensemble_decay=0.0, on_invalid="previous")
    actions = run_episode(policy, OBSERVATIONS[:3])
    np.testing.assert_allclose(actions, [first[0], first[0], (first[2] + second[0]) / 2], rtol=1e-6)


@pytest.mark.parametrize("on_invalid", ["raise", "previous"])
def test_an_invalid_first_chunk_is_never_an_action(tiny, monkeypatch, on_invalid):
    model, processor = tiny
    with_tokens(monkeypatch, model, [fast_ids(processor, 0)[0], []])
    policy = Nora15ControlPolicy(model, processor, decoder="fast", on_invalid=on_invalid)
    policy.select_action(OBSERVATIONS[0])
    policy.reset()  # the action of the last episode must not come back
    with pytest.raises(InvalidChunkError, match="do not decode to a chunk"):
        policy.select_action(OBSERVATIONS[0])


def test_actions_that_are_not_finite_are_invalid(tiny, monkeypatch):
    model, processor = tiny
    monkeypatch.setattr(model, "sample_actions", lambda **_: torch.full((1, H, A), torch.inf))
    with pytest.raises(InvalidChunkError, match="NaN or infinity"):
        Nora15ControlPolicy(model, processor).select_action(OBSERVATIONS[0])


# Timing


def test_timing_of_planning_and_of_queued_calls(tiny):
    policy = Nora15ControlPolicy(*tiny, n_action_steps=2, seed=0, num_steps=1)
    with pytest.raises(ValueError, match="No chunk has been predicted yet"):
        policy.timing_summary()
    policy.warm_up(OBSERVATIONS[0])
    assert policy.last_timing is None
    policy.select_action(OBSERVATIONS[0])
    planned = policy.last_timing
    assert planned.planned
    assert min(planned.preprocess, planned.prefix, planned.denoise) > 0
    assert planned.preprocess + planned.prefix + planned.denoise <= planned.total
    policy.select_action(OBSERVATIONS[1])
    queued = policy.last_timing
    assert (queued.planned, queued.preprocess, queued.prefix, queued.denoise) == (False, 0, 0, 0)
    assert 0 < queued.total < planned.total
    policy.reset()
    policy.select_action(OBSERVATIONS[2])
    summary = policy.timing_summary()
    assert (summary.calls, summary.planned) == (3, 2)
    totals = [planned.total, policy.last_timing.total]
    np.testing.assert_allclose(summary.total, np.percentile(totals, [50, 95]))
    assert summary.denoise[0] <= summary.denoise[1]


def test_more_solver_steps_take_longer_in_denoising(tiny):
    times = {}
    for num_steps in (1, 40):
        policy = Nora15ControlPolicy(*tiny, seed=0, num_steps=num_steps)
        policy.warm_up(OBSERVATIONS[0])
        policy.predict_chunk(OBSERVATIONS[0])
        times[num_steps] = policy.last_timing.denoise
    assert times[40] > 4 * times[1]


def test_predict_chunk_leaves_the_queue_alone(tiny):
    policy = Nora15ControlPolicy(*tiny, n_action_steps=3, seed=2, num_steps=1)
    first = policy.select_action(OBSERVATIONS[0])
    chunk = policy.predict_chunk(OBSERVATIONS[4])
    assert chunk.shape == (H, A)
    assert chunk.dtype == np.float32
    np.testing.assert_allclose(chunk, expected_chunk(*tiny, OBSERVATIONS[4], 2, 1, num_steps=1), rtol=1e-4, atol=1e-4)
    own = expected_chunk(*tiny, OBSERVATIONS[0], 2, 0, num_steps=1)
    np.testing.assert_allclose([first, policy.select_action(OBSERVATIONS[1])], own[:2], rtol=1e-4, atol=1e-4)


# Bad input

PICTURE = OBSERVATIONS[0]["image"]
TEXT = "open the faucet"
BAD_OBSERVATIONS = {
    "not a mapping": ([PICTURE, TEXT], TypeError, "observation is a list"),
    "missing image": ({"instruction": TEXT}, ValueError, r"lacks 'image' \(or 'images'\); expected"),
    "missing instruction": ({"image": PICTURE}, ValueError, "lacks 'instruction'"),
    "nothing": ({}, ValueError, r"lacks 'image' \(or 'images'\) and 'instruction'"),
    "unknown key": ({"image": PICTURE, "instruction": TEXT, "state": 0, "Task": 1}, ValueError, "'Task', 'state'"),
    "both": ({"image": PICTURE, "images": [PICTURE], "instruction": TEXT}, ValueError, "both 'image' and 'images'"),
    "float": ({"image": PICTURE / 255, "instruction": TEXT}, TypeError, r"\['image'\] has dtype torch.float64"),
    "second camera": (
        {"images": [PICTURE, PICTURE.astype(np.int16)], "instruction": TEXT},
        TypeError,
        r"\['images'\]\[1\] has dtype torch.int16",
    ),
    "channels first": ({"image": PICTURE.transpose(2, 0, 1), "instruction": TEXT}, ValueError, "channels first"),
    "grey": ({"image": PICTURE[..., 0], "instruction": TEXT}, ValueError, "grey image"),
    "no pixels": ({"image": PICTURE[:0], "instruction": TEXT}, ValueError, "has no pixels"),
    "path": ({"image": "frame.png", "instruction": TEXT}, TypeError, r"\['image'\] is a str"),
    "array of cameras": ({"images": PICTURE[None], "instruction": TEXT}, TypeError, "expected a list with one image"),
    "no camera": ({"images": [], "instruction": TEXT}, ValueError, "empty list"),
    "bytes": ({"image": PICTURE, "instruction": b"open"}, TypeError, r"\['instruction'\] is a bytes"),
    "empty instruction": ({"image": PICTURE, "instruction": " "}, ValueError, r"\['instruction'\] is empty"),
}


@pytest.mark.parametrize("name", BAD_OBSERVATIONS)
def test_bad_observations_are_refused_by_name(tiny, name):
    observation, error, message = BAD_OBSERVATIONS[name]
    policy = Nora15ControlPolicy(*tiny, seed=0, num_steps=1)
    # Also while the queue is full, when the image is not looked at.
    policy.select_action(OBSERVATIONS[0])
    for call in (policy.select_action, policy.predict_chunk, policy.warm_up):
        with pytest.raises(error, match=message):
            call(observation)


@pytest.mark.parametrize("state", [{"x": 0.1}, "far", [[0.1], [0.2, 0.3]]])
def test_a_state_that_is_no_array_of_numbers_is_refused(state):
    with pytest.raises(
        TypeError, match=rf"observation\['state'\] is a {type(state).__name__}, expected numbers of shape"
    ):
        check_observation({"image": PICTURE, "instruction": TEXT, "state": state}, needs_state=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_action_steps": 0}, "n_action_steps=0 must lie between 1 and the chunk size 5"),
        ({"n_action_steps": 6}, "n_action_steps=6"),
        ({"temporal_ensemble_decay": 0.1, "n_action_steps": 5}, "none do"),
        ({"temporal_ensemble_decay": math.nan}, "finite"),
        ({"decoder": "diffusion"}, "expected 'flow' or 'fast'"),
        ({"decoder": "fast", "num_steps": 3}, "applies to the flow decoder"),
        ({"decoder": "fast", "temperature": 0.3}, "temperature=0.3 applies to the flow decoder"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"temperature": -0.1}, "temperature=-0.1 must be at least 0"),
        ({"on_invalid": "zero"}, "expected 'raise' or 'previous'"),
        ({"seed": -1}, "seed=-1"),
        ({"dataset_key": "leg"}, "'leg' is unknown.*'arm'"),
    ],
)
def test_bad_arguments(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        Nora15ControlPolicy(*tiny, **options)


def test_a_processor_of_another_policy_is_refused(tiny):
    differences = "chunk size: the model has 5, the processor 3; action dimension: the model has 4, the processor 2"
    with pytest.raises(ValueError, match=differences):
        Nora15ControlPolicy(tiny[0], tiny_policy(chunk_size=3, action_dim=2)[1])
