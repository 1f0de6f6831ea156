# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LeRobot v3.0 written and read back, v2.1 read, statistics, and what is refused with which words."""

import filecmp
import io
import json
import pickle
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nora15_hf.data import (
    LeRobotDataset,
    LeRobotWriter,
    PolicyCollator,
    compute_statistics,
    lerobot_dataset,
    lerobot_download,
    parquet_images,
)
from nora15_hf.data.feature_statistics import channel_histogram, image_statistics

FPS = 20
HEIGHT, WIDTH = 6, 8
LENGTHS = (7, 3, 5, 1)
TASKS = ("open the drawer", "close the drawer", "open the drawer", "push")
FEATURES = {
    "observation.image": {"dtype": "image", "shape": (HEIGHT, WIDTH, 3)},
    "observation.wrist": {"dtype": "image", "shape": (HEIGHT, WIDTH, 3)},
    "observation.state": {"dtype": "float32", "shape": (3,)},
    "action": {"dtype": "float32", "shape": (4,)},
}
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def make_episode(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation.image": rng.integers(0, 256, (length, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "observation.wrist": rng.integers(0, 256, (length, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 4)).astype(np.float32),
    }


RECORDED = [make_episode(length, seed) for seed, length in enumerate(LENGTHS)]


def write_v30(root: Path, **kwargs) -> Path:
    writer = LeRobotWriter(root, fps=FPS, features=FEATURES, robot_type="test", **kwargs)
    for task, frames in zip(TASKS, RECORDED, strict=True):
        writer.add_episode(task, frames)
    return writer.finalize()


def png(frame: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_v21(root: Path) -> Path:
    """The older layout, laid out here by hand: one file per episode, chunks of two episodes, lines of JSON."""
    (root / "meta").mkdir(parents=True)
    texts = list(dict.fromkeys(TASKS))
    index = 0
    for episode, (task, frames) in enumerate(zip(TASKS, RECORDED, strict=True)):
        length = LENGTHS[episode]
        columns = {
            key: pa.array([png(frame) for frame in frames[key]]) for key in ("observation.image", "observation.wrist")
        }
        # Variable-length lists, as pandas writes them.
        columns |= {
            key: pa.array(frames[key].tolist(), pa.list_(pa.float32())) for key in ("observation.state", "action")
        }
        columns |= {
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / np.float32(FPS)),
            "frame_index": pa.array(np.arange(length)),
            "episode_index": pa.array(np.full(length, episode)),
            "index": pa.array(index + np.arange(length)),
            "task_index": pa.array(np.full(length, texts.index(task))),
        }
        path = root / f"data/chunk-{episode // 2:03d}/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        index += length
    rows = {
        "tasks": [{"task_index": number, "task": text} for number, text in enumerate(texts)],
        "episodes": [
            {"episode_index": number, "tasks": [TASKS[number]], "length": length}
            for number, length in enumerate(LENGTHS)
        ],
    }
    for name, lines in rows.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scalars = {
        name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")
    }
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "chunks_size": 2,
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_videos": 0,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None,
        "features": {
            **{key: {**feature, "shape": list(feature["shape"])} for key, feature in FEATURES.items()},
            **scalars,
            # Described channels first, as some published sets are; the stored images never are.
            "observation.wrist": {
                "dtype": "image",
                "shape": [3, HEIGHT, WIDTH],
                "names": ["channels", "height", "width"],
            },
        },
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def split_files(root: Path) -> Path:
    """Spread a v3.0 dataset over several data files and, in reverse order, over several shards of the episode table."""
    pieces = [(0, [0, 1]), (1, [2]), (2, [3])]
    data, table = pq.read_table(root / DATA), pq.read_table(root / EPISODES)
    (root / EPISODES).unlink()
    for number, episodes in pieces:
        rows = data.filter(pc.is_in(data["episode_index"], pa.array(episodes)))
        pq.write_table(rows, root / f"data/chunk-000/file-{number:03d}.parquet", row_group_size=4)
        shard = table.filter(pc.is_in(table["episode_index"], pa.array(episodes)))
        shard = replace(shard, "data/file_index", [number] * len(episodes))
        pq.write_table(shard, root / f"meta/episodes/chunk-000/file-{9 - number:03d}.parquet")
    return root


def replace(table: pa.Table, name: str, values: list) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.fixture(scope="module")
def v30(tmp_path_factory) -> Path:
    return write_v30(
        tmp_path_factory.mktemp("lerobot") / "demonstrations", conventions={"renderer": "rays", "size": 8}
    )


@pytest.fixture
def copied(v30, tmp_path) -> Path:
    return Path(shutil.copytree(v30, tmp_path / "copy"))


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_column(root: Path, file: str, name: str, row: int, value) -> None:
    table = pq.read_table(root / file)
    values = table[name].to_pylist()
    values[row] = value
    position = table.column_names.index(name)
    pq.write_table(table.set_column(position, name, pa.array(values, table[name].type)), root / file)


def assert_holds_recorded(dataset: LeRobotDataset, episodes: Sequence[int] = (0, 1, 2, 3)) -> None:
    """Every frame, action, mask, state and text, against plain loops over what was recorded."""
    first = np.concatenate([[0], np.cumsum(LENGTHS)])
    position = 0
    for episode in episodes:
        frames, length = RECORDED[episode], LENGTHS[episode]
        for frame in range(length):
            sample = dataset[position]
            np.testing.assert_array_equal(sample["images"][0], frames["observation.image"][frame])
            np.testing.assert_array_equal(sample["images"][1], frames["observation.wrist"][frame])
            np.testing.assert_array_equal(sample["state"], frames["observation.state"][frame])
            for step in range(dataset.chunk_size):
                expected = frames["action"][min(frame + step, length - 1)]
                np.testing.assert_array_equal(sample["actions"][step], expected)
                assert sample["action_mask"][step] == (frame + step < length)
            assert sample["instruction"] == TASKS[episode]
            assert (sample["episode_index"], sample["frame_index"]) == (episode, frame)
            assert sample["index"] == first[episode] + frame
            assert dataset.last_frame_index(position) == position + length - 1 - frame
            assert dataset.subgoal_index(position, 2) == position + min(2, length - 1 - frame)
            position += 1
    assert position == len(dataset)


@pytest.mark.parametrize("cache_images", [True, False])
def test_written_v30_reads_back_exactly(v30, cache_images):
    dataset = LeRobotDataset(v30, chunk_size=4, cache_images=cache_images)
    for _ in range(2):  # the second pass is served from the cache
        assert_holds_recorded(dataset)
    assert (dataset.fps, dataset.action_dim, dataset.state_dim, dataset.num_episodes) == (FPS, 4, 3, 4)
    assert dataset.conventions == {"renderer": "rays", "size": 8}
    assert dataset[0]["dataset_key"] == "demonstrations"
    assert dataset[0]["actions"].dtype == dataset[0]["state"].dtype == np.float32
    assert dataset.episodes["tasks"] == [[task] for task in TASKS]
    np.testing.assert_array_equal(dataset.episodes["length"], LENGTHS)
    np.testing.assert_array_equal(dataset.all_actions(), np.concatenate([frames["action"] for frames in RECORDED]))
    for episode, recorded in enumerate(RECORDED):
        frames, actions = dataset.episode_arrays(episode)
        np.testing.assert_array_equal(frames, recorded["observation.image"])
        np.testing.assert_array_equal(actions, recorded["action"])


def test_several_data_files_and_episode_shards(copied):
    dataset = LeRobotDataset(split_files(copied))
    assert_holds_recorded(dataset)


def test_small_files_are_rotated_by_size(tmp_path):
    # Episodes of about 20 kB against a limit of 30 kB: one file each.
    features = {"image": {"dtype": "image", "shape": (80, 80, 3)}, "action": {"dtype": "float32", "shape": (1,)}}
    writer = LeRobotWriter(tmp_path / "d", fps=5, features=features, robot_type="x", max_file_size_mb=0.03)
    rng = np.random.default_rng(0)
    episodes = [rng.integers(0, 256, (1, 80, 80, 3), dtype=np.uint8) for _ in range(3)]
    for number, frames in enumerate(episodes):
        writer.add_episode("wait", {"image": frames, "action": np.full((1, 1), number, np.float32)})
    dataset = LeRobotDataset(writer.finalize())
    assert len(list((tmp_path / "d/data").rglob("*.parquet"))) == 3
    for number, frames in enumerate(episodes):
        np.testing.assert_array_equal(dataset.frame(number), frames[0])
    np.testing.assert_array_equal(dataset.all_actions(), [[0], [1], [2]])


def test_v21(tmp_path):
    dataset = LeRobotDataset(write_v21(tmp_path / "old"), chunk_size=3)
    assert_holds_recorded(dataset)
    assert dataset.conventions == {}


def test_selected_episodes_keep_their_own_indices(copied):
    dataset = LeRobotDataset(split_files(copied), episodes=[3, 1])
    assert_holds_recorded(dataset, episodes=[1, 3])
    assert dataset.episodes["index"].tolist() == [1, 3]
    assert dataset.episodes["from"].tolist() == [0, 3]


def test_split_by_episode(v30):
    dataset = LeRobotDataset(v30)
    train, validation = dataset.split_by_episode(0.5, seed=3)
    again = dataset.split_by_episode(0.5, seed=3)
    assert again[0].episodes["index"].tolist() == train.episodes["index"].tolist()
    assert sorted([*train.episodes["index"], *validation.episodes["index"]]) == [0, 1, 2, 3]
    for part in (train, validation):
        assert part.num_episodes == 2
        assert_holds_recorded(part, episodes=part.episodes["index"].tolist())
    with pytest.raises(ValueError, match="validation_fraction"):
        dataset.split_by_episode(1.0, seed=0)
    with pytest.raises(ValueError, match="at least 2 episodes"):
        LeRobotDataset(v30, episodes=[0]).split_by_episode(0.5, seed=0)


def test_keys_choose_cameras_state_and_action(v30):
    dataset = LeRobotDataset(v30, image_keys=["observation.wrist"], state_key="action", action_key="observation.state")
    sample = dataset[2]
    np.testing.assert_array_equal(sample["images"], RECORDED[0]["observation.wrist"][2:3])
    np.testing.assert_array_equal(sample["state"], RECORDED[0]["action"][2])
    np.testing.assert_array_equal(sample["actions"][0], RECORDED[0]["observation.state"][2])
    assert LeRobotDataset(v30, image_keys=[])[0]["images"] == []
    with pytest.raises(
        ValueError, match=r"`key` 'observation.image' is not an opened camera. Opened: observation.wrist"
    ):
        dataset.frame(0, "observation.image")


def test_any_column_is_read_from_a_dataset_that_is_open(v30, monkeypatch):
    dataset = LeRobotDataset(v30, state_key="observation.state", image_keys=[])
    state = np.concatenate([frames["observation.state"] for frames in RECORDED])
    # Opened with it or not, the same values.
    other = LeRobotDataset(v30, state_key="action", action_key="action", image_keys=[], episodes=[1, 3])
    np.testing.assert_array_equal(dataset.column("observation.state"), state)
    np.testing.assert_array_equal(dataset.column("action"), dataset.all_actions())
    train, validation = other.split_by_episode(0.5, seed=3)
    for part in (other, train, validation):
        of_part = [RECORDED[index]["observation.state"] for index in part.episodes["index"]]
        column = part.column("observation.state")
        assert column.dtype == np.float32
        np.testing.assert_array_equal(column, np.concatenate(of_part))
    column[:] = 0
    assert validation.column("observation.state").any(), "a caller's copy, not the table"

    def read_again(*args, **kwargs):
        raise AssertionError("read twice")

    monkeypatch.setattr(lerobot_dataset, "read_frame_table", read_again)
    train.column("observation.state")


def test_a_column_that_is_no_vector_is_refused(v30):
    dataset = LeRobotDataset(v30)
    with pytest.raises(ValueError, match=r"`key` 'velocity' is not a feature .*Available: .*observation.state"):
        dataset.column("velocity")
    with pytest.raises(ValueError, match=r"`key` 'observation.image' has dtype 'image'"):
        dataset.column("observation.image")


def test_small_datasets_are_cached_by_default(v30, monkeypatch):
    size = 2 * HEIGHT * WIDTH * 3 * sum(LENGTHS)
    for limit, cached in ((size, True), (size - 1, False)):
        monkeypatch.setattr(lerobot_dataset, "CACHED_BYTES", limit)
        cameras = LeRobotDataset(v30)._cameras.values()
        assert [camera.cache for camera in cameras] == [cached] * 2


def test_uncached_images_keep_row_groups_by_size(v30, monkeypatch):
    dataset = LeRobotDataset(v30, cache_images=False)
    camera = dataset._cameras["observation.wrist"]
    assert_holds_recorded(dataset)
    assert len(camera._encoded) == len(LENGTHS)
    monkeypatch.setattr(parquet_images, "ENCODED_BYTES_KEPT", camera._encoded_bytes // 2)
    dataset = LeRobotDataset(v30, cache_images=False)
    assert_holds_recorded(dataset)
    kept = dataset._cameras["observation.wrist"]._encoded
    assert 0 < len(kept) < len(LENGTHS)
    assert dataset._cameras["observation.wrist"]._encoded_bytes == sum(group.nbytes for group in kept.values())


def test_samples_do_not_alias_the_cache(v30):
    dataset = LeRobotDataset(v30)
    sample = dataset[0]
    for array in (sample["images"][0], sample["actions"], sample["state"], dataset.all_actions()):
        array[:] = 0
    assert_holds_recorded(dataset)


def test_positions_out_of_range(v30):
    dataset = LeRobotDataset(v30)
    for position in (-1, len(dataset)):
        with pytest.raises(IndexError, match="16 frames"):
            dataset[position]
    with pytest.raises(IndexError, match="4 episodes"):
        dataset.episode_arrays(4)


@pytest.mark.parametrize("cache_images", [True, False])
def test_workers_and_pickling(v30, cache_images):
    dataset = LeRobotDataset(v30, cache_images=cache_images)
    assert_holds_recorded(pickle.loads(pickle.dumps(dataset)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    frames = [sample["images"][0].numpy() for sample in loader]
    np.testing.assert_array_equal(frames, np.concatenate([frames["observation.image"] for frames in RECORDED]))


def test_plain_load_dataset_decodes_the_images(v30, tmp_path):
    loaded = datasets.load_dataset(str(v30), split="train", cache_dir=str(tmp_path))
    assert loaded.features["observation.image"] == datasets.Image()
    assert loaded.features["action"] == datasets.List(datasets.Value("float32"), length=4)
    images = np.stack([np.array(image) for image in loaded["observation.image"]])
    np.testing.assert_array_equal(images, np.concatenate([frames["observation.image"] for frames in RECORDED]))
    assert loaded["task_index"][:] == [0] * 7 + [1] * 3 + [0] * 5 + [2]


def test_same_input_same_bytes(v30, tmp_path):
    again = write_v30(tmp_path / "again", conventions={"renderer": "rays", "size": 8})
    files = [path.relative_to(v30) for path in v30.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert filecmp.cmpfiles(v30, again, files, shallow=False) == (files, [], [])


def test_layout_on_disk(v30):
    """What LeRobot and other readers rely on, read here without the package's reader."""
    info = json.loads((v30 / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_tasks"], info["splits"]) == ("v3.0", 3, {"train": "0:4"})
    assert info["features"]["observation.image"] == {
        "dtype": "image",
        "shape": [HEIGHT, WIDTH, 3],
        "names": ["height", "width", "channels"],
    }
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    tasks = pd.read_parquet(v30 / "meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert tasks["task_index"].to_dict() == {"open the drawer": 0, "close the drawer": 1, "push": 2}
    assert pq.read_metadata(v30 / DATA).num_row_groups == len(LENGTHS)
    episodes = pq.read_table(v30 / EPISODES).to_pylist()
    assert [row["dataset_to_index"] for row in episodes] == [7, 10, 15, 16]
    assert {row["meta/episodes/file_index"] for row in episodes} == {0}
    np.testing.assert_allclose(episodes[1]["stats/action/mean"], RECORDED[1]["action"].mean(axis=0, dtype=np.float64))

    stats = json.loads((v30 / "meta/stats.json").read_text())
    assert set(stats) == set(info["features"])
    actions = np.concatenate([frames["action"] for frames in RECORDED]).astype(np.float64)
    for name, quantile in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(stats["action"][name], np.quantile(actions, quantile, axis=0), rtol=1e-12)
    assert stats["action"]["count"] == [sum(LENGTHS)]
    pixels = np.concatenate([frames["observation.image"] for frames in RECORDED]) / 255
    np.testing.assert_allclose(np.squeeze(stats["observation.image"]["std"]), pixels.std(axis=(0, 1, 2)), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 3), top=st.integers(1, 256))
def test_image_statistics_equal_those_of_the_pixels(seed, frames, top):
    images = np.random.default_rng(seed).integers(0, top, (frames, 3, 5, 3), dtype=np.uint8)
    found = image_statistics(channel_histogram(images), frames)
    pixels = images.reshape(-1, 3) / 255
    expected = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    for name, quantile in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        expected[name] = np.quantile(pixels, quantile, axis=0)
    for name, values in expected.items():
        assert found[name].shape == (3, 1, 1)
        np.testing.assert_allclose(found[name].ravel(), values, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), chunk_size=st.integers(1, 12))
def test_chunks_stay_inside_their_episode(v30, data, chunk_size):
    dataset = LeRobotDataset(v30, image_keys=[], chunk_size=chunk_size)
    position = data.draw(st.integers(0, len(dataset) - 1))
    sample = dataset[position]
    valid = int(sample["action_mask"].sum())
    remaining = LENGTHS[sample["episode_index"]] - sample["frame_index"]
    assert valid == min(chunk_size, remaining)
    assert sample["action_mask"][:valid].all()
    assert sample["actions"].shape == (chunk_size, 4)
    np.testing.assert_array_equal(sample["actions"][:valid], dataset.all_actions()[position : position + valid])
    np.testing.assert_array_equal(
        sample["actions"][valid:], np.repeat(sample["actions"][valid - 1 : valid], chunk_size - valid, 0)
    )


def test_statistics_need_no_images(copied):
    table = pq.read_table(copied / DATA)
    for key in ("observation.image", "observation.wrist"):
        broken = [{"bytes": b"no image", "path": None}] * len(table)
        table = table.set_column(table.column_names.index(key), key, pa.array(broken))
    pq.write_table(table, copied / DATA)
    dataset = LeRobotDataset(copied, episodes=[0, 2])
    mask = np.array([True, True, True, False])
    statistics = compute_statistics(dataset, action_mask=mask)
    actions = np.concatenate([RECORDED[0]["action"], RECORDED[2]["action"]])
    assert statistics["action"].count == 12
    np.testing.assert_array_equal(statistics["action"].mask, mask)
    np.testing.assert_allclose(statistics["action"].q99, np.quantile(actions, 0.99, axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        statistics["state"].max, np.maximum(*(RECORDED[k]["observation.state"].max(0) for k in (0, 2)))
    )
    with pytest.raises(ValueError, match=r"file-000.parquet, row 0: image 'observation.image' cannot be decoded"):
        dataset[0]


def test_collator_hands_over_one_batch(v30):
    received = {}

    def processor(**inputs):
        received.update(inputs)
        return inputs

    processor.needs_state = False
    dataset = LeRobotDataset(v30, dataset_key="metaworld")
    PolicyCollator(processor)([dataset[5], dataset[0]])
    assert received["actions"].shape == (2, 5, 4)
    assert received["action_mask"].tolist() == [[True, True, False, False, False], [True] * 5]
    assert received["text"] == ["open the drawer"] * 2
    assert received["dataset_key"] == ["metaworld"] * 2
    assert received["state"] is None
    np.testing.assert_array_equal(received["images"][0][1], RECORDED[0]["observation.wrist"][5])


@pytest.fixture
def hub(copied, tmp_path, monkeypatch):
    """A stand-in for the Hub: copies the matching files into a snapshot folder named after a commit."""
    split_files(copied)
    calls = []

    def snapshot_download(repo_id, *, repo_type, revision, token, allow_patterns):
        calls.append((repo_id, repo_type, revision, token))
        snapshot = tmp_path / "snapshots" / "c0ffee"
        for path in copied.rglob("*.*"):
            name = path.relative_to(copied).as_posix()
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr(lerobot_download, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "snapshots" / "c0ffee", calls


def test_hub_fetches_one_commit_and_only_the_files_needed(hub):
    snapshot, calls = hub
    dataset = LeRobotDataset("someone/drawers", revision="v3.0", token="secret", episodes=[0, 3])
    assert_holds_recorded(dataset, episodes=[0, 3])
    assert dataset[0]["dataset_key"] == "drawers"
    assert calls == [("someone/drawers", "dataset", revision, "secret") for revision in ("v3.0", "c0ffee")]
    assert sorted(path.name for path in (snapshot / "data").rglob("*.parquet")) == [
        "file-000.parquet",
        "file-002.parquet",
    ]
    assert not (snapshot / "README.md").exists()


def test_hub_whole_dataset(hub):
    assert_holds_recorded(LeRobotDataset("someone/drawers"))


def truncate(root: Path) -> None:
    path = root / DATA
    path.write_bytes(path.read_bytes()[:-100])


def shift_episode_table(root: Path) -> None:
    edit_column(root, EPISODES, "dataset_from_index", 2, 9)


def duplicate_episode(root: Path) -> None:
    edit_column(root, EPISODES, "episode_index", 3, 1)


def grow_episode(root: Path) -> None:
    """A consistent table that disagrees with the data: one frame moves from episode 1 to episode 0."""
    edit_column(root, EPISODES, "length", 0, 8)
    edit_column(root, EPISODES, "dataset_to_index", 0, 8)
    edit_column(root, EPISODES, "dataset_from_index", 1, 8)
    edit_column(root, EPISODES, "length", 1, 2)


def drop_task(root: Path) -> None:
    table = pq.read_table(root / "meta/tasks.parquet")
    pq.write_table(table.slice(0, 2), root / "meta/tasks.parquet")


def drop_last_row(root: Path) -> None:
    table = pq.read_table(root / DATA)
    pq.write_table(table.slice(0, len(table) - 1), root / DATA)


def file_numbers_as_text(root: Path) -> None:
    table = pq.read_table(root / EPISODES)
    pq.write_table(replace(table, "data/chunk_index", ["../../elsewhere"] * len(table)), root / EPISODES)
    edit_info(root, data_path="data/{chunk_index}/{file_index}.parquet")


def set_feature(root: Path, key: str, **changes) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[key] = features[key] | changes
    edit_info(root, features=features)


def drop_column(root: Path, file: str, name: str) -> None:
    pq.write_table(pq.read_table(root / file).drop_columns([name]), root / file)


DAMAGED = {
    "truncated data": (truncate, ValueError, r"file-000.parquet cannot be read as parquet .*not finalised"),
    "truncated tasks": (
        lambda root: (root / "meta/tasks.parquet").write_bytes(b"PAR1"),
        ValueError,
        r"tasks.parquet cannot be read as parquet",
    ),
    "missing data file": (lambda root: (root / DATA).unlink(), FileNotFoundError, r"file-000.parquet is missing"),
    "missing shards": (lambda root: (root / EPISODES).unlink(), FileNotFoundError, r"meta/episodes holds no parquet"),
    "missing info": (
        lambda root: (root / "meta/info.json").unlink(),
        FileNotFoundError,
        r"was not finalised. Call `LeRobotWriter.finalize\(\)`",
    ),
    "broken info": (
        lambda root: (root / "meta/info.json").write_text("{"),
        ValueError,
        r"info.json is not valid JSON",
    ),
    "unknown version": (
        lambda root: edit_info(root, codebase_version="v4.2"),
        ValueError,
        r"codebase_version is 'v4.2'; supported are v2.0, v2.1, v3.0",
    ),
    "unknown storage": (
        lambda root: edit_info(root, storage_format="lance"),
        ValueError,
        r"storage_format is 'lance'; only 'parquet' is supported",
    ),
    "path upwards": (
        lambda root: edit_info(root, data_path="data/../../{chunk_index}/{file_index}.parquet"),
        ValueError,
        r"leaves the dataset's folder",
    ),
    "absolute path": (
        lambda root: edit_info(root, data_path="/etc/{chunk_index}.parquet"),
        ValueError,
        r"leaves the dataset's folder",
    ),
    "drive in path": (
        lambda root: edit_info(root, data_path="C:/{chunk_index}.parquet"),
        ValueError,
        r"leaves the dataset's folder",
    ),
    "path by attribute": (
        lambda root: edit_info(root, data_path="{chunk_index.__class__}/{file_index}.parquet"),
        ValueError,
        r"uses chunk_index.__class__; v3.0 knows chunk_index, file_index",
    ),
    "path by column": (file_numbers_as_text, ValueError, r"column 'data/chunk_index' is .*string.*expected integers"),
    "zero fps": (lambda root: edit_info(root, fps=0), ValueError, r"fps is 0"),
    "no fps": (lambda root: edit_info(root, fps=None), ValueError, r"fps is None"),
    "zero chunks_size": (lambda root: edit_info(root, chunks_size=0), ValueError, r"chunks_size is 0"),
    "wrong total": (
        lambda root: edit_info(root, total_frames=17),
        ValueError,
        r"total_frames = 17, but the episode table adds up to 16",
    ),
    "wrong from index": (
        shift_episode_table,
        ValueError,
        r"episodes/chunk-000/file-000.parquet, row 2: dataset_from_index 9, .* expected the episode to begin at 10",
    ),
    "file order": (
        lambda root: edit_column(root, EPISODES, "data/file_index", 1, 1),
        ValueError,
        r"row 2: the episode lies in data/chunk-000/file-000.parquet, although an earlier episode had already moved on",
    ),
    "duplicate episode": (duplicate_episode, ValueError, r"row 3: episode_index 1 appears a second time"),
    "table against data": (
        grow_episode,
        ValueError,
        r"data/chunk-000/file-000.parquet, row 7: episode_index is 1, the episode table expects 0",
    ),
    "row missing": (drop_last_row, ValueError, r"row 15: the file holds 15 rows, its episodes add up to 16"),
    "wrong index": (
        lambda root: edit_column(root, DATA, "index", 4, 40),
        ValueError,
        r"row 4: index is 40, the episode table expects 4",
    ),
    "wrong frame index": (
        lambda root: edit_column(root, DATA, "frame_index", 8, 0),
        ValueError,
        r"row 8: frame_index is 0, the episode table expects 1",
    ),
    "wrong timestamp": (
        lambda root: edit_column(root, DATA, "timestamp", 3, 0.25),
        ValueError,
        r"row 3: timestamp is 0.25 s, frame 3 at 20 fps is 0.15 s",
    ),
    "wrong fps": (
        lambda root: edit_info(root, fps=25),
        ValueError,
        r"row 2: timestamp is 0.1 s, frame 2 at 25 fps is 0.08 s",
    ),
    "task without text": (drop_task, ValueError, r"row 15: task_index 2 has no text; the task table knows \[0, 1\]"),
    "empty task": (
        lambda root: edit_column(root, "meta/tasks.parquet", "task", 1, None),
        ValueError,
        r"row 7: task_index 1 has no text; the task table knows \[0, 2\]",
    ),
    "NaN action": (
        lambda root: edit_column(root, DATA, "action", 11, [0.0, 0.0, float("nan"), 0.0]),
        ValueError,
        r"row 11: dimension 2 of 'action' is nan",
    ),
    "infinite state": (
        lambda root: edit_column(root, DATA, "observation.state", 2, [float("inf"), 0.0, 0.0]),
        ValueError,
        r"row 2: dimension 0 of 'observation.state' is inf",
    ),
    "missing action": (
        lambda root: edit_column(root, DATA, "action", 6, None),
        ValueError,
        r"row 6: 'action' has no value",
    ),
    "other width": (
        lambda root: set_feature(root, "action", shape=[7]),
        ValueError,
        r"row 0: 'action' has 4 values, meta/info.json says 7",
    ),
    "missing column": (lambda root: drop_column(root, DATA, "task_index"), ValueError, r"has no column 'task_index'"),
    "video": (
        lambda root: set_feature(root, "observation.wrist", dtype="video"),
        ValueError,
        r"video_path is None, expected a path",
    ),
    "feature without shape": (
        lambda root: edit_info(root, features={"action": {"dtype": "float32"}}),
        ValueError,
        r"feature 'action' lacks dtype or shape",
    ),
    "feature that is no object": (
        lambda root: edit_info(root, features={"action": 3}),
        ValueError,
        r"feature 'action' lacks dtype or shape",
    ),
    "conventions that are no object": (
        lambda root: edit_info(root, nora15_conventions="+1 closes"),
        ValueError,
        r"nora15_conventions is '\+1 closes', expected an object",
    ),
    "robot_type that is a list": (
        lambda root: edit_info(root, robot_type=["arm"]),
        ValueError,
        r"robot_type is \['arm'\]",
    ),
    "width that fills no memory": (
        lambda root: set_feature(root, "action", shape=[10**12]),
        ValueError,
        r"row 0: 'action' has 4 values, meta/info.json says 1000000000000",
    ),
    "height that is a truth": (
        lambda root: set_feature(root, "observation.image", shape=[True, 8, 3]),
        ValueError,
        r"shape \[True, 8, 3\]; expected",
    ),
    "info of a feature that is a number": (
        lambda root: set_feature(root, "action", info=1),
        ValueError,
        r"info of feature 'action' is 1, expected an object",
    ),
    "features as a list": (lambda root: edit_info(root, features=["action"]), ValueError, r"features is a list"),
    "shape that is a number": (
        lambda root: set_feature(root, "action", shape=4),
        ValueError,
        r"feature 'action' has dtype 'float32' and shape 4; expected .* a list of whole numbers",
    ),
    "dtype that is a list": (
        lambda root: set_feature(root, "action", dtype=["float32"]),
        ValueError,
        r"feature 'action' has dtype \['float32'\]",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_dataset_is_named(copied, name):
    damage, error, message = DAMAGED[name]
    damage(copied)
    with pytest.raises(error, match=message):
        LeRobotDataset(copied)


DAMAGED_IMAGES = {
    "other size": (
        lambda root: set_feature(root, "observation.image", shape=[8, 6, 3]),
        r"row 0: image 'observation.image' is 6 x 8 RGB, meta/info.json says 8 x 6 RGB",
    ),
    "grey": (
        lambda root: edit_column(root, DATA, "observation.image", 0, png(np.zeros((HEIGHT, WIDTH), np.uint8))),
        r"row 0: image 'observation.image' is 6 x 8 L",
    ),
    "by path": (
        lambda root: edit_column(root, DATA, "observation.image", 0, {"bytes": None, "path": "/etc/passwd"}),
        r"row 0: image 'observation.image' has no embedded bytes",
    ),
    "cut short": (
        lambda root: edit_column(
            root,
            DATA,
            "observation.image",
            0,
            {"bytes": png(RECORDED[0]["observation.image"][0])["bytes"][:60], "path": None},
        ),
        r"row 0: image 'observation.image' cannot be decoded",
    ),
    "missing": (
        lambda root: drop_column(root, DATA, "observation.image"),
        r"has no column 'observation.image'. Its columns: observation.wrist",
    ),
    "not a struct": (
        lambda root: pq.write_table(
            replace(pq.read_table(root / DATA), "observation.image", [b""] * sum(LENGTHS)), root / DATA
        ),
        r"'observation.image' is stored as binary",
    ),
}


@pytest.mark.parametrize("cache_images", [True, False])
@pytest.mark.parametrize("name", DAMAGED_IMAGES)
def test_damaged_image_is_named(copied, name, cache_images):
    damage, message = DAMAGED_IMAGES[name]
    damage(copied)
    dataset = LeRobotDataset(copied, image_keys=["observation.image"], cache_images=cache_images)
    with pytest.raises(ValueError, match=message):
        dataset[0]


AVAILABLE = r"Available: observation.image \(image, \(6, 8, 3\)\), .*action \(float32, \(4,\)\)"
WRONG_ARGUMENTS = {
    "action_key": ({"action_key": "actions"}, ValueError, r"`action_key` 'actions' is not a feature .*" + AVAILABLE),
    "state_key": ({"state_key": "state"}, ValueError, r"`state_key` 'state' is not a feature .*" + AVAILABLE),
    "image_keys": ({"image_keys": ["top"]}, ValueError, r"`image_keys` 'top' is not a feature .*" + AVAILABLE),
    "image as action": ({"action_key": "observation.image"}, ValueError, r"expected a numeric vector"),
    "action as image": ({"image_keys": ["action"]}, ValueError, r"has dtype 'float32', expected 'image' or 'video'"),
    "chunk_size": ({"chunk_size": 0}, ValueError, r"`chunk_size` is 0"),
    "unknown episode": ({"episodes": [0, 7]}, ValueError, r"`episodes` names 7, .*4 episodes, 0 to 3"),
    "no episode": ({"episodes": []}, ValueError, r"at least one episode"),
    "episode twice": ({"episodes": [1, 1]}, ValueError, r"none twice"),
    "revision": ({"revision": "main"}, ValueError, r"`revision` 'main' was given for the local folder"),
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_wrong_argument_is_named(v30, name):
    arguments, error, message = WRONG_ARGUMENTS[name]
    with pytest.raises(error, match=message):
        LeRobotDataset(v30, **arguments)


def test_names_that_are_no_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        LeRobotDataset(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="neither a local folder nor a dataset repo"):
        LeRobotDataset(str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="is not the root of a LeRobot dataset"):
        LeRobotDataset(tmp_path)


def test_v21_damage_is_named_with_its_line(tmp_path):
    root = write_v21(tmp_path / "old")
    path = root / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    for line, message in (
        ('{"episode_index": "../0", "tasks": [], "length": 7}', r"line 1: episode_index is '../0', expected int"),
        ('{"episode_index": 2, "tasks": [], "length": 7}', r"line 3: episode_index 2 appears a second time"),
        ("{", r"line 1, is not valid JSON"),
        (lines[0].replace("7", "6"), r"total_frames = 16, but the episode table adds up to 15"),
    ):
        path.write_text("\n".join([line, *lines[1:]]))
        with pytest.raises(ValueError, match=message):
            LeRobotDataset(root)


def changed(**changes) -> dict:
    return make_episode(3, 0) | changes


REFUSED_EPISODES = {
    "empty task": (" ", changed(), r"`task` is empty"),
    "missing feature": ("t", {"action": np.zeros((3, 4))}, r"`frames` holds \['action'\], expected exactly"),
    "unequal": ("t", changed(action=np.zeros((2, 4), np.float32)), r"equally many frames"),
    "empty": ("t", {key: array[:0] for key, array in changed().items()}, r"at least one"),
    "wrong shape": (
        "t",
        changed(action=np.zeros((3, 7), np.float32)),
        r"'action' has shape \(3, 7\), expected \(frames, 4\)",
    ),
    "wrong kind": ("t", changed(action=np.zeros((3, 4), complex)), r"'action' has dtype complex128, expected float32"),
    "float image": (
        "t",
        changed(**{"observation.image": np.zeros((3, HEIGHT, WIDTH, 3))}),
        r"'observation.image' has dtype float64, expected uint8",
    ),
    "NaN": ("t", changed(action=np.full((3, 4), np.nan)), r"'action' is nan at frame 0"),
    "overflow": ("t", changed(action=np.full((3, 4), 1e300)), r"'action' is inf at frame 0"),
}


@pytest.mark.parametrize("name", REFUSED_EPISODES)
def test_refused_episode_leaves_the_dataset_as_it_was(tmp_path, name):
    task, frames, message = REFUSED_EPISODES[name]
    writer = LeRobotWriter(tmp_path / "d", fps=FPS, features=FEATURES, robot_type="x")
    writer.add_episode(TASKS[0], RECORDED[0])
    with pytest.raises(ValueError, match=message):
        writer.add_episode(task, frames)
    writer.add_episode(TASKS[1], RECORDED[1])
    dataset = LeRobotDataset(writer.finalize())
    assert_holds_recorded(dataset, episodes=[0, 1])
    assert dataset.info["total_tasks"] == 2


def test_integers_that_do_not_fit(tmp_path):
    features = {"action": {"dtype": "float32", "shape": (1,)}, "button": {"dtype": "int8", "shape": (1,)}}
    writer = LeRobotWriter(tmp_path / "d", fps=FPS, features=features, robot_type="x")
    with pytest.raises(ValueError, match="'button' holds numbers that do not fit int8"):
        writer.add_episode("t", {"action": np.zeros((1, 1)), "button": np.array([[300]])})


WRITER_ARGUMENTS = {
    "fps": ({"fps": 0}, r"`fps` is 0"),
    "file size": ({"max_file_size_mb": 0}, r"`max_file_size_mb` is 0"),
    "conventions": ({"conventions": {"size": np.int64(3)}}, r"`conventions` cannot be written as JSON"),
    "reserved": ({"features": {"index": {"dtype": "int64", "shape": (1,)}}}, r"'index' cannot be used"),
    "slash": ({"features": {"a/b": {"dtype": "int64", "shape": (1,)}}}, r"'a/b' cannot be used"),
    "no shape": ({"features": {"action": {"dtype": "float32"}}}, r"lacks 'shape'"),
    "dtype": ({"features": {"action": {"dtype": "text", "shape": (4,)}}}, r"dtype 'text' is unknown"),
    "grey image": ({"features": {"i": {"dtype": "image", "shape": (4, 4, 1)}}}, r"expected \(height, width, 3\)"),
    "rank": ({"features": {"action": {"dtype": "float32", "shape": ()}}}, r"expected 1 to 5 positive sizes"),
}


@pytest.mark.parametrize("name", WRITER_ARGUMENTS)
def test_wrong_writer_argument_is_named(tmp_path, name):
    arguments, message = WRITER_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        LeRobotWriter(tmp_path / "d", **({"fps": FPS, "features": FEATURES, "robot_type": "x"} | arguments))
    assert not (tmp_path / "d").exists()


def test_writer_lifecycle(tmp_path):
    arguments = {"fps": FPS, "features": FEATURES, "robot_type": "x"}
    root = tmp_path / "d"
    writer = LeRobotWriter(root, **arguments)
    with pytest.raises(ValueError, match="No episode was added"):
        writer.finalize()
    writer.add_episode(TASKS[0], RECORDED[0])
    with pytest.raises(FileNotFoundError, match="was not finalised"):
        LeRobotDataset(root)
    writer.finalize()
    with pytest.raises(RuntimeError, match="finalised"):
        writer.add_episode(TASKS[0], RECORDED[0])
    with pytest.raises(RuntimeError, match="already finalised"):
        writer.finalize()
    with pytest.raises(FileExistsError, match=re.escape(str(root))):
        LeRobotWriter(root, **arguments)


def test_features_of_every_rank_and_dtype(tmp_path):
    features = {
        "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "pose": {"dtype": "float64", "shape": (2, 3)},
        "reward": {"dtype": "float32", "shape": (1,)},
        "done": {"dtype": "bool", "shape": (1,)},
    }
    rng = np.random.default_rng(0)
    frames = {
        "action": rng.normal(size=(4, 2)),
        "pose": rng.normal(size=(4, 2, 3)),
        "reward": np.arange(4)[:, None],
        "done": np.array([[False], [False], [False], [True]]),
    }
    writer = LeRobotWriter(tmp_path / "d", fps=FPS, features=features, robot_type="x")
    writer.add_episode("t", frames)
    root = writer.finalize()
    loaded = datasets.load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(loaded["pose"][:], frames["pose"])
    assert loaded["reward"][:] == [0, 1, 2, 3]
    assert loaded["done"][:] == [False, False, False, True]
    stats = json.loads((root / "meta/stats.json").read_text())
    assert np.shape(stats["pose"]["q50"]) == (3,)
    assert stats["done"]["mean"] == [0.25]
    dataset = LeRobotDataset(root, state_key="reward")
    np.testing.assert_array_equal(dataset[3]["state"], [3])
    assert dataset.info["features"]["action"]["names"] == ["x", "y"]
    assert LeRobotDataset(root)[0]["state"].shape == (0,)
    with pytest.raises(ValueError, match="without cameras"):
        dataset.frame(0)
