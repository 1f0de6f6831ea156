# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Candidates of FAST tokens, states, pairs of all candidates, negatives, and rows sampled again."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.flow_dpo_runs import make_trainer
from helpers.preference_demonstrations import write_demonstrations
from nora15_hf.actions import FastActionTokenizer
from nora15_hf.actions.normalization import ActionStatistics
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FastSampler,
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    build_preferences,
    regenerate_candidates,
    sample_candidates,
    select_pairs,
    select_states,
)

INSTRUCTIONS = ("open the faucet", "press the button")
GROUND_TRUTH = WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)})


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp("data") / "demonstrations", (7, 9, 30), INSTRUCTIONS)


@pytest.fixture(scope="module")
def dataset(demonstrations):
    return LeRobotDataset(demonstrations, dataset_key="default")


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy(INSTRUCTIONS, image_size=56)


@pytest.fixture(scope="module")
def single_steps(demonstrations):
    """The same demonstrations in chunks of one action."""
    return LeRobotDataset(demonstrations, dataset_key="default", chunk_size=1)


@pytest.fixture(scope="module")
def speaking(single_steps):
    """A policy whose tokens mostly spell chunks: it has learnt to say one of many tokens that spell a whole one."""
    chunks = np.repeat(np.linspace(-1, 1, 256), 4).reshape(256, 1, 4).astype(np.float32)
    codec = FastActionTokenizer.fit(chunks, vocab_size=256)
    policy, processor = tiny_policy(INSTRUCTIONS, image_size=56, chunk_size=1, action_codec=codec)
    samples = [single_steps[0]] * 16
    batch = processor(
        images=[sample["images"] for sample in samples],
        text=[sample["instruction"] for sample in samples],
        actions=chunks[::16],
    )
    batch = {key: value for key, value in batch.items() if key not in ("actions", "action_mask")}
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    for _ in range(25):
        optimizer.zero_grad()
        policy(**batch).loss.backward()
        optimizer.step()
    return policy.eval(), processor


# FAST candidates


def test_fast_candidates_are_chunks_that_the_codec_can_spell(speaking, single_steps):
    processor = speaking[1]
    samples = [single_steps[0], single_steps[8]]
    candidates = sample_candidates(*speaking, samples, num_candidates=4, sampler=FastSampler(max_attempts=20))
    assert candidates.shape == (2, 4, 1, 4)
    assert candidates.dtype == torch.float32
    assert candidates.isfinite().all()
    assert len(np.unique(candidates.numpy().reshape(8, -1), axis=0)) > 2
    for chunk in candidates.flatten(0, 1).numpy():
        decoded, valid = processor.decode_action_tokens(processor.action_codec.encode(chunk))
        assert valid.all()
        np.testing.assert_allclose(decoded[0], chunk, atol=1e-6)


def test_tokens_follow_the_policys_distribution(tiny, dataset):
    policy, processor = tiny
    sample = dataset[0]
    inputs = processor(images=[sample["images"]], text=[sample["instruction"]])
    drawn = policy.generate_actions(
        prompt=policy.encode_prompt(**inputs).select(torch.zeros(400, dtype=torch.long)),
        noise_keys=[(number,) for number in range(400)],
        do_sample=True,
        temperature=2.0,
        top_k=0,
    )
    with torch.no_grad():
        logits = policy(**inputs, return_logits=True).logits[0, -1].double() / 2.0
    start, count = policy.config.action_token_start_id, policy.config.num_action_tokens
    scores = torch.cat([logits[start : start + count], logits[[policy.generation_config.eos_token_id]]])
    expected = scores.softmax(-1).numpy()
    found = np.bincount([row[0] if row else count for row in drawn], minlength=count + 1) / len(drawn)
    # Grouped, so that every group has many draws: four standard errors.
    order = np.argsort(expected)
    for group in np.array_split(order, 8):
        p = expected[group].sum()
        assert abs(found[group].sum() - p) < 4 * np.sqrt(p * (1 - p) / len(drawn))


def test_greedy_tokens_equal_generate(speaking, dataset):
    policy, processor = speaking
    samples = [dataset[0], dataset[8]]
    inputs = processor(images=[s["images"] for s in samples], text=[s["instruction"] for s in samples])
    drawn = policy.generate_actions(**inputs, noise_keys=[(0,), (1,)], do_sample=True, temperature=1e-6)
    assert drawn == policy.generate_actions(**inputs, do_sample=False)


def test_fast_candidates_take_one_backbone_pass(speaking, dataset):
    policy, prompts = speaking[0], []
    handle = policy.get_input_embeddings().register_forward_hook(
        lambda module, args, output: prompts.append(output.shape[:2]) if output.shape[1] > 1 else None
    )
    samples = [dataset[0], dataset[8]]
    sample_candidates(*speaking, samples, num_candidates=4, sampler=FastSampler(max_attempts=5))
    handle.remove()
    assert [batch for batch, _ in prompts] == [2]


def test_tokens_that_spell_nothing_are_counted_and_their_states_dropped(tiny, dataset, tmp_path):
    # Random weights hardly ever spell a chunk.
    with pytest.raises(ValueError, match="No pair is left of 6 states: 6 gave tokens that do not decode to a chunk"):
        build_preferences(
            tmp_path / "p",
            policy=tiny[0],
            processor=tiny[1],
            dataset=dataset,
            indices=range(6),
            reward=GROUND_TRUTH,
            num_candidates=2,
            sampler=FastSampler(max_attempts=1),
            progress=False,
        )
    counts = json.loads((tmp_path / "p" / "preferences.json").read_text())["counts"]
    assert counts == {"states": 6, "undecodable": 6, "ties": 0, "too_close": 0, "pairs": 0}


# Rows sampled again


@pytest.mark.parametrize("kind", ["flow", "fast"])
def test_a_row_can_be_sampled_again_bit_for_bit(tiny, speaking, dataset, single_steps, tmp_path, kind):
    policy, processor = {"flow": tiny, "fast": speaking}[kind]
    dataset = {"flow": dataset, "fast": single_steps}[kind]
    sampler = {"flow": FlowSampler(num_steps=2), "fast": FastSampler(max_attempts=20)}[kind]
    rows = build_preferences(
        tmp_path / "p",
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=[3, 17, 5, 20, 11],
        reward=GROUND_TRUTH,
        num_candidates=3,
        sampler=sampler,
        num_noisy_negatives=1,
        shard_size=3,
        batch_size=2,
        seed=4,
        progress=False,
    )
    assert len(rows) > 2
    assert rows["seed"][:] == [4] * len(rows)
    again = {"policy": policy, "processor": processor, "dataset": dataset}
    for row in (rows[0], rows[len(rows) - 1]):
        candidates = regenerate_candidates(tmp_path / "p", row, **again)
        assert torch.equal(candidates, torch.tensor(row["candidates"]))
    other = tiny_policy(INSTRUCTIONS, image_size=56, seed=9)[0]
    with pytest.raises(ValueError, match="Load the revision that sampled it"):
        regenerate_candidates(tmp_path / "p", rows[0], **{**again, "policy": other})
    part = LeRobotDataset(dataset.root, dataset_key="default", chunk_size=dataset.chunk_size, episodes=[1])
    with pytest.raises(ValueError, match="sampled at states of another dataset than the given one, 'default'"):
        regenerate_candidates(tmp_path / "p", rows[0], **{**again, "dataset": part})


# Pairs


rewards = arrays(np.float32, (3, 5), elements=st.floats(-1, 1, width=32))


@given(rewards, st.integers(0, 2), st.sampled_from(["all", "best_worst", "best_random"]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_pairs_hold_what_they_promise(reward, num_negatives, pairing, min_margin):
    candidates = np.random.default_rng(0).normal(size=(3, 5, 2, 3))
    options = {"pairing": pairing, "num_negatives": num_negatives, "min_margin": min_margin, "indices": [3, 1, 4]}
    selection = select_pairs(reward, candidates, **options)
    eligible = 5 - num_negatives
    assert (selection.chosen < eligible).all()
    assert (np.diff(selection.state) >= 0).all()
    margin = reward[selection.state, selection.chosen] - reward[selection.state, selection.rejected]
    np.testing.assert_array_equal(selection.margin, margin)
    kept = selection.kept
    assert (margin[kept] >= min_margin).all()
    assert (margin[kept] > 0).all()
    assert not (selection.is_tie & selection.is_close).any()
    if pairing == "all":
        found = set(zip(selection.state[kept], selection.chosen[kept], selection.rejected[kept], strict=True))
        expected = {
            (s, i, j)
            for s in range(3)
            for i in range(eligible)
            for j in range(5)
            if i != j and reward[s, i] - reward[s, j] >= max(min_margin, np.nextafter(np.float32(0), np.float32(1)))
        }
        assert found == expected
        assert len(selection.state) == 3 * (10 - num_negatives * (num_negatives - 1) // 2)
    else:
        assert selection.state.tolist() == [0, 1, 2]


def test_noisy_negatives_are_scored_and_only_rejected(tiny, dataset, tmp_path):
    arguments = {"policy": tiny[0], "processor": tiny[1], "dataset": dataset, "indices": range(10)}
    arguments |= {"reward": GROUND_TRUTH, "num_candidates": 2, "sampler": FlowSampler(num_steps=2), "progress": False}
    rows = build_preferences(tmp_path / "p", **arguments, num_noisy_negatives=3, noise_std=2.0, pairing="all")
    plain = build_preferences(tmp_path / "plain", **arguments)
    assert rows.features["candidates"].length == 5
    record = json.loads((tmp_path / "p" / "preferences.json").read_text())
    assert record["counts"]["pairs"] + record["counts"]["ties"] + record["counts"]["too_close"] == 10 * (1 + 2 * 3)
    for row in rows:
        sampled, negatives = np.array(row["candidates"][:2]), np.array(row["candidates"][2:])
        assert any(np.array_equal(row["chosen"], candidate) for candidate in sampled)
        assert 1.0 < (negatives - sampled[[0, 1, 0]]).std() < 3.0
        assert row["margin"] > 0
    sampled = {row["state_index"]: row["candidates"][:2] for row in rows}
    assert all(sampled.get(row["state_index"], row["candidates"]) == row["candidates"] for row in plain)
    with pytest.raises(ValueError, match="noise_std=0"):
        build_preferences(tmp_path / "q", **arguments, num_noisy_negatives=1, noise_std=0)


# States


def test_states_by_strategy(dataset):
    assert select_states(dataset, 46) == list(range(46))
    uniform = select_states(dataset, 20, seed=3)
    assert uniform == sorted(set(uniform))
    assert uniform == select_states(dataset, 20, seed=3) != select_states(dataset, 20, seed=4)
    # The first and third episodes open the faucet (37 states), the second presses the button (9).
    tasks = [dataset[state]["instruction"] for state in select_states(dataset, 14, strategy="per_task")]
    assert tasks.count(INSTRUCTIONS[0]) == tasks.count(INSTRUCTIONS[1]) == 7
    tasks = [dataset[state]["instruction"] for state in select_states(dataset, 30, strategy="per_task")]
    assert tasks.count(INSTRUCTIONS[1]) == 9
    last = {0: 6, 1: 8, 2: 29}
    stages = np.zeros(3, dtype=int)
    for state in select_states(dataset, 12, strategy="per_stage"):
        sample = dataset[state]
        stages[sample["frame_index"] * 3 // (last[sample["episode_index"]] + 1)] += 1
    assert stages.tolist() == [4, 4, 4]
    complete = select_states(dataset, 46 - 3 * 4, complete_chunks=True)
    assert all(dataset[state]["action_mask"].all() for state in complete)


def test_states_refuse(dataset):
    with pytest.raises(ValueError, match=r"num_states=47 must lie between 1 and 46"):
        select_states(dataset, 47)
    with pytest.raises(ValueError, match="between 1 and 34, the number of states with a complete chunk"):
        select_states(dataset, 35, complete_chunks=True)
    with pytest.raises(ValueError, match='strategy="best" must be one of uniform, per_task, per_stage'):
        select_states(dataset, 3, strategy="best")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FastSampler(temperature=0.0), "temperature=0.0 must be greater than 0"),
        (lambda: FlowSampler(temperature=-0.1), "temperature=-0.1 must be at least 0"),
        (lambda: FastSampler(max_attempts=0), "max_attempts=0 must be at least 1"),
        (lambda: select_pairs(np.zeros((1, 2)), np.zeros((1, 2, 5, 4)), min_margin=-1.0), "must not be negative"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Policies that read the robot's state


def test_the_state_reaches_candidates_rows_and_trainer(dataset, tmp_path):
    states = ActionStatistics.from_actions(dataset.all_states())
    policy, processor = tiny_policy(INSTRUCTIONS, image_size=56, state_dim=4, state_stats={"default": states})
    with torch.no_grad():
        policy.state_proj.weight.normal_(std=3.0)
    sample = dataset[0]
    elsewhere = {**sample, "state": sample["state"] + 1}
    options = {"num_candidates": 2, "sampler": FlowSampler(num_steps=2)}
    here, there = sample_candidates(policy, processor, [sample, elsewhere], **options)
    assert (here - there).abs().max() > 1e-3
    rows = build_preferences(
        tmp_path / "p",
        policy=policy,
        processor=processor,
        dataset=dataset,
        indices=[0, 4, 20],
        reward=GROUND_TRUTH,
        progress=False,
        **options,
    )
    np.testing.assert_array_equal(np.array(rows[0]["state"], dtype=np.float32), sample["state"])
    errors = {}
    for name, changed in (("own", rows), ("other", rows.map(lambda row: {"state": [x + 1 for x in row["state"]]}))):
        trainer = make_trainer(copy.deepcopy(policy), processor, tmp_path / name, changed, freeze_backbone=True)
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
        errors[name] = trainer.state.log_history[0]["flow_error/chosen"]
    assert errors["own"] != pytest.approx(errors["other"], rel=1e-5)
    with pytest.raises(ValueError, match=r"lacks the columns \['state'\]"):
        make_trainer(policy, processor, tmp_path / "none", rows.remove_columns("state"))
