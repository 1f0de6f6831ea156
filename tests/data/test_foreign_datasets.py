# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Datasets as other writers and LeRobot's own tools leave them: read as they are meant, or refused with what to do."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.numbered_dataset import TASKS, TOP, write_v21_by_hand, write_v30_by_hand
from nora15_hf.actions import ActionStatistics
from nora15_hf.actions.float32_precision import check_held
from nora15_hf.data import LeRobotDataset, LeRobotStream, LeRobotWriter, compute_statistics

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
SIZE = 8


def write_small(root: Path, state: tuple[int, ...] = (3,), dtype: str = "float32", **options) -> Path:
    """Three episodes of six frames, one camera."""
    features = {
        "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
        "observation.state": {"dtype": dtype, "shape": state},
        "action": {"dtype": dtype, "shape": (2,), "names": ["x", "y"]},
    }
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="arm", **options)
    for episode in range(3):
        frames = {
            "observation.image": np.full((6, SIZE, SIZE, 3), episode, np.uint8),
            "observation.state": np.full((6, *state), episode, dtype),
            "action": (10 * episode + np.arange(12).reshape(6, 2)).astype(dtype),
        }
        writer.add_episode(f"task {episode % 2}", frames)
    return writer.finalize()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_small(tmp_path_factory.mktemp("foreign") / "small", conventions={"gripper": "1 = open"})


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> Path:
    return write_v30_by_hand(tmp_path_factory.mktemp("foreign") / "v30")


@pytest.fixture
def copied(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def edit_info(root: Path, change: Callable[[dict], object]) -> Path:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    return root


def edit_parquet(root: Path, file: str, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(root / file)), root / file)


def set_value(root: Path, name: str, row: int, value) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))

    edit_parquet(root, DATA, change)


def as_doubles(table: pa.Table) -> pa.Table:
    """As pandas stores integers of a column that once had a gap."""
    for number, field in enumerate(table.schema):
        if pa.types.is_integer(field.type):
            table = table.set_column(number, field.name, table[field.name].cast(pa.float64()))
    return table


def same_samples(found: LeRobotDataset, expected: LeRobotDataset) -> None:
    assert found.episodes["tasks"] == expected.episodes["tasks"]
    for ours, theirs in zip((found[0], found[len(found) - 1]), (expected[0], expected[len(found) - 1]), strict=True):
        np.testing.assert_array_equal(ours["images"], theirs["images"])
        np.testing.assert_array_equal(ours["actions"], theirs["actions"])
        assert {key: ours[key] for key in ("instruction", "index")} == {
            key: theirs[key] for key in ("instruction", "index")
        }


# Layout v2


def rewrite_lines(root: Path, name: str, change: Callable[[dict], dict], join: Callable[[Iterable[str]], str]) -> None:
    path = root / f"meta/{name}.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_bytes(join(json.dumps(row, ensure_ascii=False) for row in rows).encode())


JSON_LINES = {
    "blank last line": lambda lines: "\n".join(lines) + "\n\n",
    "blank lines between": lambda lines: "\n \n".join(lines),
    "Windows line ends": lambda lines: "\r\n".join(lines) + "\r\n",
    "byte order mark": lambda lines: "\ufeff" + "\n".join(lines),
}


@pytest.fixture(scope="module")
def v21(tmp_path_factory) -> Path:
    return write_v21_by_hand(tmp_path_factory.mktemp("foreign") / "v21")


@pytest.mark.parametrize("join", JSON_LINES.values(), ids=JSON_LINES.keys())
def test_json_lines_of_other_writers(v21, tmp_path, join):
    root = Path(shutil.copytree(v21, tmp_path / "copy"))
    for name in ("tasks", "episodes"):
        rewrite_lines(root, name, lambda row: row, join)
    same_samples(LeRobotDataset(root), LeRobotDataset(v21))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x1e"])
def test_texts_with_line_separators_of_unicode(v21, tmp_path, separator):
    root = Path(shutil.copytree(v21, tmp_path / "copy"))
    path = root / "meta/tasks.jsonl"
    # Control characters must be escaped in JSON; others are often written as they are.
    text = json.dumps(f"open{separator}it", ensure_ascii=separator < " ")
    path.write_text(path.read_text().replace('"open the drawer"', text, 1), encoding="utf-8")
    assert LeRobotDataset(root)[0]["instruction"] == f"open{separator}it"


def test_v20_is_read_as_v21(v21, tmp_path):
    root = Path(shutil.copytree(v21, tmp_path / "copy"))
    edit_info(root, lambda info: info.update(codebase_version="v2.0"))
    same_samples(LeRobotDataset(root), LeRobotDataset(v21))


def test_integers_stored_as_doubles(v21, by_hand, tmp_path):
    old, new = (Path(shutil.copytree(root, tmp_path / root.name)) for root in (v21, by_hand))

    def floats(row: dict) -> dict:
        return {key: float(value) if isinstance(value, int) else value for key, value in row.items()}

    for name in ("tasks", "episodes"):
        rewrite_lines(old, name, floats, "\n".join)
    for root in (old, new):
        edit_info(root, lambda info: info.update(floats(info) | {"fps": info["fps"]}))
        edit_info(root, lambda info: info["features"]["action"].update(shape=[3.0]))
        for file in [*root.rglob("data/**/*.parquet"), *root.rglob("meta/**/*.parquet")]:
            edit_parquet(root, file.relative_to(root).as_posix(), as_doubles)
    same_samples(LeRobotDataset(old), LeRobotDataset(v21))
    same_samples(LeRobotDataset(new), LeRobotDataset(by_hand))


def test_fractions_are_no_integers(by_hand, tmp_path):
    root = Path(shutil.copytree(by_hand, tmp_path / "copy"))
    half = pa.array([0.5, 1, 2, 3])
    edit_parquet(root, EPISODES, lambda table: table.set_column(0, "episode_index", half))
    with pytest.raises(
        ValueError, match=r"file-000.parquet: column 'episode_index' is double with fractions, expected integers"
    ):
        LeRobotDataset(root)


# Episode tables


def test_episode_tables_without_tasks(by_hand, tmp_path):
    root = Path(shutil.copytree(by_hand, tmp_path / "copy"))
    edit_parquet(root, EPISODES, lambda table: table.drop_columns(["tasks"]))
    same_samples(LeRobotDataset(root), LeRobotDataset(by_hand))
    chosen = LeRobotDataset(root, episodes=[1, 3]).episodes["tasks"]
    assert chosen == [[TASKS[1]], [TASKS[3]]]


def move_episode(root: Path, row: int, seconds: float) -> None:
    def change(table: pa.Table) -> pa.Table:
        for name in ("from_timestamp", "to_timestamp"):
            column = f"videos/{TOP}/{name}"
            values = table[column].to_pylist()
            values[row] += seconds
            table = table.set_column(table.column_names.index(column), column, pa.array(values))
        return table

    edit_parquet(root, EPISODES, change)


# Episode 0 has nine frames of 0.04 s, episode 1 follows in the same file.
@pytest.mark.parametrize(
    ("row", "seconds", "message"),
    [
        (
            1,
            -0.36,
            rf"row 1: video '{TOP}' begins at 0 s of .*file-000.mp4, where the 9 frames of the episode in .*row 0",
        ),
        (1, -0.04, rf"row 1: video '{TOP}' begins at 0.32 s .*the two would share frames. Correct from_timestamp"),
        (
            1,
            0.04,
            rf"row 0: video '{TOP}': .*file-000.mp4 ends at 0.52 s, before the frames that the episode table expects",
        ),
    ],
    ids=["same start", "one frame early", "beyond the end"],
)
def test_stretches_of_video_hold_their_own_frames(by_hand, tmp_path, row, seconds, message):
    root = Path(shutil.copytree(by_hand, tmp_path / "copy"))
    move_episode(root, row, seconds)
    with pytest.raises(ValueError, match=message):
        LeRobotDataset(root)
    assert len(LeRobotDataset(by_hand, image_keys=[TOP])) > 0


# Rows


def test_a_bad_row_blocks_only_its_own_episode(copied):
    set_value(copied, "action", 7, [float("nan"), 0.0])
    with pytest.raises(ValueError, match=r"row 7: dimension 0 of 'action' is nan"):
        LeRobotDataset(copied)
    for arguments in (
        {"episodes": [0, 2]},
        {"skip_bad_episodes": True},
        {"episodes": [0, 2], "skip_bad_episodes": True},
    ):
        dataset = LeRobotDataset(copied, **arguments)
        assert dataset.episodes["index"].tolist() == [0, 2]
        assert dataset[6]["index"] == 12
        assert dataset[6]["images"][0].max() == 2
    assert {sample["episode_index"] for sample in LeRobotStream(copied, episodes=[0, 2])} == {0, 2}
    with pytest.raises(ValueError, match=r"row 7: dimension 0"):
        LeRobotDataset(copied, episodes=[1, 2])


def test_no_state_is_read_with_none(copied, tmp_path):
    set_value(copied, "observation.state", 4, [0.0, float("nan"), 0.0])
    with pytest.raises(ValueError, match=r"row 4: dimension 1 of 'observation.state' is nan.*`state_key=None`"):
        LeRobotDataset(copied)
    matrix = write_small(tmp_path / "matrix", state=(7, 1))
    with pytest.raises(ValueError, match=r"shape \(7, 1\), expected a numeric vector .*or `None` for no state"):
        LeRobotDataset(matrix)
    for root in (copied, matrix):
        dataset = LeRobotDataset(root, state_key=None)
        assert (dataset.num_episodes, dataset.state_key, dataset.state_dim, dataset[0]["state"].shape) == (
            3,
            None,
            0,
            (0,),
        )
        assert set(compute_statistics(dataset)) == {"action"}
    edit_info(copied, lambda info: info["features"].pop("observation.state"))
    assert LeRobotDataset(copied).state_key is None


LARGE = {
    "large offset": ("float64", lambda values: values + 5e8),
    "ticks of a clock": ("int64", lambda values: values.astype(np.int64) + 1_700_000_000_000_000_000),
    "one dimension": ("float64", lambda values: values + 1e9 * (np.arange(values.shape[1]) == 1)),
}


@pytest.mark.parametrize(("dtype", "change"), LARGE.values(), ids=LARGE.keys())
@pytest.mark.parametrize("key", ["action", "observation.state"])
def test_values_that_float32_cannot_tell_apart_are_refused(tmp_path, dtype, change, key):
    root = write_small(tmp_path / "large", dtype=dtype)
    values = change(np.random.default_rng(0).integers(0, 20, (18, 2 if key == "action" else 3)).astype(np.float64))
    edit_parquet(
        root, DATA, lambda table: table.set_column(table.column_names.index(key), key, pa.array(values.tolist()))
    )
    with pytest.raises(
        ValueError, match=rf"'{key}', dimension \d, holds values from .*Record the feature relative to an offset"
    ):
        LeRobotDataset(root)


def test_outliers_do_not_hide_lost_differences():
    values = 5e8 + np.random.default_rng(0).uniform(0, 20, (300, 1))
    values[3] = 0
    with pytest.raises(ValueError, match=r"here, dimension 0, holds values from 0 to .* usual range .* of 19"):
        check_held(values, values.astype(np.float32), "here")


@pytest.mark.parametrize(
    "values",
    [
        1.7e9 + np.random.default_rng(0).normal(size=(50, 2)),
        1_700_000_000_000_000_000 + 33_333_333 * np.arange(100).reshape(50, 2),
    ],
    ids=["doubles", "nanoseconds"],
)
def test_statistics_are_no_constant_of_what_float32_cannot_hold(values):
    with pytest.raises(ValueError, match=r"`actions`, dimension 0, holds values .* Rounded to float32"):
        ActionStatistics.from_actions(values)


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_unsigned_counts_are_compared_as_numbers(dtype):
    counts = np.random.default_rng(0).integers(0, 10**8, (200, 2)).astype(dtype)
    check_held(counts, counts.astype(np.float32), "here")
    assert ActionStatistics.from_actions(counts).max.max() <= 10**8


SMALL = {
    "doubles": ("float64", lambda values: values / 10),
    "a joint that rests": ("float64", lambda values: 1.5707963 + 1e-9 * values),
    "a large constant": ("float64", lambda values: 0 * values + 123456789.0),
    "counts of an encoder": ("int64", lambda values: (100_000 + 10 * values).astype(np.int64)),
}


@pytest.mark.parametrize(("dtype", "change"), SMALL.values(), ids=SMALL.keys())
def test_values_that_float32_holds_are_read(tmp_path, dtype, change):
    root = write_small(tmp_path / "small", dtype=dtype)
    values = change(np.random.default_rng(0).integers(0, 20, (18, 2)).astype(np.float64))
    edit_parquet(
        root,
        DATA,
        lambda table: table.set_column(table.column_names.index("action"), "action", pa.array(values.tolist())),
    )
    np.testing.assert_array_equal(LeRobotDataset(root).all_actions(), values.astype(np.float32))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (DATA, "file-000.parquet cannot be read"),
        ("meta/info.json", "info.json is not valid JSON"),
        ("meta/tasks.parquet", "tasks.parquet cannot be read"),
    ],
)
def test_pointer_files_of_git_lfs_are_named(copied, file, message):
    (copied / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ValueError, match=f"{message}.*Git LFS pointer .*run `git lfs pull`"):
        LeRobotDataset(copied)


# Cameras

DEPTH = {
    "one channel": {"shape": [SIZE, SIZE, 1], "info": {"is_depth_map": True}},
    "three channels": {"shape": [SIZE, SIZE, 3], "info": {"is_depth_map": True}},
    "the former key": {"shape": [SIZE, SIZE, 3], "info": {"video.is_depth_map": True}},
    "the first place": {"shape": [SIZE, SIZE, 3], "video_info": {"video.is_depth_map": True}},
    "one channel without a word": {"shape": [SIZE, SIZE, 1]},
    "channels first": {"shape": [1, SIZE, SIZE], "names": ["channels", "height", "width"]},
}


@pytest.mark.parametrize("description", DEPTH.values(), ids=DEPTH.keys())
def test_depth_cameras_are_never_taken_for_colour(copied, caplog, description):
    depth = {"observation.depth": {"dtype": "image", "names": None} | description}
    edit_info(copied, lambda info: info.update(features=depth | info["features"]))
    dataset = LeRobotDataset(copied)
    assert dataset.image_keys == ["observation.image"]
    assert dataset[0]["images"][0].shape == (SIZE, SIZE, 3)
    (said,) = [record.message for record in caplog.records]
    assert "camera 'observation.depth' is left out" in said
    with pytest.raises(ValueError, match=r"`image_keys` 'observation.depth' .*with colour images: observation.image"):
        LeRobotDataset(copied, image_keys=["observation.depth"])


# LeRobot as a peer


def test_conventions_outlive_the_edits_of_lerobot(copied):
    """LeRobot's tools keep the entries of `features` word for word, and drop keys beside them."""
    edit_info(copied, lambda info: info.pop("nora15_conventions"))
    assert LeRobotDataset(copied).conventions == {"gripper": "1 = open"}


def test_what_holds_for_one_recording_is_gone_after_an_edit(tmp_path):
    options = {"conventions": {"camera": "top"}, "recording": {"seeds": [0, 1, 2]}}
    root = write_small(tmp_path / "recorded", **options)
    assert LeRobotDataset(root).conventions == {"camera": "top", "seeds": [0, 1, 2]}
    edit_info(root, lambda info: info.pop("nora15_conventions"))
    assert LeRobotDataset(root).conventions == {"camera": "top"}


def test_statistics_have_the_shapes_of_lerobot(tmp_path):
    features = {"tactile": {"dtype": "float32", "shape": (3, 4)}, "action": {"dtype": "float32", "shape": (2,)}}
    writer = LeRobotWriter(tmp_path / "tactile", fps=10, features=features, robot_type="arm")
    tactile = np.random.default_rng(0).normal(size=(8, 3, 4)).astype(np.float32)
    writer.add_episode("touch", {"tactile": tactile, "action": np.zeros((8, 2), np.float32)})
    root = writer.finalize()
    stored = json.loads((root / "meta/stats.json").read_text())["tactile"]
    assert stored["count"] == [8]
    np.testing.assert_allclose(stored["mean"], tactile.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(stored["q90"], np.quantile(tactile.reshape(-1, 4), 0.9, axis=0), rtol=1e-6)
    assert len(pq.read_table(root / EPISODES)["stats/tactile/max"][0]) == 4


@pytest.mark.parametrize("stored", ["executed_action", "action.executed"])
@pytest.mark.parametrize("asked", ["executed_action", "action.executed"])
def test_executed_actions_by_their_present_and_former_name(tmp_path, stored, asked):
    features = {name: {"dtype": "float32", "shape": (2,)} for name in ("action", stored)}
    writer = LeRobotWriter(tmp_path / "d", fps=10, features=features, robot_type="arm")
    executed = np.arange(8, dtype=np.float32).reshape(4, 2)
    writer.add_episode("push", {"action": np.zeros((4, 2), np.float32), stored: executed})
    dataset = LeRobotDataset(writer.finalize(), action_key=asked)
    np.testing.assert_array_equal(dataset.all_actions(), executed)
    np.testing.assert_array_equal(LeRobotDataset(dataset.root).column(asked), executed)


def test_the_writer_loses_no_digits(tmp_path):
    features = {"action": {"dtype": "float32", "shape": (1,)}}
    writer = LeRobotWriter(tmp_path / "d", fps=10, features=features, robot_type="arm")
    for ticks in (1e9 + np.arange(8.0)[:, None], np.arange(10**9, 10**9 + 8)[:, None]):
        with pytest.raises(
            ValueError, match=r"`frames` 'action', dimension 0, holds values from .* relative to an offset"
        ):
            writer.add_episode("push", {"action": ticks})
    writer.add_episode("push", {"action": np.arange(8)[:, None] / 10})
