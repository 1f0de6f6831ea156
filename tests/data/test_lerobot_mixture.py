# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Mixtures of LeRobot datasets, bad episodes left out, and datasets that do not fit a policy."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.numbered_dataset import LENGTHS, NUMBERS, START, TOP, WRIST, read_number, write_v30
from nora15_hf.data import (
    LeRobotDataset,
    LeRobotMixture,
    LeRobotWriter,
    PolicyCollator,
    check_dataset_fits,
    compute_statistics,
)
from nora15_hf.nora15.presets import tiny_policy

DATA = "data/chunk-000/file-{:03d}.parquet"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> Path:
    return write_v30(tmp_path_factory.mktemp("mixture") / "numbers", top="image")


@pytest.fixture
def copied(numbers, tmp_path) -> Path:
    return Path(shutil.copytree(numbers, tmp_path / "copy"))


def write_other(root: Path, *, action_dim: int = 3, fps: int = 25, cameras: int = 2, size: int = 16) -> Path:
    names = [TOP, WRIST][:cameras]
    features = {name: {"dtype": "image", "shape": (size, size, 3)} for name in names}
    features["action"] = {"dtype": "float32", "shape": (action_dim,)}
    writer = LeRobotWriter(root, fps=fps, features=features, robot_type="other")
    for length in (5, 3):
        frames = {name: np.full((length, size, size, 3), 7, np.uint8) for name in names}
        writer.add_episode("wait", frames | {"action": np.full((length, action_dim), 1000, np.float32)})
    return writer.finalize()


@pytest.fixture(scope="module")
def members(numbers, tmp_path_factory) -> list[LeRobotDataset]:
    other = write_other(tmp_path_factory.mktemp("mixture") / "other")
    return [LeRobotDataset(numbers), LeRobotDataset(other)]


def drawn(mixture: LeRobotMixture) -> Counter:
    return Counter((sample["dataset_key"], sample["index"]) for sample in (mixture[i] for i in range(len(mixture))))


def test_every_frame_once_by_default(members):
    mixture = LeRobotMixture(members)
    assert len(mixture) == sum(LENGTHS) + 8
    assert set(drawn(mixture).values()) == {1}
    assert len(drawn(mixture)) == len(mixture)
    assert mixture.dataset_keys == ["numbers", "other"]
    assert (mixture.chunk_size, mixture.action_dim) == (5, 3)
    with pytest.raises(IndexError, match=r"49 samples per epoch"):
        mixture[49]


@settings(max_examples=30, deadline=None)
@given(
    weights=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
    samples=st.integers(30, 200),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
def test_shares_follow_the_weights_and_frames_are_used_evenly(members, weights, samples, seed, epoch):
    mixture = LeRobotMixture(members, weights, samples_per_epoch=samples, seed=seed)
    mixture.set_epoch(epoch)
    positions = mixture._draw(epoch)
    counts = np.diff(mixture._stop, prepend=0)
    assert counts.sum() == len(positions) == samples
    np.testing.assert_allclose(counts / samples, np.array(weights) / sum(weights), atol=0.51 / samples)
    for member, part in zip(members, np.split(positions, mixture._stop[:-1]), strict=True):
        used = np.bincount(part, minlength=len(member))
        assert used.max() - used.min() <= 1
    np.testing.assert_array_equal(positions, mixture._draw(epoch))


def test_epochs_draw_anew_also_in_persistent_workers(members):
    mixture = LeRobotMixture(members, [0.2, 0.8], samples_per_epoch=20)
    loader = torch.utils.data.DataLoader(mixture, batch_size=None, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        mixture.set_epoch(epoch)
        epochs.append([(sample["dataset_key"], sample["index"]) for sample in loader])
    assert epochs[0] == epochs[2] != epochs[1]
    assert Counter(key for key, _ in epochs[0]) == {"numbers": 4, "other": 16}


def test_split_keeps_episodes_apart(members):
    train, validation = LeRobotMixture(members, [1, 1], samples_per_epoch=60).split_by_episode(0.4, seed=1)
    assert len(train) == 60
    np.testing.assert_array_equal(train.weights, [0.5, 0.5])
    assert len(validation) == sum(len(member) for member in validation.members)
    for first, second, whole in zip(train.members, validation.members, members, strict=True):
        parts = [set(part.episodes["index"].tolist()) for part in (first, second)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == set(whole.episodes["index"].tolist())


def test_members_that_disagree_are_refused(members, tmp_path):
    def mixed(name: str, dataset_options: dict | None = None, **options) -> LeRobotMixture:
        other = write_other(tmp_path / name, **(dataset_options or {}))
        return LeRobotMixture([members[0], LeRobotDataset(other, **options)])

    with pytest.raises(ValueError, match=r"'numbers' and 'wide' differ: 3 and 7 action dimensions. Choose features"):
        mixed("wide", {"action_dim": 7})
    with pytest.raises(ValueError, match=r"'numbers' and 'short' differ: 5 and 2 actions per chunk"):
        mixed("short", chunk_size=2)
    with pytest.raises(ValueError, match=r"'numbers' and 'blind' differ: 2 and 1 cameras"):
        mixed("blind", {"cameras": 1})
    with pytest.raises(ValueError, match=r"25 and 10 frames per second.*allow_mixed_fps=True"):
        mixed("slow", {"fps": 10})
    slow = LeRobotDataset(tmp_path / "slow")
    assert len(LeRobotMixture([members[0], slow], allow_mixed_fps=True)) == 49
    with pytest.raises(ValueError, match=r"Two members have the dataset_key 'numbers'"):
        LeRobotMixture([members[0], members[0]])
    with pytest.raises(ValueError, match=r"no member"):
        LeRobotMixture([])
    for weights in ([1], [1, 0], [1, float("nan")], [1, -1]):
        with pytest.raises(ValueError, match=r"`weights` is .*expected 2 positive number"):
            LeRobotMixture(members, weights)
    with pytest.raises(ValueError, match=r"`samples_per_epoch` is 1 for 2 members"):
        LeRobotMixture(members, samples_per_epoch=1)
    with pytest.raises(ValueError, match=r"`weights` give 'other' no sample in an epoch of 10"):
        LeRobotMixture(members, [1000, 1], samples_per_epoch=10)


def test_mixture_trains_with_statistics_of_its_own_per_key(members):
    mixture = LeRobotMixture(members)
    statistics = {member.dataset_key: compute_statistics(member)["action"] for member in mixture.members}
    _, processor = tiny_policy(action_dim=3, norm_stats=statistics)
    check_dataset_fits(mixture, processor)
    batch = PolicyCollator(processor)([mixture[0], mixture[48]])
    low, high = statistics["numbers"].min, statistics["numbers"].max
    expected = (members[0][0]["actions"] - low) / (high - low) * 2 - 1
    np.testing.assert_allclose(batch["actions"][0], expected, atol=1e-5)
    assert (batch["actions"][1] == 0).all()  # constant in its own dataset


def test_datasets_that_do_not_fit_the_policy(members, tmp_path):
    statistics = {"numbers": compute_statistics(members[0])["action"]}
    _, processor = tiny_policy(action_dim=3, norm_stats=statistics)
    check_dataset_fits(members[0], processor)
    with pytest.raises(
        ValueError, match=r"'other' has no statistics in the processor, which has those of \['numbers'\]"
    ):
        check_dataset_fits(LeRobotMixture(members), processor)
    with pytest.raises(ValueError, match=r"'numbers' has actions of 3 dimensions, but the policy has 4"):
        check_dataset_fits(members[0], tiny_policy()[1])
    root = members[0]._source.files.root
    with pytest.raises(ValueError, match=r"chunk_size=2, but the policy's is 5"):
        check_dataset_fits(LeRobotDataset(root, chunk_size=2), processor)
    with pytest.raises(ValueError, match=r"without cameras"):
        check_dataset_fits(LeRobotDataset(root, image_keys=[]), processor)
    processor.state_dim = 3
    with pytest.raises(ValueError, match=r"'numbers' has a state of 2 dimensions, but the policy reads 3"):
        check_dataset_fits(members[0], processor)
    processor.state_dim = None
    processor.delta_action_mask = [True, True, True]
    with pytest.raises(ValueError, match=r"state of 2 dimensions; .* at least 3"):
        check_dataset_fits(members[0], processor)
    processor.delta_action_mask = [True, True, False]
    processor.set_norm_stats({"numbers": compute_statistics(members[0], delta_mask=[True, True, False])["action"]})
    check_dataset_fits(members[0], processor)


def edit_action(root: Path, episode: int, frame: int, value: list | None) -> None:
    for path in sorted(root.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        rows = [
            row
            for row, (e, f) in enumerate(
                zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
            )
            if (e, f) == (episode, frame)
        ]
        if rows:
            values = table["action"].to_pylist()
            values[rows[0]] = value
            place = table.column_names.index("action")
            pq.write_table(table.set_column(place, "action", pa.array(values, table["action"].type)), path)


def test_bad_episodes_are_left_out_on_request_only(copied, caplog):
    edit_action(copied, 2, 4, [0.0, float("nan"), 0.0])
    edit_action(copied, 4, 0, None)
    with pytest.raises(
        ValueError, match=r"file-001.parquet, row 4: dimension 1 of 'action' is nan.*skip_bad_episodes=True"
    ):
        LeRobotDataset(copied)
    with caplog.at_level(logging.WARNING):
        dataset = LeRobotDataset(copied, skip_bad_episodes=True)
    assert list(dataset.skipped_episodes) == [2, 4]
    assert "file-001.parquet, row 4: dimension 1 of 'action' is nan" in dataset.skipped_episodes[2]
    assert "'action' has no value" in dataset.skipped_episodes[4]
    assert "2 of 6 episodes of 'copy' are bad and were skipped. The first, episode 2:" in caplog.text
    assert dataset.episodes["index"].tolist() == [0, 1, 3, 5]
    good = np.concatenate([NUMBERS[START[episode] : START[episode + 1]] for episode in (0, 1, 3, 5)])
    assert [dataset[position]["index"] for position in range(len(dataset))] == good.tolist()
    assert [read_number(dataset.frame(position))[0] for position in range(len(dataset))] == good.tolist()
    with pytest.raises(ValueError, match=r"No good episode is left"):
        LeRobotDataset(copied, episodes=[2, 4], skip_bad_episodes=True)
    assert LeRobotDataset(copied, episodes=[0, 5], skip_bad_episodes=True).skipped_episodes == {}


def test_a_damaged_file_costs_its_episodes_only(copied):
    table = pq.read_table(copied / "meta/episodes/chunk-000/file-000.parquet").to_pandas()
    lost = table["episode_index"][table["data/file_index"] == 1].tolist()
    assert 0 < len(lost) < len(LENGTHS)
    path = copied / DATA.format(1)
    path.write_bytes(path.read_bytes()[:-50])
    dataset = LeRobotDataset(copied, skip_bad_episodes=True)
    assert list(dataset.skipped_episodes) == lost
    assert all("cannot be read as parquet" in reason for reason in dataset.skipped_episodes.values())
    assert len(dataset) == sum(length for episode, length in enumerate(LENGTHS) if episode not in lost)


def test_bad_videos_are_left_out(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'nora15_hf[video]'")
    root = write_v30(tmp_path / "d")
    table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pandas()
    lost = table["episode_index"][table[f"videos/{TOP}/file_index"] == 1].tolist()
    (root / f"videos/{TOP}/chunk-000/file-001.mp4").unlink()
    dataset = LeRobotDataset(root, skip_bad_episodes=True, cache_images=False)
    assert list(dataset.skipped_episodes) == lost
    assert all("file-001.mp4 is missing" in reason for reason in dataset.skipped_episodes.values())
    for position in range(len(dataset)):
        sample = dataset[position]
        assert [read_number(image)[0] for image in sample["images"]] == [sample["index"]] * 2
