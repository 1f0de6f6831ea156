# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Rewards of metric world models, and the goal frame of the released labels."""

import json
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.paths import EXAMPLES
from helpers.preference_demonstrations import write_demonstrations
from helpers.reward_batches import batch_of
from helpers.small_world_models import listening_world_model
from nora15_hf.clips import ClipConventions
from nora15_hf.data import LeRobotDataset, LeRobotWriter, compute_statistics
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences import MetricActions, WorldModelGoalReward, load_preferences, preset_reward
from nora15_hf.vjepa2_ac import integrate_pose, tiny_world_model

SIZE, LENGTHS = 28, (12, 6)


def write_arm(root: Path, units: float = 1.0, kind: str = "differences") -> Path:
    """Two episodes of an arm that follows its actions nearly, with its joints as the state and its pose beside them."""
    random = np.random.default_rng(0)
    features = {
        "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
        "observation.state": {"dtype": "float32", "shape": (7,)},
        "observation.pose": {"dtype": "float32", "shape": (7,)},
        "action": {"dtype": "float32", "shape": (7,)},
    }
    writer = LeRobotWriter(root, fps=4, features=features, robot_type="arm")
    for length in LENGTHS:
        actions = torch.from_numpy(random.normal(0.03, 0.02, (length, 7)))
        actions[:, 6] = 0.15 * torch.from_numpy(random.choice([-1.0, 1.0], length))
        poses = [torch.tensor([0.4, 0.1, 0.3, 3.1, 0.1, -0.2, 0.5], dtype=torch.float64)]
        for action in actions[:-1]:
            poses.append(integrate_pose(poses[-1], action * random.uniform(0.8, 1.2)))
        poses = torch.stack(poses)
        wanted = actions if kind == "differences" else poses
        writer.add_episode(
            "open the faucet",
            {
                "observation.image": random.integers(0, 256, (length, SIZE, SIZE, 3), dtype=np.uint8),
                "observation.state": random.normal(size=(length, 7)).astype(np.float32),
                "observation.pose": poses.numpy().astype(np.float32),
                "action": (units * wanted).numpy().astype(np.float32),
            },
        )
    return writer.finalize()


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    return write_arm(tmp_path_factory.mktemp("arm") / "arm")


def opened(root: Path, **changes) -> LeRobotDataset:
    return LeRobotDataset(root, dataset_key="arm", **changes)


def policy_of(root: Path):
    statistics = {"arm": compute_statistics(opened(root))["action"]}
    return tiny_policy(("open the faucet",), image_size=56, action_dim=7, norm_stats=statistics)


@pytest.fixture(scope="module")
def policy(arm):
    return policy_of(arm)


@pytest.fixture(scope="module")
def poses(arm):
    return opened(arm, state_key="observation.pose")


def metric_actions(policy, dataset: LeRobotDataset) -> MetricActions:
    return MetricActions(policy[1], dataset, "observation.pose")


@pytest.fixture(scope="module")
def world_model():
    return listening_world_model(SIZE, 7, "metric")


@pytest.mark.parametrize("released_horizon", [False, True])
def test_metric_world_model_gets_physical_actions_and_poses(arm, policy, poses, world_model, released_horizon):
    model, processor = world_model
    indices, goals = [1, 4, 13], [11, 11, 17]
    physical = torch.from_numpy(np.random.default_rng(1).normal(0, 0.05, (3, 4, 5, 7))).float()
    candidates = policy[1].normalize_actions(physical, "arm")
    assert (candidates - physical).abs().mean() > 0.1
    dataset = opened(arm)
    reward = WorldModelGoalReward(
        model, processor, released_horizon=released_horizon, metric_actions=metric_actions(policy, dataset)
    )
    scores = reward.score(batch_of(dataset, indices, candidates))
    steps = 4 if released_horizon else 5
    states = torch.from_numpy(poses.all_states()[indices])[:, None]
    with torch.no_grad():
        now, then = (
            torch.cat([model.encode(processor(dataset.frame(i))["pixel_values"]) for i in frames])
            for frames in (indices, goals)
        )
        energies = model.goal_energy(model.rollout(now, physical[:, :, :steps], states), then)
        elsewhere = model.goal_energy(model.rollout(now, physical[:, :, :steps], states + 0.3), then)
    torch.testing.assert_close(scores, -energies, rtol=0, atol=3e-6)
    assert (energies - elsewhere).abs().mean() > 1e-3
    assert energies.std(1).min() > 1e-3
    assert reward.settings["pose_key"] == "observation.pose"


def test_poses_are_found_where_only_some_episodes_are_selected(arm, policy, world_model):
    candidates = torch.rand(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    whole, part = opened(arm), opened(arm, episodes=[1])
    rewards = [
        WorldModelGoalReward(*world_model, metric_actions=metric_actions(policy, dataset)) for dataset in (whole, part)
    ]
    expected = rewards[0].score(batch_of(whole, [14], candidates))
    for reward in rewards:
        assert torch.equal(reward.score(batch_of(part, [2], candidates)), expected)
        assert torch.equal(reward.score(batch_of(whole, [14], candidates)), expected)


def test_states_of_another_dataset_are_refused(arm, policy, world_model, tmp_path):
    reward = WorldModelGoalReward(*world_model, metric_actions=metric_actions(policy, opened(arm)))
    other = opened(write_arm(tmp_path / "other", units=1.1))
    with pytest.raises(ValueError, match=r"The states come from .*other, but MetricActions was created for"):
        reward.score(batch_of(other, [2], torch.zeros(1, 2, 5, 7)))


@pytest.mark.slow
def test_the_example_script_takes_a_metric_world_model(arm, policy, poses, world_model, tmp_path, monkeypatch, capsys):
    for part in policy:
        part.save_pretrained(tmp_path / "policy")
    for part in world_model:
        part.save_pretrained(tmp_path / "world-model")
    options = ["--policy", str(tmp_path / "policy"), "--demonstrations", str(arm), "--dataset_key", "arm"]
    options += ["--world_model", str(tmp_path / "world-model"), "--num_states", "4", "--num_steps", "1"]
    options += ["--num_candidates", "2", "--reward", "released", "--output", str(tmp_path / "preferences")]
    options += ["--goal", "released_end", "--released_horizon", "true"]
    main = runpy.run_path(str(EXAMPLES / "build_preferences.py"))["main"]
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert "has no clips.json" in capsys.readouterr().err
    ClipConventions.metric(poses).save_pretrained(tmp_path / "world-model")
    openings = []
    read = LeRobotDataset._read

    def counting_read(self, *args, **kwargs):
        openings.append(self)
        return read(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(LeRobotDataset, "_read", counting_read)
        main(options)
    assert len(openings) == 1
    rows = load_preferences(tmp_path / "preferences")
    settings = json.loads((tmp_path / "preferences" / "preferences.json").read_text())["settings"]["reward"]
    assert settings["rewards"]["world_model"]["pose_key"] == "observation.pose"
    assert settings["rewards"]["world_model"]["goal"] == "released_end"

    dataset = opened(arm)
    reward = WorldModelGoalReward(
        *world_model, "released_end", released_horizon=True, metric_actions=metric_actions(policy, dataset)
    )
    for row in rows:
        index = {0: 0, 1: LENGTHS[0]}[row["episode_index"]] + row["frame_index"]
        expected = reward.score(batch_of(dataset, [index], torch.tensor(row["candidates"])[None]))[0]
        np.testing.assert_allclose(row["rewards"]["world_model"], expected, atol=1e-5)


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_commands_that_the_arm_follows_late_are_accepted(policy, tmp_path, lag):
    """A command is not yet a motion: what the arm does a frame or two later is still its action."""
    random = np.random.default_rng(0)
    smooth = np.sin(np.arange(40)[:, None] / 6 + random.uniform(0, 6, 7)) * 0.05
    motion = np.concatenate([np.zeros((lag, 7)), smooth])[: len(smooth)]
    pose = torch.tensor([0.4, 0.1, 0.3, 0.2, 0.1, -0.2, 0.5], dtype=torch.float64)
    poses = [pose]
    for step in torch.from_numpy(motion[:-1]):
        poses.append(integrate_pose(poses[-1], step))
    features = {
        "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
        "observation.state": {"dtype": "float32", "shape": (7,)},
        "action": {"dtype": "float32", "shape": (7,)},
    }
    writer = LeRobotWriter(tmp_path / "late", fps=10, features=features, robot_type="arm")
    frames = {
        "observation.image": np.zeros((len(smooth), SIZE, SIZE, 3), np.uint8),
        "observation.state": torch.stack(poses).numpy().astype(np.float32),
        "action": smooth.astype(np.float32),
    }
    writer.add_episode("reach", frames)
    dataset = LeRobotDataset(writer.finalize())
    MetricActions(policy[1], dataset, "observation.state")


@pytest.mark.parametrize(
    ("units", "kind"),
    [(100.0, "differences"), (0.1, "differences"), (1.0, "poses")],
    ids=["centimetres", "tenths", "absolute poses"],
)
def test_actions_that_are_no_pose_differences_are_refused(policy, tmp_path, units, kind):
    dataset = opened(write_arm(tmp_path / "arm", units, kind))
    with pytest.raises(ValueError, match=r"do not move its poses.* move the position by .*of_policy"):
        metric_actions(policy, dataset)


def test_metric_world_model_refuses(arm, policy, world_model, tmp_path):
    dataset = opened(arm)
    for make in (WorldModelGoalReward, partial(preset_reward, "paper")):
        with pytest.raises(ValueError, match="metric_actions must be given"):
            make(*world_model)
        with pytest.raises(ValueError, match="metric_actions must not be given"):
            make(*listening_world_model(SIZE, 7, "normalized"), metric_actions=metric_actions(policy, dataset))
    with pytest.raises(
        ValueError, match=r"`key` 'observation\.pose' is not a feature.* Available: .*observation\.image"
    ):
        metric_actions(policy, opened(write_arm_without_state(tmp_path / "blind")))
    with pytest.raises(ValueError, match=r"`key` 'observation\.image' has dtype 'image'"):
        MetricActions(policy[1], dataset, "observation.image")
    with pytest.raises(ValueError, match=r"states of 4 dimensions .*needs poses of 7"):
        MetricActions(policy[1], LeRobotDataset(write_demonstrations(tmp_path / "narrow")), "observation.state")
    # Seven joints are as many numbers as a pose.
    with pytest.raises(ValueError, match=r"do not move its poses \(pose_key='observation\.state'\)"):
        MetricActions(policy[1], dataset, "observation.state")
    with pytest.raises(ValueError, match="the policy's actions have 4 and those of the dataset 7"):
        metric_actions(tiny_policy(("open the faucet",), image_size=56, action_dim=4), dataset)
    reward = WorldModelGoalReward(*world_model, metric_actions=metric_actions(policy, dataset))
    with pytest.raises(ValueError, match="takes 7 action dimensions, the candidates have 4"):
        reward.score(batch_of(dataset, [0], torch.zeros(1, 2, 5, 4)))
    with pytest.raises(ValueError, match="`actions` holds NaN"):
        reward.score(batch_of(dataset, [0], torch.full((1, 2, 5, 7), torch.nan)))


def write_arm_without_state(root: Path) -> Path:
    features = {
        "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
        "action": {"dtype": "float32", "shape": (7,)},
    }
    writer = LeRobotWriter(root, fps=4, features=features, robot_type="arm")
    frames = {"observation.image": np.zeros((4, SIZE, SIZE, 3), np.uint8), "action": np.zeros((4, 7), np.float32)}
    writer.add_episode("open the faucet", frames)
    return writer.finalize()


@pytest.mark.parametrize("selected", [[0, 1, 2], [1, 2]])
def test_released_end_is_the_eighth_frame_from_the_end(tmp_path, selected):
    """Of an episode shorter than eight frames the first, and for the states after it as well."""
    lengths = (12, 8, 5)
    dataset = LeRobotDataset(write_demonstrations(tmp_path / "demonstrations", lengths), episodes=selected)
    torch.manual_seed(0)
    model, processor = tiny_world_model(image_size=56, action_dim=4)
    reward = WorldModelGoalReward(model, processor, "released_end")
    indices = list(range(len(dataset)))
    candidates = torch.rand(len(indices), 2, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = reward.score(batch_of(dataset, indices, candidates))
    starts = dict(zip(selected, dataset.episodes["from"].tolist(), strict=True))
    goals = [
        starts[episode] + goal
        for episode, goal in zip((0, 1, 2), (4, 0, 0), strict=True)
        if episode in selected
        for _ in range(lengths[episode])
    ]
    with torch.no_grad():
        now, then = (
            torch.cat([model.encode(processor(dataset.frame(i))["pixel_values"]) for i in frames])
            for frames in (indices, goals)
        )
        energies = model.goal_energy(model.rollout(now, candidates), then)
    torch.testing.assert_close(scores, -energies, rtol=0, atol=3e-6)
    assert reward.settings["goal"] == "released_end"
    assert not torch.allclose(
        WorldModelGoalReward(model, processor).score(batch_of(dataset, indices, candidates)), scores
    )
