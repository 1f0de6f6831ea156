# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""From observation to chunk: every caller's chunks are those computed by hand, with state, deltas, cameras and keys."""

import numpy as np
import pytest
import torch

from nora15_hf.actions import ActionStatistics
from nora15_hf.actions.keyed_noise import keyed_noise
from nora15_hf.control import (
    FastSampler,
    FlowSampler,
    GreedyFastSampler,
    InvalidChunkError,
    Nora15ControlPolicy,
    predict_chunks,
)
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.control.policy_metadata import policy_metadata
from nora15_hf.control.prepared_samples import sample_inputs
from nora15_hf.data import LeRobotDataset, LeRobotMixture, LeRobotWriter
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import sample_candidates
from nora15_hf.preferences.candidates import sampler_settings
from nora15_hf.simulation.environment import Observation
from nora15_hf.trainers.supervised.open_loop import replay_episodes

H, A, S = 5, 4, 4
INSTRUCTIONS = ("open the faucet", "press the button, please")
IS_DELTA = np.array([True, True, True, False])
STATISTICS = {
    # Far from [-1, 1] and from one another: another key, a missing state or normalised units would show.
    "arm": ActionStatistics.from_actions(np.array([[-2.0, -1.0, 0.0, 10.0], [2.0, 3.0, 1.0, 30.0]])),
    "hand": ActionStatistics.from_actions(np.array([[-20.0, 5.0, -7.0, 100.0], [20.0, 9.0, 7.0, 400.0]])),
}


def write_recording(root, seed):
    """Two episodes with two cameras of different sizes."""
    features = {
        "observation.images.front": {"dtype": "image", "shape": (56, 70, 3)},
        "observation.images.wrist": {"dtype": "image", "shape": (56, 56, 3)},
        "observation.state": {"dtype": "float32", "shape": (S,)},
        "action": {"dtype": "float32", "shape": (A,)},
    }
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="test")
    random = np.random.default_rng(seed)
    for length, instruction in zip((7, 6), INSTRUCTIONS, strict=True):
        frames = {
            "observation.images.front": random.integers(0, 256, (length, 56, 70, 3), dtype=np.uint8),
            "observation.images.wrist": random.integers(0, 256, (length, 56, 56, 3), dtype=np.uint8),
            "observation.state": random.normal(size=(length, S)).astype(np.float32),
            "action": random.uniform(-1, 1, size=(length, A)).astype(np.float32),
        }
        writer.add_episode(instruction, frames)
    return writer.finalize()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return {
        key: LeRobotDataset(write_recording(folder / key, seed), dataset_key=key)
        for seed, key in enumerate(STATISTICS)
    }


def make_policy(kind):
    """`"state"` reads the state, `"deltas"` counts actions from it, `"both"` does both, `"plain"` neither."""
    reads = {"state_dim": S, "state_stats": STATISTICS} if kind in ("state", "both") else {}
    policy, processor = tiny_policy(INSTRUCTIONS, image_size=56, norm_stats=STATISTICS, seed=0, **reads)
    if kind in ("state", "both"):
        with torch.no_grad():
            policy.state_proj.weight.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
    if kind in ("deltas", "both"):
        processor.delta_action_mask = IS_DELTA.tolist()
    return policy.eval(), processor


@pytest.fixture(scope="module", params=["plain", "state", "deltas", "both"])
def tiny(request):
    return make_policy(request.param)


@pytest.fixture(scope="module")
def samples(recordings):
    arm, hand = recordings.values()
    return [arm[0], hand[9], hand[3], arm[8]]


def physical(processor, chunk, sample):
    """Normalised actions `(..., A)` in physical units, from the statistics' own numbers."""
    statistics = STATISTICS[sample["dataset_key"]]
    low, high = statistics.min, statistics.max
    actions = 0.5 * (np.asarray(chunk) + 1) * (high - low) + low
    return actions + np.where(IS_DELTA, sample["state"], 0) if processor.delta_action_mask else actions


def by_hand(policy, processor, sample, key, *, num_candidates=1, num_steps=None, units="physical"):
    """Chunks `(N, H, A)` of one observation alone, straight from the model."""
    reads = {"state": sample["state"], "dataset_key": sample["dataset_key"]} if processor.state_dim else {}
    inputs = processor(images=sample["images"], text=sample["instruction"], **reads)
    noise = np.random.default_rng(key).standard_normal((num_candidates, H, A), dtype=np.float32)
    chunks = torch.cat(
        [
            policy.sample_actions(**inputs, noise=torch.from_numpy(candidate[None]), num_steps=num_steps)
            for candidate in noise
        ]
    ).numpy()
    return chunks if units == "normalised" else physical(processor, chunks, sample)


def assert_equal(found, expected):
    # Physical units up to 400, in float32.
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-4)


def arguments(samples):
    return {
        "images": [sample["images"] for sample in samples],
        "instructions": [sample["instruction"] for sample in samples],
        "states": [sample["state"] for sample in samples],
        "dataset_key": [sample["dataset_key"] for sample in samples],
    }


@pytest.mark.parametrize("num_candidates", [None, 1, 3])
def test_a_chunk_depends_on_its_own_observation_and_key(tiny, samples, num_candidates):
    keys = [(1, 2), (7,), (3, 4, 5), (0, 0)]
    options = {"sampler": FlowSampler(num_steps=3), "num_candidates": num_candidates}
    found = predict_chunks(*tiny, noise_keys=keys, **arguments(samples), **options)
    assert found.dtype == np.float32
    assert found.shape == (4, H, A) if num_candidates is None else (4, num_candidates, H, A)
    for chunks, sample, key in zip(found, samples, keys, strict=True):
        expected = by_hand(*tiny, sample, key, num_candidates=num_candidates or 1, num_steps=3)
        assert_equal(chunks, expected[0] if num_candidates is None else expected)
    normalised = predict_chunks(*tiny, noise_keys=keys, **arguments(samples), **options, unnormalize=False)
    assert_equal([physical(tiny[1], *pair) for pair in zip(normalised, samples, strict=True)], found)


# Callers


def test_control_policy(tiny, samples):
    for sample in samples:
        control = Nora15ControlPolicy(*tiny, dataset_key=sample["dataset_key"], seed=3, num_steps=2)
        observation = {"images": sample["images"], "instruction": sample["instruction"]}
        if tiny[1].needs_state:
            observation["state"] = sample["state"]
        for prediction in range(2):
            expected = by_hand(*tiny, sample, (3, prediction), num_steps=2)[0]
            assert_equal(control.predict_chunk(observation), expected)


def test_closed_loop_policy(samples):
    policy = make_policy("plain")
    hand = [sample for sample in samples if sample["dataset_key"] == "hand"]
    keys = [(10000, 0), (10001, 3)]
    observations = [
        Observation(dict(enumerate(sample["images"])), sample["state"], sample["instruction"]) for sample in hand
    ]
    found = Nora15ChunkPolicy(*policy, dataset_key="hand", sampler=FlowSampler(2))(observations, keys)
    assert_equal(found, [by_hand(*policy, *pair, num_steps=2)[0] for pair in zip(hand, keys, strict=True)])


def test_open_loop_error(tiny, recordings):
    for replay in replay_episodes(*tiny, LeRobotMixture(list(recordings.values())), 2, batch_size=2, seed=4):
        recording = recordings[replay.dataset_key]
        start = int(recording.episodes["from"][replay.episode_index])
        expected = [by_hand(*tiny, recording[start + frame], (4, start + frame))[0] for frame in (0, H)]
        assert_equal(replay.sampled, np.concatenate(expected)[: len(replay.sampled)])


def test_candidates_by_flow(tiny, samples):
    found = sample_candidates(*tiny, samples, num_candidates=3, sampler=FlowSampler(num_steps=2), seed=5)
    assert found.dtype == torch.float32
    for candidates, sample in zip(found, samples, strict=True):
        key = (5, sample["index"])
        expected = by_hand(*tiny, sample, key, num_candidates=3, num_steps=2, units="normalised")
        assert_equal(candidates, expected)


# FAST tokens


def chunk_of(processor, number):
    """Tokens that spell a chunk, and the chunk."""
    ids = processor.action_codec.encode(np.random.default_rng(number).normal(scale=0.3, size=(1, H, A)).clip(-1, 1))[0]
    return ids, processor.decode_action_tokens([ids])[0][0]


def test_greedy_tokens_in_physical_units(tiny, samples, monkeypatch):
    policy, processor = tiny
    spelt = [chunk_of(processor, number) for number in range(4)]
    monkeypatch.setattr(policy, "generate_actions", lambda **_: [ids for ids, _ in spelt])
    options = {"noise_keys": [(0,)] * 4, "sampler": GreedyFastSampler()}
    found = predict_chunks(*tiny, **arguments(samples), **options)
    for chunk, sample, (_, normalised) in zip(found, samples, spelt, strict=True):
        np.testing.assert_allclose(chunk, physical(processor, normalised, sample), rtol=1e-6)
    monkeypatch.setattr(policy, "generate_actions", lambda **_: [spelt[0][0], [], spelt[2][0], spelt[3][0]])
    with pytest.raises(InvalidChunkError, match="row 1 is not a chunk"):
        predict_chunks(*tiny, **arguments(samples), **options)


def test_a_flow_at_a_lower_temperature_begins_with_less_noise(tiny, samples):
    policy, processor = tiny
    keys = [(9, sample["index"]) for sample in samples]
    options = {"noise_keys": keys, "num_candidates": 3, "unnormalize": False}
    noise = torch.from_numpy(np.asarray(keyed_noise(keys, (3, policy.config.chunk_size, policy.config.action_dim))))

    def found(temperature):
        return predict_chunks(*tiny, **arguments(samples) | options, sampler=FlowSampler(2, temperature))

    np.testing.assert_array_equal(
        found(1.0), predict_chunks(*tiny, **arguments(samples) | options, sampler=FlowSampler(2))
    )
    inputs = sample_inputs(processor, samples)
    prefix = policy.encode_prefix(**inputs)
    expected = policy.sample_actions(prefix=prefix, noise=0.25 * noise, num_steps=2, num_samples=3)
    assert_equal(found(0.25), expected.view(noise.shape).numpy())
    alike = found(0.0)
    assert_equal(alike, np.repeat(alike[:, :1], 3, axis=1))
    for temperature, named in ((1.0, None), (0.25, 0.25)):
        sampler = FlowSampler(2, temperature)
        assert policy_metadata(policy, processor, dataset_key="hand", sampler=sampler)["temperature"] == named
        assert sampler_settings(sampler, policy).get("temperature") == named


def test_tokens_drawn_at_random_in_physical_units(tiny, samples, monkeypatch):
    """Each candidate is drawn until it spells a chunk, by its own key and attempt; one that never does is NaN."""
    policy, processor = tiny
    calls = []

    def generate(prompt, noise_keys, **options):
        calls.append(list(noise_keys))
        assert len(prompt) == len(noise_keys)
        assert options == {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 1.0}
        # Second candidates spell something at the second attempt, the last state's third candidate never.
        return [
            [] if (number == 1 and attempt == 0) or (row, number) == (samples[3]["index"], 2) else ids_of[row, number]
            for _, row, _, number, attempt in noise_keys
        ]

    spelt = {(s["index"], n): chunk_of(processor, 10 * s["index"] + n) for s in samples for n in range(3)}
    ids_of = {place: ids for place, (ids, _) in spelt.items()}
    monkeypatch.setattr(policy, "generate_actions", generate)
    sampler = FastSampler(temperature=0.5, max_attempts=3)
    keys = [(9, sample["index"]) for sample in samples]
    found = predict_chunks(*tiny, **arguments(samples), noise_keys=keys, sampler=sampler, num_candidates=3)
    assert found.dtype == np.float32
    for candidates, sample in zip(found, samples, strict=True):
        for number, candidate in enumerate(candidates):
            if sample is samples[3] and number == 2:
                assert np.isnan(candidate).all()
            else:
                expected = physical(processor, spelt[sample["index"], number][1], sample)
                assert_equal(candidate, expected)
    third = 3  # what tells tokens from other random numbers of a state
    assert calls[0] == [(*key, third, number, 0) for key in keys for number in range(3)]
    last = (*keys[3], third, 2)
    assert calls[1] == [*((*key, third, 1, 1) for key in keys), (*last, 1)]
    assert calls[2] == [(*last, 2)]
    normalised = sample_candidates(*tiny, samples, num_candidates=3, sampler=sampler, seed=9)
    for candidates, sample in zip(normalised, samples, strict=True):
        np.testing.assert_allclose(candidates[0], spelt[sample["index"], 0][1], atol=1e-6)


# Bad input


@pytest.mark.parametrize("kind", ["state", "deltas", "both"])
def test_a_missing_state_is_named(samples, kind):
    given = {**arguments(samples), "states": None}
    with pytest.raises(ValueError, match="state is missing"):
        predict_chunks(*make_policy(kind), noise_keys=[(0,)] * 4, **given)


def test_a_key_must_be_chosen_among_several(samples):
    given = {**arguments(samples), "dataset_key": None}
    with pytest.raises(ValueError, match="there are 2 to choose from: 'arm', 'hand'"):
        predict_chunks(*make_policy("deltas"), noise_keys=[(0,)] * 4, **given)
