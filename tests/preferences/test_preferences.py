# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Preferences: candidates, rewards, pairs, and the dataset on disk."""

import copy
import json
import logging
import os
import runpy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.paths import EXAMPLES
from helpers.preference_demonstrations import write_demonstrations
from helpers.reward_batches import batch_of
from nora15_hf.actions.keyed_noise import keyed_noise
from nora15_hf.clips import ClipConventions
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import (
    FlowSampler,
    GroundTruthActionReward,
    WeightedReward,
    WorldModelGoalReward,
    build_preferences,
    labelling,
    load_preferences,
    preference_info,
    preset_reward,
    sample_candidates,
    select_pairs,
)
from nora15_hf.vjepa2_ac import tiny_world_model

pytestmark = pytest.mark.isa

CONFIGS = EXAMPLES / "configs"


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp("data") / "demonstrations")


@pytest.fixture(scope="module")
def dataset(demonstrations):
    return LeRobotDataset(demonstrations, dataset_key="default")


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy(("open the faucet",), image_size=56)


@pytest.fixture(scope="module")
def world_model():
    torch.manual_seed(0)
    model, processor = tiny_world_model(image_size=56, action_dim=4)
    return model.eval(), processor


GROUND_TRUTH = WeightedReward({"ground_truth": (GroundTruthActionReward(), 1.0)})


def build(folder, tiny, dataset, **changes):
    arguments = {
        "policy": tiny[0],
        "processor": tiny[1],
        "dataset": dataset,
        "indices": range(12),
        "reward": GROUND_TRUTH,
        "num_candidates": 3,
        "sampler": FlowSampler(num_steps=2),
        "shard_size": 5,
        "batch_size": 4,
        "progress": False,
    }
    return build_preferences(folder, **{**arguments, **changes})


# Candidates


def test_candidates_of_a_state_do_not_depend_on_the_others(tiny, dataset):
    options = {"num_candidates": 3, "sampler": FlowSampler(num_steps=2)}
    together = sample_candidates(*tiny, [dataset[index] for index in (0, 5, 11)], seed=3, **options)
    alone = sample_candidates(*tiny, [dataset[5]], seed=3, **options)
    assert together.shape == (3, 3, 5, 4)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=0)
    other = sample_candidates(*tiny, [dataset[5]], seed=4, **options)
    assert (alone - other).abs().max() > 0.1
    first, second = keyed_noise([(3, 5), (3, 11)], (3, 5, 4))
    assert (first - second).abs().max() > 0.1


def test_candidates_equal_single_samples_of_the_policy(tiny, dataset):
    policy, processor = tiny
    candidates = sample_candidates(policy, processor, [dataset[5]], num_candidates=3, sampler=FlowSampler(num_steps=2))
    noise = keyed_noise([(0, 5)], (3, 5, 4))[0]
    inputs = processor(images=dataset[5]["images"], text=dataset[5]["instruction"])
    for number in range(3):
        single = policy.sample_actions(**inputs, noise=noise[number][None], num_steps=2)
        torch.testing.assert_close(candidates[:, number], single, atol=2e-5, rtol=0)


def test_a_policy_in_training_is_left_in_training(tiny, dataset):
    policy = copy.deepcopy(tiny[0]).train()
    sample_candidates(policy, tiny[1], [dataset[0]], num_candidates=2, sampler=FlowSampler(num_steps=1))
    assert policy.training
    with pytest.raises(ValueError, match="num_candidates=1 must be at least 2"):
        sample_candidates(policy, tiny[1], [dataset[0]], num_candidates=1)


# Rewards


def test_ground_truth_reward_is_the_weighted_masked_mean(dataset):
    actions = torch.zeros(1, 5, 4)
    candidates = torch.zeros(1, 2, 5, 4)
    candidates[0, 0, :2, 3] = 0.6
    candidates[0, 1] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    mask = torch.tensor([[True, True, True, False, False]])
    batch = replace(batch_of(dataset, [0], candidates), actions=actions, action_mask=mask)
    expected = -torch.tensor([[0.6 * 2 / 3 / 4, 0.25]])
    torch.testing.assert_close(GroundTruthActionReward().score(batch), expected)
    weighted = GroundTruthActionReward(gripper_weight=0.5).score(batch)
    torch.testing.assert_close(weighted, -torch.tensor([[0.4 * 0.5 / 3.5, 0.8 / 3.5]]))
    for ignoring in ({"gripper_weight": 0}, {"masked_dims": [3]}, {"masked_dims": [-1]}):
        torch.testing.assert_close(GroundTruthActionReward(**ignoring).score(batch), -torch.tensor([[0.0, 0.2]]))
    ignored = GroundTruthActionReward(gripper_dim=0, gripper_weight=0, masked_dims=[3]).score(batch)
    torch.testing.assert_close(ignored, -torch.tensor([[0.0, 0.25]]))


@pytest.mark.parametrize("goal", ["end", "subgoal"])
def test_world_model_reward_is_the_goal_energy(dataset, world_model, goal):
    model, processor = world_model
    indices = [1, 3, 8]
    candidates = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = WorldModelGoalReward(model, processor, goal).score(batch_of(dataset, indices, candidates))
    assert scores.shape == (3, 2)
    assert scores.dtype == torch.float32
    goals = {"end": [6, 6, 15], "subgoal": [6, 6, 13]}[goal]
    for row, (index, goal_index) in enumerate(zip(indices, goals, strict=True)):
        with torch.no_grad():
            now, then = (model.encode(processor(dataset.frame(i))["pixel_values"]) for i in (index, goal_index))
            energy = model.goal_energy(model.rollout(now, candidates[row : row + 1]), then)[0]
        torch.testing.assert_close(scores[row], -energy, atol=3e-6, rtol=0)


def test_whether_the_demonstration_nears_the_goal_is_seen_by_the_encoder(dataset, world_model):
    model, processor = world_model
    indices = [0, 1, 8]
    found = WorldModelGoalReward(model, processor).nears_goal(batch_of(dataset, indices, torch.zeros(3, 2, 4, 4)))
    with torch.no_grad():
        latents = [model.encode(processor(dataset.frame(i))["pixel_values"])[0, 0] for i in range(len(dataset))]
    expected = []
    for before, after, goal in ((0, 4, 6), (1, 5, 6), (8, 12, 15)):
        energies = [(latents[frame] - latents[goal]).abs().mean() for frame in (before, after)]
        expected.append(bool(energies[1] < energies[0]))
    assert found.tolist() == expected


@pytest.mark.parametrize("goal", ["end", "subgoal"])
def test_released_horizon_ignores_the_last_action(dataset, world_model, goal):
    # The tiny model starts by repeating the frame, whatever the actions: let it listen to them.
    model, processor = copy.deepcopy(world_model[0]), world_model[1]
    for block in model.predictor.predictor_blocks:
        torch.nn.init.normal_(block.attn.proj.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    candidates = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    other_end = candidates.clone()
    other_end[:, :, -1] += 1
    first, second = batch_of(dataset, [0, 10], candidates), batch_of(dataset, [0, 10], other_end)
    shorter = batch_of(dataset, [0, 10], candidates[:, :, :4])
    released = WorldModelGoalReward(model, processor, goal, released_horizon=True)
    assert torch.equal(released.score(first), released.score(second))
    assert torch.equal(released.score(first), WorldModelGoalReward(model, processor, goal).score(shorter))
    every = WorldModelGoalReward(model, processor, goal)
    assert not torch.equal(every.score(first), every.score(second))
    assert released.settings["released_horizon"] != every.settings["released_horizon"]
    with pytest.raises(ValueError, match="ignores the last action"):
        released.score(batch_of(dataset, [0], candidates[:1, :, :1]))


def test_end_goals_are_encoded_once_per_episode(dataset, world_model, monkeypatch):
    model, processor = world_model
    reward = WorldModelGoalReward(model, processor)
    candidates = torch.rand(3, 2, 5, 4)
    first = reward.score(batch_of(dataset, [1, 3, 8], candidates))
    frames = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda pixels: frames.append(len(pixels)) or encode(pixels))
    assert torch.equal(reward.score(batch_of(dataset, [1, 3, 8], candidates)), first)
    assert frames == [3]


def test_weighted_rewards(dataset, world_model):
    candidates = torch.rand(2, 3, 5, 4)
    batch = batch_of(dataset, [0, 8], candidates)
    parts = [WorldModelGoalReward(*world_model).score(batch), GroundTruthActionReward().score(batch)]
    torch.testing.assert_close(preset_reward("paper", *world_model).score(batch), parts[0] + 0.5 * parts[1])
    torch.testing.assert_close(preset_reward("released", *world_model).score(batch), parts[0] + 0.1 * parts[1])

    standardized = WeightedReward({"a": (GroundTruthActionReward(), 2.0)}, standardize=True)
    score = standardized.combine({"a": torch.tensor([[1.0, 2.0, 3.0], [-40.0, -20.0, 0.0]])})
    torch.testing.assert_close(score, torch.tensor([-(6**0.5), 0.0, 6**0.5]).expand(2, 3))
    # Equal rewards carry no preference, also where their mean is rounded.
    equal = torch.full((1, 3), 0.1)
    assert torch.equal(standardized.combine({"a": equal}), torch.zeros(1, 3))


# Pairs


def test_pairs_ties_and_close_calls_are_told_apart():
    candidates = np.arange(5 * 3).reshape(5, 3, 1, 1).repeat(2, axis=2).astype(np.float32)
    candidates[2, 2] = candidates[2, 0]
    reward = np.array([[1, 3, 2], [1, 1, 1], [2, 1.5, 1], [0, 0.1, 0.05], [0, 0.5, 1]], dtype=np.float32)
    selection = select_pairs(reward, candidates, min_margin=0.5)
    assert selection.chosen.tolist() == [1, 0, 0, 1, 2]
    assert selection.rejected.tolist() == [0, 0, 2, 0, 0]
    assert selection.is_tie.tolist() == [False, True, True, False, False]
    assert selection.is_close.tolist() == [False, False, False, True, False]
    assert selection.kept.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(selection.margin, [2, 0, 1, 0.1, 1], rtol=1e-6)


@given(arrays(np.float32, (4, 5), elements=st.floats(-1, 1, width=32)), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_random_rejection_takes_another_candidate_that_is_no_better(reward, seed):
    candidates = np.random.default_rng(0).normal(size=(4, 5, 2, 3))
    options = {"pairing": "best_random", "seed": seed}
    selection = select_pairs(reward, candidates, indices=[3, 1, 4, 1], **options)
    assert (selection.chosen != selection.rejected).all()
    assert (selection.margin >= 0).all()
    assert ((selection.margin == 0) == selection.is_tie).all()
    alone = select_pairs(reward[2:3], candidates[2:3], indices=[4], **options)
    assert alone.rejected[0] == selection.rejected[2]


# The dataset


@pytest.mark.slow
def test_rows_hold_what_they_promise(tiny, dataset, world_model, tmp_path):
    reward = preset_reward("paper", *world_model)
    rows = build(tmp_path / "p", tiny, dataset, reward=reward, provenance={"demonstrations": "owner/demonstrations"})
    assert len(rows) == 12
    for index in (0, 4, 11):
        row = rows[index]
        sample = dataset[index]
        np.testing.assert_array_equal(np.asarray(row["images"][0]), sample["images"][0])
        assert (row["instruction"], row["dataset_key"]) == ("open the faucet", "default")
        assert (row["episode_index"], row["frame_index"]) == (sample["episode_index"], sample["frame_index"])
        assert row["action_mask"] == sample["action_mask"].tolist()
        np.testing.assert_allclose(row["actions"], tiny[1].normalize_actions(sample["actions"]), atol=1e-6)
        assert np.shape(row["candidates"]) == (3, 5, 4)
        combined = np.array(row["rewards"]["world_model"]) + 0.5 * np.array(row["rewards"]["ground_truth"])
        np.testing.assert_allclose(row["reward"], combined, rtol=1e-5)
        assert row["chosen"] == row["candidates"][int(np.argmax(row["reward"]))]
        assert row["rejected"] == row["candidates"][int(np.argmin(row["reward"]))]
        assert row["margin"] == pytest.approx(max(row["reward"]) - min(row["reward"]), rel=1e-5)
    record = json.loads((tmp_path / "p" / "preferences.json").read_text())
    assert record["counts"] == {"states": 12, "undecodable": 0, "ties": 0, "too_close": 0, "pairs": 12}
    assert record["provenance"]["demonstrations"] == "owner/demonstrations"
    assert record["settings"]["reward"]["rewards"]["ground_truth"]["weight"] == 0.5
    assert preference_info(rows).record.to_json() == record
    assert preference_info(rows).sampled_by_policy is None


@pytest.mark.slow
def test_a_fresh_process_reads_it_without_this_package(tiny, dataset, tmp_path):
    build(tmp_path / "p", tiny, dataset)
    program = (
        "import sys; from datasets import load_dataset; d = load_dataset(sys.argv[1], split='train');"
        "assert 'nora15_hf' not in sys.modules; print(len(d), d[0]['images'][0].size)"
    )
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, str(tmp_path / "p")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.split("\n")[-2] == "12 (56, 56)"


def test_folders_of_the_same_name_are_not_mixed_up(tiny, dataset, tmp_path):
    loaded = {}
    for number, seed in enumerate((0, 1)):
        folder = tmp_path / str(number) / "preferences"
        built = build(folder, tiny, dataset, indices=range(2), seed=seed)
        loaded[seed] = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))["chosen"][:]
        assert loaded[seed] == built["chosen"][:]
    assert loaded[0] != loaded[1]


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_the_same(tiny, dataset, tmp_path, monkeypatch):
    build(tmp_path / "whole", tiny, dataset)
    calls = []

    def killed_in_the_second_shard(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return sample_candidates(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(labelling, "sample_candidates", killed_in_the_second_shard)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "killed", tiny, dataset)
    with pytest.raises(FileNotFoundError, match="is unfinished"):
        load_preferences(tmp_path / "killed")
    first_shard = tmp_path / "killed" / "data" / "train-00000-of-00003.parquet"
    written = first_shard.stat().st_mtime_ns
    build(tmp_path / "killed", tiny, dataset)
    assert first_shard.stat().st_mtime_ns == written
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file())
    assert len(files) == 5
    assert files == sorted(
        path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*") if path.is_file()
    )
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes(), file


@pytest.mark.slow
def test_close_pairs_are_dropped_and_counted(tiny, dataset, tmp_path):
    margins = sorted(build(tmp_path / "all", tiny, dataset)["margin"])
    rows = build(tmp_path / "some", tiny, dataset, min_margin=margins[5])
    assert sorted(rows["margin"]) == margins[5:]
    counts = json.loads((tmp_path / "some" / "preferences.json").read_text())["counts"]
    assert counts == {"states": 12, "undecodable": 0, "ties": 0, "too_close": 5, "pairs": 7}
    with pytest.raises(
        ValueError, match=r"No pair is left of 12 states: 0 gave .*, 0 pairs are ties and 12 have a margin below"
    ):
        build(tmp_path / "none", tiny, dataset, min_margin=100.0)


@pytest.mark.slow
def test_a_shard_without_pairs_is_read_too(tiny, dataset, tmp_path):
    margins = build(tmp_path / "all", tiny, dataset)["margin"]
    best = max(margins)
    assert best not in margins[:1]
    # A state in a batch of its own gives the same candidates up to rounding.
    rows = build(tmp_path / "one", tiny, dataset, min_margin=best * (1 - 1e-5), shard_size=1)
    assert rows["margin"] == pytest.approx([best], rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--lora_rank", "2", "--freeze_backbone", "false"],
    ],
    ids=["frozen backbone", "adapters"],
)
@pytest.mark.slow
def test_the_example_scripts(tiny, demonstrations, world_model, tmp_path, capsys, options):
    policy, output = str(tmp_path / "policy"), str(tmp_path / "preferences")
    for part in tiny:
        part.save_pretrained(policy)
    for part in world_model:
        part.save_pretrained(tmp_path / "world-model")
    ClipConventions.of_policy(LeRobotDataset(demonstrations), tiny[1]).save_pretrained(tmp_path / "world-model")
    build_options = ["--policy", policy, "--demonstrations", str(demonstrations), "--output", output]
    build_options += ["--world_model", str(tmp_path / "world-model"), "--num_states", "6", "--num_steps", "2"]
    build_options += ["--dataset_key", "default", "--gripper_weight", "0.5", "--states", "per_stage"]
    config = ["--config", str(CONFIGS / "preferences_tiny.yaml")]
    main = runpy.run_path(str(EXAMPLES / "build_preferences.py"))["main"]
    with pytest.raises(SystemExit, match="2"):
        main([*config, *build_options, "--check"])
    assert "was trained on all episodes of" in capsys.readouterr().err
    main([*config, *build_options, "--check", "--check_episodes", "1"])
    assert (tmp_path / "preferences" / "reward_check" / "reward_check.png").is_file()
    assert "at 5 states of 1 episode (" in capsys.readouterr().out
    weights = ["--reward_weights", "world_model=1,ground_truth=0.5"]
    main([*config, *build_options, *weights, "--dataloader_num_workers", "1", "--dtype", "float32"])
    printed = capsys.readouterr()
    assert "same pairs alone" in printed.out
    assert "the models waited for images" in printed.err
    assert "same pairs with it alone" in (tmp_path / "preferences" / "README.md").read_text()
    assert len(load_preferences(output)) == 6
    assert (tmp_path / "preferences" / "figures" / "rewards.png").is_file()

    config = ["--config", str(CONFIGS / "dpo_tiny.yaml")]
    run = ["--policy", policy, "--preferences", output, "--output_dir", str(tmp_path / "dpo"), *options]
    run += ["--per_device_train_batch_size", "2", "--logging_steps", "1", "--save_steps", "1", "--num_draws", "2"]
    main = runpy.run_path(str(EXAMPLES / "dpo.py"))["main"]
    main([*config, *run, "--max_steps", "2"])
    weights = "adapter_model.safetensors" if options else "model.safetensors"
    assert (tmp_path / "dpo" / weights).is_file()
    card = (tmp_path / "dpo" / "README.md").read_text()
    for expected in ("| world_model | 1 |", "| ground_truth | 0.5 |", "| beta | 50 |", "preference_curves.png"):
        assert expected in card
    assert "| preferences: demonstrations | demonstrations |" in card
    assert "| preferences: counts | states 6, undecodable 0, ties 0, too_close 0, pairs 6 |" in card
    assert "| candidates are the starting policy's own | yes |" in card
    assert "/tmp" not in card
    # The same command finds the run finished; another one is told what differs.
    weights_before = (tmp_path / "dpo" / weights).read_bytes()
    main([*config, *run, "--max_steps", "2"])
    assert "This run is finished" in capsys.readouterr().out
    assert (tmp_path / "dpo" / weights).read_bytes() == weights_before
    with pytest.raises(SystemExit, match="2"):
        main([*config, *run, "--max_steps", "2", "--beta", "60"])
    assert "beta was 50.0, is 60.0" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("preferences_*.yaml")), ids=lambda file: file.stem)
def test_configurations_of_build_preferences(file):
    options = {"goal": "end", "released_horizon": False} | yaml.safe_load(file.read_text())
    # What reproduces the released labels takes their goal and their horizon.
    is_released = {"paper": False, "released": True}[options["reward"]]
    assert (options["goal"], options["released_horizon"]) == ("released_end" if is_released else "end", is_released)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("dpo_*.yaml")), ids=lambda file: file.stem)
def test_configurations_of_dpo(file):
    options = {"reduction": "mean"} | yaml.safe_load(file.read_text())
    scale = 35 if options["reduction"] == "sum" else 1
    assert options["beta"] * scale == pytest.approx(50 if "tiny" in file.stem else 250)


# Bad input


def test_load_refuses_another_policy(tiny, dataset, tmp_path, caplog):
    build(tmp_path / "p", tiny, dataset)
    policy, processor = copy.deepcopy(tiny)
    rows = load_preferences(tmp_path / "p", policy=policy, processor=processor)
    assert preference_info(rows).sampled_by_policy is True
    assert "other weights" not in caplog.text
    policy.action_out_proj.bias.data += 1
    with caplog.at_level(logging.WARNING):
        rows = load_preferences(tmp_path / "p", policy=policy, processor=processor)
    assert preference_info(rows).sampled_by_policy is False
    assert "other weights" in caplog.text
    processor.norm_stats = {"other": processor.norm_stats["default"]}
    with pytest.raises(ValueError, match=r"dataset_key \['default'\], but the policy has statistics for \['other'\]"):
        load_preferences(tmp_path / "p", policy=policy, processor=processor)
    policy.config.chunk_size = 8
    with pytest.raises(ValueError, match=r"shape \(5, 4\), the policy's chunks have \(8, 4\)"):
        load_preferences(tmp_path / "p", policy=policy, processor=tiny[1])
    with pytest.raises(FileNotFoundError, match=r"holds no preferences\.json"):
        load_preferences(tmp_path)


def test_build_refuses(tiny, dataset, tmp_path):
    build(tmp_path / "p", tiny, dataset)
    with pytest.raises(FileExistsError, match="built with other arguments: seed=0, now 1"):
        build(tmp_path / "p", tiny, dataset, seed=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match="is not empty and holds no preference set"):
        build(tmp_path / "full", tiny, dataset)
    with pytest.raises(ValueError, match="indices is empty"):
        build(tmp_path / "q", tiny, dataset, indices=[])
    with pytest.raises(ValueError, match='pairing="best"'):
        build(tmp_path / "r", tiny, dataset, pairing="best")
    with pytest.raises(ValueError, match=r"min_margin=-1"):
        build(tmp_path / "s", tiny, dataset, min_margin=-1)
    for name, value, words in (
        ("min_margin", float("nan"), "min_margin=nan"),
        ("num_candidates", 1, "give 1 chunks per state, but a pair needs two"),
        ("shard_size", 0, "shard_size=0 must be at least 1"),
        ("batch_size", 0, "batch_size=0 must be at least 1"),
        ("dataloader_num_workers", -1, "dataloader_num_workers=-1 must be at least 0"),
    ):
        with pytest.raises(ValueError, match=words):
            build(tmp_path / "s", tiny, dataset, **{name: value})
    # Nothing is left that would block the right call.
    assert not any((tmp_path / name).exists() for name in "qrs")
    with pytest.raises(ValueError, match=r"Open the dataset with chunk_size=8"):
        build(tmp_path / "t", tiny_policy(("open the faucet",), image_size=56, chunk_size=8), dataset)


class BadReward:
    settings: dict = {}

    def __init__(self, value):
        self.value = value

    def score(self, batch):
        return self.value


def test_rewards_refuse(dataset, world_model):
    model, processor = world_model
    batch = batch_of(dataset, [0], torch.zeros(1, 2, 5, 4))
    with pytest.raises(ValueError, match=r"Reward 'bad' returned shape \(1, 3\), expected .*\(1, 2\)"):
        WeightedReward({"bad": (BadReward(torch.zeros(1, 3)), 1.0)}).score(batch)
    with pytest.raises(ValueError, match=r"Reward 'bad' is .*nan.* at dataset position 0"):
        WeightedReward({"bad": (BadReward(torch.tensor([[0.0, float("nan")]])), 1.0)}).score(batch)
    with pytest.raises(ValueError, match="rewards is empty"):
        WeightedReward({})
    with pytest.raises(ValueError, match="The weight of the reward 'bad' is nan, expected a finite number"):
        WeightedReward({"bad": (BadReward(torch.zeros(1, 2)), float("nan"))})
    with pytest.raises(ValueError, match=r"masked_dims names \[6\], but an action has 4"):
        GroundTruthActionReward(masked_dims=[1, 6]).score(batch)
    with pytest.raises(ValueError, match=r"gripper_dim names .*4 dimensions"):
        GroundTruthActionReward(gripper_dim=4).score(batch)
    with pytest.raises(ValueError, match="leave none of the 4 dimensions"):
        GroundTruthActionReward(gripper_weight=0, masked_dims=[0, 1, 2]).score(batch)
    with pytest.raises(ValueError, match="must not be negative"):
        GroundTruthActionReward(gripper_weight=-1)
    with pytest.raises(ValueError, match="has no effect, since masked_dims"):
        GroundTruthActionReward(gripper_weight=0.5, masked_dims=[-1]).score(batch)
    with pytest.raises(ValueError, match='goal="middle"'):
        WorldModelGoalReward(model, processor, "middle")
    with pytest.raises(ValueError, match=r"preset='best' is unknown\. Known: paper, released"):
        preset_reward("best", model, processor)
    with pytest.raises(ValueError, match="takes 4 action dimensions, the candidates have 7"):
        WorldModelGoalReward(model, processor).score(batch_of(dataset, [0], torch.zeros(1, 2, 5, 7)))
