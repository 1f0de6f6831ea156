# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Exact statistics in blocks, differences of angles, and `nora15 stats`."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.numbered_dataset import ACTIONS, LENGTHS, STATES, write_v30
from nora15_hf import Nora15Processor
from nora15_hf.actions.exact_statistics import exact_statistics
from nora15_hf.actions.normalization import (
    ActionStatistics,
    actions_to_deltas,
    deltas_to_actions,
    load_norm_stats,
)
from nora15_hf.commands import main
from nora15_hf.data import LeRobotDataset, LeRobotWriter, PolicyCollator, compute_statistics
from nora15_hf.data.statistics_table import dataset_statistics
from nora15_hf.nora15.presets import tiny_policy

QUANTILES = (0, 0.01, 0.25, 0.5, 0.99, 1)


def in_blocks(values: np.ndarray, size: int):
    return lambda: (values[start : start + size] for start in range(0, len(values), size))


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 3)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32)
        | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, np.float32(1e-45).item()])
        | st.floats(-1, 1, width=32),
    ),
    size=st.integers(1, 50),
)
def test_statistics_equal_those_of_numpy(values, size):
    moments, quantiles = exact_statistics(in_blocks(values, size), QUANTILES)
    exact = values.astype(np.float64)
    np.testing.assert_array_equal(moments["min"], exact.min(axis=0))
    np.testing.assert_array_equal(moments["max"], exact.max(axis=0))
    # The order statistics are equal to the bit; the interpolation between them rounds differently.
    ordered = np.sort(exact, axis=0)
    for row, quantile in zip(quantiles, QUANTILES, strict=True):
        position = quantile * (len(values) - 1)
        below, above = ordered[math.floor(position)], ordered[math.ceil(position)]
        np.testing.assert_array_equal(row, below + (above - below) * (position % 1))
    np.testing.assert_allclose(
        quantiles, np.quantile(exact, QUANTILES, axis=0), rtol=1e-9, atol=1e-14 * abs(exact).max()
    )
    scale = abs(exact).max(axis=0)
    np.testing.assert_allclose(moments["mean"], exact.mean(axis=0), rtol=0, atol=1e-14 * scale.max())
    assert (abs(moments["std"] - exact.std(axis=0)) <= 1e-7 * scale).all()
    assert moments["count"] == len(values)


def test_std_far_from_zero_keeps_its_digits():
    values = np.random.default_rng(0).normal(1e4, 1e-2, (50_000, 2)).astype(np.float32)
    moments, _ = exact_statistics(in_blocks(values, 999), (0.5,))
    np.testing.assert_allclose(moments["std"], values.std(axis=0, dtype=np.float64), rtol=1e-9)


def test_constant_columns_stay_constant():
    values = np.tile(np.float32([0.1, -3.7e-5]), (1001, 1))
    found = ActionStatistics.from_blocks(in_blocks(values, 10))
    for name in ("q01", "q99", "min", "max", "mean"):
        np.testing.assert_array_equal(getattr(found, name), values[0])
    assert (found.std == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_without_a_value_are_named_across_blocks(bad):
    values = np.zeros((10, 2), np.float32)
    values[7, 1] = bad
    with pytest.raises(ValueError, match=r"first is row 7"):
        ActionStatistics.from_blocks(in_blocks(values, 3))
    with pytest.raises(ValueError, match=r"no rows"):
        ActionStatistics.from_blocks(list)


angles = st.floats(-math.pi, math.pi, exclude_max=True)


@settings(max_examples=100, deadline=None)
@example(rows=[(3.1415926535897927, 0.0)], kind="numpy")  # the last number below pi
@given(rows=st.lists(st.tuples(angles, angles), min_size=1, max_size=8), kind=st.sampled_from(["numpy", "torch"]))
def test_differences_of_angles_take_the_short_way_and_come_back(rows, kind):
    pairs = np.array(rows)
    actions = np.stack([pairs[:, 0], 10 * pairs[:, 0]], axis=1)
    state = np.stack([pairs[:, 1], 10 * pairs[:, 1]], axis=1)
    if kind == "torch":
        actions, state = torch.from_numpy(actions), torch.from_numpy(state)
    deltas = np.asarray(actions_to_deltas(actions, state, [True, True], [True, False]))
    assert (-math.pi <= deltas[:, 0]).all()
    assert (deltas[:, 0] <= math.pi).all()
    turns = (deltas[:, 0] - (pairs[:, 0] - pairs[:, 1])) / (2 * math.pi)
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-12)
    np.testing.assert_allclose(deltas[:, 1], 10 * (pairs[:, 0] - pairs[:, 1]), atol=1e-12)
    back = deltas_to_actions(
        torch.from_numpy(deltas) if kind == "torch" else deltas, state, [True, True], [True, False]
    )
    # Equal up to a whole turn, which only an angle on the seam can gain.
    error = np.asarray(back)[:, 0] - pairs[:, 0]
    assert (np.minimum(abs(error), abs(abs(error) - 2 * math.pi)) < 1e-12).all()
    np.testing.assert_allclose(np.asarray(back)[:, 1], 10 * pairs[:, 0], atol=1e-11)


def test_angles_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"`actions` is -90 in dimension 1, .*Convert degrees to radians"):
        actions_to_deltas(np.array([[0.0, -90.0]]), np.zeros((1, 2)), [True, True], [False, True])
    with pytest.raises(ValueError, match=r"`state` is 3.5 in dimension 0"):
        deltas_to_actions(np.zeros((1, 2)), np.array([[3.5, 0.0]]), [True, True], [True, False])
    for mask in ([True], [True, True]):
        with pytest.raises(ValueError, match=r"`angle_mask` .* only where `delta_mask`"):
            actions_to_deltas(np.zeros((1, 2)), np.zeros((1, 2)), [True, False], mask)
    # NaN in a state is the state's own defect.
    with pytest.raises(ValueError, match=r"`state` holds NaN"):
        actions_to_deltas(np.zeros((1, 2)), np.full((1, 2), np.nan), [True, True], [True, False])


@pytest.fixture(scope="module")
def wrist_rotation(tmp_path_factory) -> LeRobotDataset:
    """A joint that turns steadily through the seam at pi, and a gripper."""
    writer = LeRobotWriter(
        tmp_path_factory.mktemp("angles") / "arm",
        fps=10,
        features={
            "observation.image": {"dtype": "image", "shape": (84, 84, 3)},
            "observation.state": {"dtype": "float32", "shape": (2,)},
            "action": {"dtype": "float32", "shape": (2,)},
        },
        robot_type="arm",
    )
    for begin in (2.5, -1.0):
        turned = begin + 0.1 * np.arange(13)
        wrapped = (turned + math.pi) % (2 * math.pi) - math.pi
        table = np.stack([wrapped, np.arange(13) % 2], axis=1).astype(np.float32)
        image = np.zeros((12, 84, 84, 3), np.uint8)
        writer.add_episode("turn", {"observation.image": image, "observation.state": table[:-1], "action": table[1:]})
    return LeRobotDataset(writer.finalize(), chunk_size=3, dataset_key="arm")


def test_seam_does_not_widen_the_statistics(wrist_rotation):
    masks = {"delta_mask": [True, False], "angle_mask": [True, False]}
    found = compute_statistics(wrist_rotation, **masks)["action"]
    assert found.count == 2 * (12 + 11 + 10)
    np.testing.assert_allclose([found.min[0], found.max[0]], [0.1, 0.3], atol=1e-5)
    assert compute_statistics(wrist_rotation, delta_mask=[True, False])["action"].min[0] < -5
    for name, message in (("delta_mask", "3 entries for actions of 2"), ("action_mask", "3 entries for actions of 2")):
        with pytest.raises(ValueError, match=rf"`{name}` has {message}"):
            compute_statistics(wrist_rotation, **{name: [True] * 3})
    with pytest.raises(ValueError, match=r"`angle_mask` is given without `delta_mask`"):
        compute_statistics(wrist_rotation, angle_mask=[True, False])


def test_processor_brings_angles_back_through_the_seam(wrist_rotation, tmp_path):
    masks = {"delta_mask": [True, False], "angle_mask": [True, False]}
    statistics = {"arm": compute_statistics(wrist_rotation, **masks)["action"]}
    made = tiny_policy(chunk_size=3, action_dim=2, norm_stats=statistics)[1]
    arguments = {"delta_action_mask": [True, False], "angle_action_mask": [True, False]}
    processor = Nora15Processor(
        made.tokenizer, made.action_codec, statistics, image_size=84, chunk_size=3, action_dim=2,
        normalization_mode="min_max", **arguments,
    )  # fmt: skip
    processor.save_pretrained(tmp_path)
    processor = Nora15Processor.from_pretrained(tmp_path)
    assert processor.angle_action_mask == [True, False]
    samples = [wrist_rotation[position] for position in range(len(wrist_rotation))]
    batch = PolicyCollator(processor)(samples)
    assert batch["actions"].abs().max() < 1 + 1e-4
    state = np.stack([sample["state"] for sample in samples])
    back = processor.unnormalize_actions(batch["actions"], state=state)
    np.testing.assert_allclose(back, np.stack([sample["actions"] for sample in samples]), atol=1e-5)
    for wrong, message in (
        ({**arguments, "angle_action_mask": [True]}, "angle_action_mask has 1 entries for action_dim=2"),
        ({"angle_action_mask": [True, False]}, "angle_action_mask is given without delta_action_mask"),
    ):
        with pytest.raises(ValueError, match=message):
            Nora15Processor(processor.tokenizer, action_dim=2, **wrong)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return write_v30(tmp_path_factory.mktemp("stats") / "numbers", top="image")


def test_stats_command_prints_a_table_and_writes_what_the_processor_reads(numbers, tmp_path, capsys):
    output = tmp_path / "norm_stats.json"
    assert main(["stats", str(numbers), "--output", str(output), "--action-mask", "1,1,0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("numbers: 6 episodes, 41 frames\n\naction (41 rows)\n")
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith("  ")}
    assert rows["dimension"] == ["min", "q01", "mean", "std", "q99", "max"]
    assert rows["x"] == ["0", "0.4", "20", "11.832", "39.6", "40"]
    assert rows["gripper"][-2:] == ["not", "normalised"]
    read = load_norm_stats(output)["numbers"]
    np.testing.assert_allclose(read.q99, np.quantile(ACTIONS, 0.99, axis=0), rtol=1e-6)
    assert read.mask.tolist() == [True, True, False]
    np.testing.assert_allclose(load_norm_stats(output, "proprio")["numbers"].mean, STATES.mean(axis=0), rtol=1e-6)
    tiny_policy(action_dim=3)[1].set_norm_stats(load_norm_stats(output))


def test_stats_of_a_sample_say_so(numbers):
    report = str(dataset_statistics(numbers, sample_episodes=2, seed=1, dataset_key="some"))
    assert ", a sample of 2 of 6 episodes (seed 1)" in report
    assert report == str(dataset_statistics(numbers, sample_episodes=2, seed=1, dataset_key="some"))
    frames = int(report.split("some: 2 episodes, ")[1].split(" frames")[0])
    assert frames in {first + second for first in LENGTHS for second in LENGTHS}
    with pytest.raises(ValueError, match=r"`sample_episodes` is 7; the dataset has 6 episodes"):
        dataset_statistics(numbers, sample_episodes=7)


def test_stats_of_differences(numbers, capsys):
    arguments = ["stats", str(numbers), "--delta-mask", "1,0,0", "--chunk-size", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    rows = sum(LENGTHS) + sum(length - 1 for length in LENGTHS)
    assert f"action ({rows} rows: differences from observation.state, every step of every chunk of 2" in printed
    # Action and state both are the frame's number.
    assert next(line for line in printed.splitlines() if line.startswith("  x")).split()[1::5] == ["0", "1"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments[:2], "--delta-mask", "yes"])
    assert stop.value.code == 2
    assert "'yes' is not a list of comma-separated 0 and 1" in capsys.readouterr().err
    assert main([*arguments[:2], "--delta-mask", "1,0"]) == 2
    assert "`delta_mask` has 2 entries for actions of 3 dimensions" in capsys.readouterr().err


def test_stats_count_what_they_left_out(numbers, tmp_path):
    root = shutil.copytree(numbers, tmp_path / "copy")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "data/chunk-000/file-001.parquet").unlink()
    report = str(dataset_statistics(root, skip_bad_episodes=True))
    assert "bad episodes that were skipped: " in report
    assert f"copy: {info['total_episodes']} episodes" not in report
