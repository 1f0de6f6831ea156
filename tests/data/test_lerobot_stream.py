# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Streams of LeRobot datasets: nothing lost or twice, however many readers; order by seed and epoch; mixtures."""

import itertools
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

from helpers.numbered_dataset import LENGTHS, TOP, WRIST, read_number, write_v21_by_hand, write_v30
from nora15_hf.data import LeRobotDataset, LeRobotStream, LeRobotStreamMixture, check_dataset_fits, compute_statistics
from nora15_hf.data.lerobot_stream import shuffled
from nora15_hf.nora15.presets import tiny_policy

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'nora15_hf[video]'")


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stream")
    return {"v3.0": write_v30(folder / "new"), "v2.1": write_v21_by_hand(folder / "old")}


def indices(loader) -> list[int]:
    return [sample["index"] for sample in loader]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_stream_in_order_equals_the_dataset(roots, version):
    dataset = LeRobotDataset(roots[version], chunk_size=4)
    stream = LeRobotStream(roots[version], chunk_size=4, shuffle_buffer_size=0)
    assert (stream.num_frames, stream.num_episodes, stream.action_dim, stream.state_dim) == (len(dataset), 6, 3, 2)
    count = 0
    for number, sample in enumerate(stream):
        expected = dataset[number]
        for key, value in expected.items():
            np.testing.assert_array_equal(sample[key], value)
        assert [read_number(image) for image in sample["images"]] == [(number, 0), (number, 1)]
        count += 1
    assert count == len(dataset)


@settings(max_examples=25, deadline=None)
@given(
    version=st.sampled_from(["v2.1", "v3.0"]),
    readers=st.integers(1, 6),
    buffer=st.sampled_from([0, 1, 7, 100]),
    seed=st.integers(0, 5),
)
def test_readers_share_out_every_sample_once(roots, version, readers, buffer, seed):
    stream = LeRobotStream(roots[version], image_keys=[], shuffle_buffer_size=buffer, seed=seed)
    parts = [indices(stream.shard(rank, readers)) for rank in range(readers)]
    assert sorted(itertools.chain(*parts)) == list(range(sum(LENGTHS)))
    assert all(parts)
    assert [indices(stream.shard(rank, readers)) for rank in range(readers)] == parts


def test_workers_of_two_processes(roots):
    stream = LeRobotStream(roots["v3.0"], shuffle_buffer_size=5)
    parts = []
    for rank in range(2):
        loader = torch.utils.data.DataLoader(stream.shard(rank, 2), batch_size=None, num_workers=2)
        for sample in loader:
            assert [read_number(image.numpy()) for image in sample["images"]] == [
                (sample["index"], 0),
                (sample["index"], 1),
            ]
            parts.append(sample["index"])
    assert sorted(parts) == list(range(sum(LENGTHS)))


def test_order_depends_on_seed_and_epoch(roots):
    stream = LeRobotStream(roots["v3.0"], image_keys=[], shuffle_buffer_size=10, seed=1)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append(indices(loader))
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != indices(LeRobotStream(roots["v3.0"], image_keys=[], shuffle_buffer_size=10, seed=2))
    again = LeRobotStream(roots["v3.0"], image_keys=[], shuffle_buffer_size=10, seed=1, repeat=True)
    assert indices(itertools.islice(again, 2 * sum(LENGTHS))) == orders[0] + orders[1]


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 50), size=st.integers(1, 60), seed=st.integers(0, 99))
def test_shuffle_buffer_keeps_every_sample_and_holds_no_more_than_its_size(count, size, seed):
    read = []
    samples = (read.append(number) or number for number in range(count))
    drawn = []
    for number in shuffled(samples, size, np.random.default_rng(seed)):
        drawn.append(number)
        assert len(read) - len(drawn) <= size
    assert sorted(drawn) == list(range(count))


def test_split_is_that_of_the_dataset(roots):
    parts = LeRobotStream(roots["v3.0"], image_keys=[], shuffle_buffer_size=0).split_by_episode(0.4, seed=3)
    expected = LeRobotDataset(roots["v3.0"], image_keys=[]).split_by_episode(0.4, seed=3)
    for part, dataset in zip(parts, expected, strict=True):
        assert indices(part) == [dataset[position]["index"] for position in range(len(dataset))]


def test_mixture_of_streams(roots):
    streams = [
        LeRobotStream(roots[version], image_keys=[TOP], dataset_key=version, shuffle_buffer_size=20, repeat=True)
        for version in ("v3.0", "v2.1")
    ]
    mixture = LeRobotStreamMixture(streams, [3, 1], seed=4)
    samples = list(itertools.islice(mixture, 400))
    assert 0.68 < Counter(sample["dataset_key"] for sample in samples)["v3.0"] / 400 < 0.82
    for sample in samples:
        assert read_number(sample["images"][0]) == (sample["index"], 0)
    assert indices(itertools.islice(mixture, 400)) == [sample["index"] for sample in samples]
    shards = [
        {s["index"] for s in itertools.islice(mixture.shard(rank, 2), 40) if s["dataset_key"] == "v2.1"}
        for rank in (0, 1)
    ]
    assert not shards[0] & shards[1]
    statistics = {
        version: compute_statistics(LeRobotDataset(root, image_keys=[]))["action"] for version, root in roots.items()
    }
    check_dataset_fits(mixture, tiny_policy(action_dim=3, norm_stats=statistics)[1])
    with pytest.raises(ValueError, match=r"'v2.1' has no statistics"):
        check_dataset_fits(mixture, tiny_policy(action_dim=3, norm_stats={"v3.0": statistics["v3.0"]})[1])
    with pytest.raises(ValueError, match=r"'new' ends after one epoch.*`repeat=True`"):
        LeRobotStreamMixture([LeRobotStream(roots["v3.0"])])
    with pytest.raises(ValueError, match=r"differ: 1 and 2 cameras"):
        LeRobotStreamMixture([streams[0], LeRobotStream(roots["v2.1"], image_keys=[TOP, WRIST], repeat=True)])


def test_wrong_arguments(roots):
    with pytest.raises(ValueError, match=r"`shuffle_buffer_size` is -1"):
        LeRobotStream(roots["v3.0"], shuffle_buffer_size=-1)
    with pytest.raises(ValueError, match=r"`rank` 2 must lie between 0 and `world_size` - 1 = 1"):
        LeRobotStream(roots["v3.0"]).shard(2, 2)
    with pytest.raises(ValueError, match=r"6 episodes cannot be distributed over 7 readers"):
        next(iter(LeRobotStream(roots["v3.0"]).shard(0, 7)))


def test_bad_episodes(roots, tmp_path, caplog):
    root = Path(shutil.copytree(roots["v2.1"], tmp_path / "copy"))
    path = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    nan = pa.array([[float("nan")] * 3] * len(table), table["action"].type)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", nan), path)
    with pytest.raises(ValueError, match=r"episode_000001.parquet, row 0: dimension 0 of 'action' is nan"):
        indices(LeRobotStream(root, image_keys=[], shuffle_buffer_size=0))
    good = [*range(9), *range(13, sum(LENGTHS))]
    assert indices(LeRobotStream(root, image_keys=[], shuffle_buffer_size=0, skip_bad_episodes=True)) == good
    assert "1 of 1 episodes of 'copy' are bad and were skipped. The first, episode 1:" in caplog.text
    endless = LeRobotStream(root, episodes=[1], image_keys=[], repeat=True, skip_bad_episodes=True)
    with pytest.raises(ValueError, match=r"each episode of reader 0 of 1 is bad"):
        next(iter(endless))
