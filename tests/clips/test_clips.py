# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips of a LeRobot dataset, and the conventions under which a world model reads it."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.blobs import SIZE, blob_clips, write_blobs
from nora15_hf.clips.clip_conventions import CLIPS_FILE, ClipConventions
from nora15_hf.clips.episode_clips import EpisodeClips
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.data.dataset_fingerprint import dataset_fingerprint
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.vjepa2_ac import integrate_pose

FEATURES = {
    "observation.image": {"dtype": "image", "shape": (8, 8, 3)},
    "observation.state": {"dtype": "float32", "shape": (7,)},
    "action": {"dtype": "float32", "shape": (2,)},
    "executed_action": {"dtype": "float32", "shape": (2,)},
}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Episodes of 5, 2 and 6 frames; every frame shows its episode and its number, and so do its actions."""
    rng = np.random.default_rng(0)
    writer = LeRobotWriter(tmp_path_factory.mktemp("data") / "numbered", fps=4, features=FEATURES, robot_type="arm")
    for episode, length in enumerate((5, 2, 6)):
        number = np.arange(length)
        images = np.zeros((length, 8, 8, 3), np.uint8)
        images[..., 0], images[..., 1] = episode, number[:, None, None]
        executed = np.stack([np.full(length, episode), number], axis=1).astype(np.float32)
        writer.add_episode(
            "count",
            {
                "observation.image": images,
                "observation.state": rng.uniform(0.1, 0.9, (length, 7)).astype(np.float32),
                "action": executed + 100,
                "executed_action": executed,
            },
        )
    return writer.finalize()


def opened(root, **changes) -> LeRobotDataset:
    return LeRobotDataset(root, **{"state_key": None, "action_key": "executed_action"} | changes)


@given(num_frames=st.integers(2, 6), stride=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_windows_stay_within_their_episode(numbered, num_frames, stride):
    dataset = opened(numbered)
    conventions = ClipConventions.of_dataset(dataset, "min_max")
    clips = EpisodeClips(dataset, conventions, num_frames, stride)
    expected = [
        (episode, start)
        for episode, length in enumerate((5, 2, 6))
        for start in range(0, length - num_frames + 1, stride)
    ]
    assert len(clips) == len(expected)
    for item, (episode, start) in zip((clips[index] for index in range(len(clips))), expected, strict=True):
        assert item["frames"].dtype == torch.uint8
        assert item["frames"].shape == (num_frames, 8, 8, 3)
        assert (item["frames"][..., 0] == episode).all()
        assert item["frames"][:, 0, 0, 1].tolist() == list(range(start, start + num_frames))
        # "min_max" maps episode 0 ... 2 and frame 0 ... 5 to [-1, 1].
        assert item["actions"][:, 0].tolist() == pytest.approx([episode - 1] * (num_frames - 1), abs=1e-6)
        numbers = np.arange(start, start + num_frames - 1)
        assert item["actions"][:, 1].tolist() == pytest.approx(list(numbers / 2.5 - 1), abs=1e-6)


def test_latents_take_the_place_of_frames(numbered):
    dataset = opened(numbered, episodes=[0, 2])
    clips = EpisodeClips(dataset, ClipConventions.of_dataset(dataset, "min_max"), num_frames=3)
    latents = [torch.arange(length)[:, None, None] + 10.0 * episode for episode, length in ((0, 5), (2, 6))]
    encoded = clips.with_latents(latents)
    assert not clips.has_latents
    assert set(encoded[3]) == {"latents", "actions"}
    assert encoded[3]["latents"].flatten().tolist() == [20, 21, 22]
    episode = encoded.latent_episodes()[1]
    assert len(episode.latents) == len(episode.actions) == 6
    with pytest.raises(ValueError, match=r"of episodes of \[6, 5\] frames; the clips' episodes have \[5, 6\]"):
        clips.with_latents(latents[::-1])
    # As data-loading workers get them.
    assert pickle.loads(pickle.dumps(encoded))[3]["latents"].flatten().tolist() == [20, 21, 22]


def test_frames_are_not_kept_in_memory(numbered):
    dataset = ClipConventions.of_dataset(opened(numbered)).open_dataset(numbered)
    clips = EpisodeClips(dataset, ClipConventions.of_dataset(dataset), num_frames=3)
    assert [clips.episode_frames(episode).shape[0] for episode in range(3)] == [5, 2, 6]
    assert not dataset._cameras["observation.image"].cache


def test_metric_actions_lead_from_pose_to_pose(numbered):
    dataset = opened(numbered, state_key="observation.state")
    clips = EpisodeClips(dataset, ClipConventions.metric(dataset), num_frames=5)
    item = clips[1]
    poses = item["states"][:1]
    for action in item["actions"]:
        poses = torch.cat([poses, integrate_pose(poses[-1:], action[None])])
    torch.testing.assert_close(poses, item["states"], atol=1e-6, rtol=0)
    assert not clips.actions[dataset.episodes["to"] - 1].any()


@pytest.mark.parametrize("kind", ["of_dataset", "of_policy", "metric"])
def test_conventions_survive_a_file(numbered, tmp_path, kind):
    dataset = opened(numbered, state_key="observation.state", episodes=[0, 2])
    if kind == "of_policy":
        _, processor = tiny_policy(["count"], image_size=56, action_dim=2)
        processor.clip_actions = True
        conventions = ClipConventions.of_policy(dataset, processor, held_out_episodes=[1])
        assert conventions.clip_actions
    else:
        conventions = getattr(ClipConventions, kind)(dataset, held_out_episodes=[1])
    conventions.save_pretrained(tmp_path)
    loaded = ClipConventions.from_pretrained(tmp_path)
    assert loaded.held_out_episodes == (1,)
    assert loaded.action_convention == conventions.action_convention
    reopened = loaded.open_dataset(numbered, episodes=[0, 2])
    for own, read in zip(conventions.actions_and_states(dataset), loaded.actions_and_states(reopened), strict=True):
        assert (own is None and read is None) or torch.equal(own, read)


def test_fingerprint_follows_content_not_place_or_card(numbered, tmp_path):
    def fingerprint(name: str, **changes) -> str:
        return dataset_fingerprint(LeRobotDataset(write_blobs(tmp_path / name, 1, length=4, **changes)))

    first = fingerprint("first")
    assert fingerprint("second") == first
    assert fingerprint("other", seed=1) != first
    (tmp_path / "first" / "README.md").write_text("a better card")
    assert dataset_fingerprint(LeRobotDataset(tmp_path / "first")) == first


def test_refusals(numbered, tmp_path):
    dataset = opened(numbered)
    conventions = ClipConventions.of_dataset(dataset)
    with pytest.raises(ValueError, match=r"`num_frames`=7 frames \(the longest has 6\)"):
        EpisodeClips(dataset, conventions, num_frames=7)
    with pytest.raises(ValueError, match="at least 2"):
        EpisodeClips(dataset, conventions, num_frames=1)
    with pytest.raises(ValueError, match=r"action_key 'action', these conventions read 'executed_action'"):
        EpisodeClips(opened(numbered, action_key="action"), conventions)
    with pytest.raises(ValueError, match="states of 2 dimensions"):
        ClipConventions.metric(opened(numbered, state_key="action"))
    with pytest.raises(ValueError, match="a world model uses one"):
        ClipConventions.of_dataset(opened(numbered, image_keys=[]))
    _, relative = tiny_policy(["count"], image_size=56, action_dim=2)
    relative.delta_action_mask = [True, False]
    with pytest.raises(ValueError, match="delta_action_mask"):
        ClipConventions.of_policy(dataset, relative)
    with pytest.raises(ValueError, match=r"has no clips\.json"):
        ClipConventions.from_pretrained(tmp_path)
    (tmp_path / CLIPS_FILE).write_text('{"dataset": "x"}')
    with pytest.raises(ValueError, match="does not describe clips"):
        ClipConventions.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_key", [], r"image_key is \[\], expected str"),
        ("action_key", 3, "action_key is 3, expected"),
        ("normalization_mode", "z_score", "normalization_mode is 'z_score', expected"),
        ("normalization_mode", None, "statistics and normalization_mode belong together"),
        ("statistics", None, "statistics and normalization_mode belong together"),
        ("held_out_episodes", ["1"], "held_out_episodes is"),
        ("clip_actions", 1, "clip_actions is 1, expected bool"),
    ],
)
def test_values_of_another_kind_are_named(numbered, tmp_path, name, value, message):
    ClipConventions.of_dataset(opened(numbered)).save_pretrained(tmp_path)
    content = json.loads((tmp_path / CLIPS_FILE).read_text())
    (tmp_path / CLIPS_FILE).write_text(json.dumps(content | {name: value}))
    with pytest.raises(ValueError, match=f"does not describe clips .*{message}"):
        ClipConventions.from_pretrained(tmp_path)


def test_split_is_written_down(tmp_path):
    training, held_out = blob_clips(write_blobs(tmp_path / "blobs", 3, length=4), num_frames=2, held_out=1)
    assert training.conventions.held_out_episodes == (2,)
    assert held_out.dataset.episodes["index"].tolist() == [2]
    assert training[0]["frames"].shape == (2, SIZE, SIZE, 3)


def test_the_former_name_of_executed_actions_is_understood(numbered):
    conventions = replace(ClipConventions.of_dataset(opened(numbered), "min_max"), action_key="action.executed")
    dataset = conventions.open_dataset(numbered)
    assert dataset.action_key == "executed_action"
    actions, _ = conventions.actions_and_states(dataset)
    assert actions.abs().max() == 1
