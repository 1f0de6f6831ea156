# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Video cameras of LeRobot datasets: every frame by its own number, worker processes, writing, damage."""

import json
import multiprocessing
import pickle
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.numbered_dataset import (
    ACTIONS,
    FPS,
    HEIGHT,
    LENGTHS,
    START,
    STATES,
    TASKS,
    TOP,
    WIDTH,
    WRIST,
    numbered_frames,
    read_number,
    write_mp4,
    write_v21_by_hand,
    write_v30,
    write_v30_by_hand,
)
from helpers.warm_processes import FORKSERVER
from nora15_hf.data import LeRobotDataset, LeRobotStream, LeRobotWriter, lerobot_download
from nora15_hf.data.video_decoder import VideoDecoder, VideoDecoders

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'nora15_hf[video]'")

ORDER = np.random.default_rng(0).permutation(sum(LENGTHS)).tolist()
LAYOUTS = {
    "v2.1, video and image": write_v21_by_hand,
    "v2.1, two videos": lambda root: write_v21_by_hand(root, wrist_images=False),
    "v3.0, by hand": write_v30_by_hand,
    "v3.0, h264 and image": write_v30,
    "v3.0, two av1": lambda root: write_v30(root, wrist="video", video_codec="av1"),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory) -> Path:
    return LAYOUTS[request.param](tmp_path_factory.mktemp("video") / "numbers")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_v30(tmp_path_factory.mktemp("video") / "numbers")


@pytest.fixture
def copied(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def check_samples(dataset: LeRobotDataset, positions: list[int], numbers: list[int] | None = None) -> None:
    """Both cameras, state and action of each position, against the number the frame must show."""
    for place, position in enumerate(positions):
        number = position if numbers is None else numbers[place]
        sample = dataset[position]
        assert [read_number(image) for image in sample["images"]] == [(number, 0), (number, 1)]
        assert sample["index"] == number
        episode = int(np.searchsorted(START, number, side="right")) - 1
        assert (sample["episode_index"], sample["frame_index"]) == (episode, number - START[episode])
        assert sample["instruction"] == TASKS[episode]
        np.testing.assert_array_equal(sample["state"], STATES[number])
        valid = sample["action_mask"].sum()
        assert valid == min(dataset.chunk_size, START[episode + 1] - number)
        np.testing.assert_array_equal(sample["actions"][:valid], ACTIONS[number : number + valid])
        np.testing.assert_array_equal(
            sample["actions"][valid:], np.repeat(ACTIONS[[START[episode + 1] - 1]], 5 - valid, 0)
        )


@pytest.mark.parametrize("cache_images", [True, False])
def test_every_frame_of_every_layout(layout, cache_images):
    dataset = LeRobotDataset(layout, cache_images=cache_images)
    assert len(dataset) == sum(LENGTHS)
    check_samples(dataset, list(range(len(dataset))))
    check_samples(dataset, ORDER)


def test_selected_episodes_of_every_layout(layout):
    dataset = LeRobotDataset(layout, episodes=[5, 1, 3], cache_images=False)
    numbers = [*range(9, 13), 26, *range(33, 41)]
    check_samples(dataset, list(range(13)), numbers)
    assert read_number(dataset.frame(dataset.last_frame_index(0))) == (12, 0)
    assert read_number(dataset.frame(dataset.subgoal_index(6, 3), WRIST)) == (37, 1)
    train, validation = dataset.split_by_episode(0.3, seed=0)
    assert sorted([len(train), len(validation)]) in ([1, 12], [4, 9], [5, 8])


def test_files_hold_what_the_tables_say(written):
    """The writer's files, counted by PyAV and pyarrow alone: several episodes per file and several files."""
    table = pq.read_table(written / "meta/episodes/chunk-000/file-000.parquet").to_pandas()
    for kind, prefix in (("videos", f"videos/{TOP}/"), ("data", "data/")):
        per_file = table.groupby(f"{prefix}file_index")["length"].agg(["count", "sum"])
        assert len(per_file) > 1
        assert per_file["count"].max() > 1
        for number, frames in per_file["sum"].items():
            if kind == "data":
                assert pq.read_metadata(written / f"data/chunk-000/file-{number:03d}.parquet").num_rows == frames
            else:
                with av.open(str(written / f"videos/{TOP}/chunk-000/file-{number:03d}.mp4")) as container:
                    stream = container.streams.video[0]
                    assert stream.average_rate == FPS
                    times = [frame.time for frame in container.decode(stream)]
                np.testing.assert_allclose(times, np.arange(frames) / FPS, atol=1e-6)
    starts = table.groupby(f"videos/{TOP}/file_index")[f"videos/{TOP}/from_timestamp"].min()
    assert (starts == 0).all()
    np.testing.assert_allclose(
        (table[f"videos/{TOP}/to_timestamp"] - table[f"videos/{TOP}/from_timestamp"]) * FPS, LENGTHS
    )
    info = json.loads((written / "meta/info.json").read_text())
    assert info["video_path"].format(video_key=TOP, chunk_index=0, file_index=1) == (
        f"videos/{TOP}/chunk-000/file-001.mp4"
    )
    assert info["features"][TOP]["info"]["video.fps"] == FPS
    assert TOP not in pq.read_schema(written / "data/chunk-000/file-000.parquet").names
    stats = json.loads((written / "meta/stats.json").read_text())[TOP]
    pixels = np.concatenate([numbered_frames(episode, 0) for episode in range(len(LENGTHS))]) / 255
    np.testing.assert_allclose(np.ravel(stats["mean"]), pixels.mean(axis=(0, 1, 2)), rtol=1e-12)


def test_pictures_survive_compression(written):
    frames = LeRobotDataset(written).episode_arrays(2)[0].astype(int)
    assert np.abs(frames - numbered_frames(2, 0)).mean() < 8


@pytest.mark.parametrize(
    ("context", "workers"), [(multiprocessing.get_context("fork"), 2), (FORKSERVER, 1)], ids=["forked", "pickled"]
)
@pytest.mark.slow
def test_workers_open_their_own_decoders(written, context, workers):
    dataset = LeRobotDataset(written, cache_images=False)
    check_samples(dataset, [20])  # a decoder is open when the workers start
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, sampler=ORDER, num_workers=workers, multiprocessing_context=context
    )
    shown = [[read_number(image.numpy()) for image in sample["images"]] for sample in loader]
    assert shown == [[(number, 0), (number, 1)] for number in ORDER]
    check_samples(dataset, [21, 3])
    check_samples(pickle.loads(pickle.dumps(dataset)), [5])


def test_a_forked_process_does_not_share_the_place_in_a_file(written):
    file = f"videos/{TOP}/chunk-000/file-000.mp4"
    decoders = VideoDecoders(written, FPS)
    inherited = decoders.get(file, (HEIGHT, WIDTH))
    context = multiprocessing.get_context("fork")
    reply = context.SimpleQueue()
    process = context.Process(target=lambda: reply.put(decoders.get(file, (HEIGHT, WIDTH)) is inherited))
    process.start()
    assert reply.get() is False
    process.join()
    assert decoders.get(file, (HEIGHT, WIDTH)) is inherited


def test_hub_fetches_only_the_videos_needed(written, tmp_path, monkeypatch):
    """A stand-in for the Hub: copies the matching files into a snapshot folder named after a commit."""
    snapshot = tmp_path / "snapshots" / "c0ffee"

    def snapshot_download(repo_id, *, repo_type, revision, token, allow_patterns):
        for path in written.rglob("*.*"):
            name = path.relative_to(written).as_posix()
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, snapshot / name)
        return str(snapshot)

    def fetched() -> list[str]:
        return sorted(
            path.name
            for path in snapshot.rglob("*")
            if path.suffix in (".mp4", ".parquet") and "meta" not in path.parts
        )

    monkeypatch.setattr(lerobot_download, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    assert LeRobotDataset("some/numbers", image_keys=[WRIST], episodes=[0]).revision == "c0ffee"
    assert fetched() == ["file-000.parquet"]
    check_samples(LeRobotDataset("some/numbers", episodes=[0]), [8])
    assert fetched() == ["file-000.mp4", "file-000.parquet"]
    stream = LeRobotStream("some/numbers", episodes=[3, 5], shuffle_buffer_size=0)
    assert fetched() == ["file-000.mp4", "file-000.parquet"]
    assert read_number(next(iter(stream))["images"][0]) == (26, 0)
    assert fetched() == ["file-000.mp4", "file-000.parquet", "file-002.mp4"]
    check_samples(LeRobotDataset("some/numbers"), ORDER)
    assert len(fetched()) == 6


def test_only_the_latest_decoders_stay_open(layout):
    dataset = LeRobotDataset(layout, cache_images=False)
    files = sorted(path.relative_to(layout).as_posix() for path in layout.rglob("*.mp4"))
    decoders = VideoDecoders(layout, FPS, kept=1)
    first = decoders.get(files[0], (HEIGHT, WIDTH))
    assert decoders.get(files[0], (HEIGHT, WIDTH)) is first
    decoders.get(files[1], (HEIGHT, WIDTH))
    assert decoders.get(files[0], (HEIGHT, WIDTH)) is not first
    check_samples(dataset, [0, 20, 0])


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    frames = np.concatenate([numbered_frames(episode, 2) for episode in range(len(LENGTHS))])
    write_mp4(path, frames)
    return path, len(frames)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_of_times_gives_the_nearest_frame(long_video, data):
    path, count = long_video
    decoder = VideoDecoder(path, FPS, (HEIGHT, WIDTH))
    numbers = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8))
    for number in numbers:
        shift = data.draw(st.floats(-0.4, 0.4)) / FPS
        assert read_number(decoder.frame_at(number / FPS + shift)) == (number, 2)
    with pytest.raises(ValueError, match=r"no frame within half a frame of .* ends before it"):
        decoder.frame_at((count + 1) / FPS)
    assert read_number(decoder.frame_at(numbers[0] / FPS)) == (numbers[0], 2)
    decoder.close()


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_episodes(root: Path, name: str, row: int, value) -> None:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table[name].to_pylist()
    values[row] = value
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), path)


def set_shape(root: Path, shape: list[int]) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[TOP]["shape"] = shape
    edit_info(root, features=features)


def rename_camera(root: Path, name: str) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    edit_info(root, features={name if key == TOP else key: feature for key, feature in features.items()})


def video(root: Path) -> Path:
    return root / f"videos/{TOP}/chunk-000/file-000.mp4"


def truncate(root: Path) -> None:
    video(root).write_bytes(video(root).read_bytes()[:500])


FIRST = rf"file-000.parquet, row 0: video '{re.escape(TOP)}': .*file-000.mp4 "
DAMAGED = {
    "missing": (lambda root: video(root).unlink(), FileNotFoundError, FIRST + "is missing"),
    "truncated": (truncate, ValueError, FIRST + "cannot be opened as a video .*not finalised"),
    "no video": (lambda root: video(root).write_text("hello"), ValueError, FIRST + "cannot be opened as a video"),
    "other rate": (
        lambda root: write_mp4(video(root), numbered_frames(0, 0), fps=10),
        ValueError,
        FIRST + r"has 10 frames per second, meta/info.json says 25. Correct fps",
    ),
    "other size": (
        lambda root: set_shape(root, [64, 96, 3]),
        ValueError,
        FIRST + "has frames of 32 x 48, meta/info.json says 64 x 96",
    ),
    "no path": (lambda root: edit_info(root, video_path=None), ValueError, "video_path is None, expected a path"),
    "path upwards": (
        lambda root: edit_info(root, video_path="../{video_key}/{chunk_index}-{file_index}.mp4"),
        ValueError,
        "video_path .* leaves the dataset's folder",
    ),
    "path by attribute": (
        lambda root: edit_info(root, video_path="{video_key.__class__}.mp4"),
        ValueError,
        "uses video_key.__class__; v3.0 knows chunk_index, file_index, video_key",
    ),
    "key with a folder": (
        lambda root: rename_camera(root, "a/b"),
        ValueError,
        r"video feature 'a/b' cannot be part of",
    ),
    "key upwards": (
        lambda root: rename_camera(root, ".."),
        ValueError,
        r"video feature '..' cannot be part of a path",
    ),
    "file as text": (
        lambda root: pq.write_table(
            (table := pq.read_table(path := root / "meta/episodes/chunk-000/file-000.parquet")).set_column(
                table.column_names.index(f"videos/{TOP}/file_index"),
                f"videos/{TOP}/file_index",
                pa.array(["../x"] * len(table)),
            ),
            path,
        ),
        ValueError,
        "file_index' is string .*expected integers",
    ),
    "too little video": (
        lambda root: edit_episodes(root, f"videos/{TOP}/to_timestamp", 2, 0.3),
        ValueError,
        rf"file-000.parquet, row 2: video '{re.escape(TOP)}' runs from .* to 0.3 s, but 13 frames at 25 fps take 0.52 s",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_video_is_named(copied, name):
    damage, error, message = DAMAGED[name]
    damage(copied)
    with pytest.raises(error, match=message):
        LeRobotDataset(copied, cache_images=False)[0]


def test_video_cut_short_in_the_middle(tmp_path):
    """With its index in front, a video opens although its end is missing."""
    root = write_v21_by_hand(tmp_path / "old")
    path = root / f"videos/chunk-001/{TOP}/episode_000002.mp4"
    write_mp4(path, numbered_frames(2, 0)[:10])
    dataset = LeRobotDataset(root, cache_images=False)
    check_samples(dataset, [13, 22])
    with pytest.raises(
        ValueError, match=r"episode_000002.parquet, row 10: video .* no frame within half a frame of 0.4 s"
    ):
        dataset[23]
    check_samples(dataset, [14])


def test_damage_inside_a_video(copied):
    content = bytearray(video(copied).read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin : begin + 200] = b"\xff" * 200
    video(copied).write_bytes(content)
    with pytest.raises(ValueError, match=FIRST + r"(cannot be decoded|has no frame)"):
        LeRobotDataset(copied, cache_images=False)[0]


def test_damage_of_a_camera_left_out_does_not_matter(copied):
    video(copied).unlink()
    dataset = LeRobotDataset(copied, image_keys=[WRIST])
    assert read_number(dataset[7]["images"][0]) == (7, 1)


def test_wrong_video_features_are_refused_by_the_writer(tmp_path):
    def writer(shape, **options):
        features = {TOP: {"dtype": "video", "shape": shape}}
        return LeRobotWriter(tmp_path / "d", fps=FPS, features=features, robot_type="x", **options)

    with pytest.raises(ValueError, match="Use an even height and width"):
        writer((31, 48, 3))
    with pytest.raises(ValueError, match=r"`video_codec` is 'vp9', expected one of 'h264', 'av1'"):
        writer((32, 48, 3), video_codec="vp9")
    with pytest.raises(ValueError, match="`max_video_file_size_mb` is 0"):
        writer((32, 48, 3), max_video_file_size_mb=0)
