# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Dimensions whose values a normalisation loses or blows up: found before training, and never a reason to stop a robot."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nora15_hf.actions.normalization import ActionStatistics, lost_values, normalize, unnormalize
from nora15_hf.actions.range_findings import find_range_problems
from nora15_hf.data import (
    LeRobotDataset,
    LeRobotStream,
    LeRobotWriter,
    PolicyCollator,
    check_dataset_fits,
    compute_statistics,
    fit_dataset,
)
from nora15_hf.data.statistics_table import dataset_statistics
from nora15_hf.nora15.presets import tiny_policy

SIZE, EPISODES, LENGTH = 14, 30, 50
FEATURES = {
    "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
    "observation.state": {"dtype": "float32", "shape": (3,)},
    "action": {"dtype": "float32", "shape": (3,), "names": ["x", "cup", "hand"]},
}


def write(root: Path, column: np.ndarray) -> Path:
    """Actions whose dimension 1 is `column`; the same with 2 dimensions more as states."""
    writer = LeRobotWriter(root, fps=10, features=FEATURES, robot_type="arm", conventions={"gripper": "1 = open"})
    actions = np.random.default_rng(0).uniform(-1, 1, (EPISODES, LENGTH, 3)).astype(np.float32)
    actions[:, :, 1] = column.reshape(EPISODES, LENGTH)
    image = np.zeros((LENGTH, SIZE, SIZE, 3), np.uint8)
    for episode in actions:
        writer.add_episode("pick", {"observation.image": image, "observation.state": episode, "action": episode})
    return writer.finalize()


def sparse() -> np.ndarray:
    column = np.zeros(EPISODES * LENGTH)
    column[7 * LENGTH + 20 : 7 * LENGTH + 24] = 1
    return column


def jumping() -> np.ndarray:
    """A joint that hardly moves, but reads 0 in four frames."""
    column = 1.569 + np.random.default_rng(1).normal(scale=2e-4, size=EPISODES * LENGTH)
    column[17 * LENGTH + 30 : 17 * LENGTH + 34] = 0
    return column


def heavy_tailed() -> np.ndarray:
    column = np.random.default_rng(1).uniform(-1, 1, EPISODES * LENGTH)
    column[3 * LENGTH] = 15
    return column


def resting() -> np.ndarray:
    return 1.5 + 1e-6 * np.random.default_rng(1).uniform(-1, 1, EPISODES * LENGTH)


COLUMNS = {
    "constant": (np.full(EPISODES * LENGTH, 0.7), "constant"),
    "sparse": (sparse(), "sparse"),
    "jumping": (jumping(), "outliers"),
    "heavy-tailed": (heavy_tailed(), "outliers"),
    "resting": (resting(), "nearly constant"),
}

VERB = {"constant": "is", "sparse": "is", "nearly constant": "is", "outliers": "has"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("values")
    return {name: write(folder / name, column) for name, (column, _) in COLUMNS.items()}


def processor_for(
    dataset: LeRobotDataset, mode: str = "q01_q99", *, states: bool = False, floor=None, mask=None, **changes
):
    found = compute_statistics(dataset, range_floor=floor, action_mask=mask)
    key = dataset.dataset_key
    processor = tiny_policy(
        image_size=SIZE * 2, action_dim=3, norm_stats={key: found["action"]}, normalization_mode=mode,
        state_dim=3 if states else None, state_stats={key: found["state"]} if states else None,
    )[1]  # fmt: skip
    for name, value in changes.items():
        setattr(processor, name, value)
    return processor


def said_by_data(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("nora15_hf.data.")]


@pytest.mark.parametrize("name", COLUMNS)
def test_stats_name_the_dimension_and_what_to_choose(roots, name):
    report = str(dataset_statistics(roots[name], state_key=None))
    problem = COLUMNS[name][1]
    row = next(line for line in report.splitlines() if line.split()[:1] == ["cup"])
    assert row.endswith(problem)
    said = [
        line for line in report.splitlines() if line.startswith(f"dimension 1 ('cup') {VERB[problem]} {problem}: ")
    ]
    assert len(said) == (problem != "constant")
    for line in said:
        assert "Choose" in line
        assert "range_floor" in line


REFUSED = {
    "sparse": r"'sparse', episode 7, frame 20: dimension 1 \('cup'\) of 'action' is 1, .*lost. Choose .*'min_max', action_mask",
    "jumping": r"'jumping', episode 17, frame 30: dimension 1 \('cup'\) of 'action' is 0, .* after normal.*clip_actions=True",
    "heavy-tailed": r"'heavy-tailed', episode 3, frame 0: dimension 1 .*FAST codec cannot encode. Choose .*objective='flow'",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_stops_training_is_found_before_it(roots, name, caplog):
    dataset = LeRobotDataset(roots[name])
    processor = processor_for(dataset)
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            check_dataset_fits(dataset, processor)
        return
    check_dataset_fits(dataset, processor)
    assert [message[:40] for message in said_by_data(caplog)] == (
        ["Dataset 'resting', 'action': dimension 1"] if name == "resting" else []
    )


WAYS_OUT = {
    "sparse": ({"mode": "min_max"}, {"mask": [True, False, True]}, {"floor": 2.0}),
    "jumping": ({"mode": "min_max"}, {"floor": 4.0}, {"clip_actions": True}),
    "heavy-tailed": ({"mode": "min_max"}, {"floor": 30.0}, {"clip_actions": True}),
    "resting": ({"floor": 0.01},),
}


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in WAYS_OUT.items() for way in ways])
def test_every_way_out_that_is_named_leads_out(roots, name, way):
    dataset = LeRobotDataset(roots[name])
    processor = processor_for(dataset, **way)
    check_dataset_fits(dataset, processor)
    odd = np.argsort(-np.abs(dataset.all_actions()[:, 1] - np.median(dataset.all_actions()[:, 1])))[:8]
    batch = PolicyCollator(processor)([dataset[int(position)] for position in odd])
    masked = np.array(way.get("mask", [True] * 3))
    assert batch["actions"][..., masked].abs().max() < 2.5


def test_without_fast_tokens_only_the_loss_matters(roots, caplog):
    dataset = LeRobotDataset(roots["heavy-tailed"])
    check_dataset_fits(dataset, processor_for(dataset), action_tokens=False)
    (said,) = said_by_data(caplog)
    assert "dimension 1 ('cup') of 'action' reaches 15" in said
    dataset = LeRobotDataset(roots["jumping"])
    with pytest.raises(ValueError, match=r"such frames would dominate the loss"):
        check_dataset_fits(dataset, processor_for(dataset), action_tokens=False)


@pytest.mark.parametrize("name", COLUMNS)
def test_streams_are_judged_by_their_statistics(roots, name, caplog):
    stream = LeRobotStream(roots[name])
    processor = processor_for(LeRobotDataset(roots[name]))
    if name in ("sparse", "jumping"):
        with pytest.raises(
            ValueError,
            match=rf"Dataset '{name}': dimension 1 \('cup'\) {VERB[COLUMNS[name][1]]} {COLUMNS[name][1]}: .*Choose",
        ):
            check_dataset_fits(stream, processor)
        return
    if name == "heavy-tailed":
        # Found in its first episodes.
        with pytest.raises(ValueError, match=r"'heavy-tailed', episode 3, frame 0: dimension 1 .*FAST codec"):
            check_dataset_fits(stream, processor)
        return
    check_dataset_fits(stream, processor)
    assert len(said_by_data(caplog)) == (name != "constant")


def test_the_beginning_of_a_stream_is_looked_at(roots, caplog):
    """Also where the policy's statistics of that key are those of other data."""
    processor = processor_for(LeRobotDataset(roots["resting"], dataset_key="jumping"))
    with pytest.raises(ValueError, match=r"Dataset 'jumping', episode 0, frame \d+: dimension 1"):
        check_dataset_fits(LeRobotStream(roots["jumping"]), processor)
    with caplog.at_level("INFO"):
        check_dataset_fits(LeRobotStream(roots["resting"]), processor_for(LeRobotDataset(roots["resting"])))
    assert f"of its {EPISODES} episodes are checked before training, those of the others are not" in caplog.text


def test_missing_conventions_are_said(tmp_path, caplog):
    writer = LeRobotWriter(tmp_path / "d", fps=10, features=FEATURES, robot_type="arm")
    zeros = np.zeros((6, 3), np.float32)
    image = np.zeros((6, SIZE, SIZE, 3), np.uint8)
    writer.add_episode("pick", {"observation.image": image, "observation.state": zeros, "action": zeros})
    dataset = LeRobotDataset(writer.finalize())
    fit_dataset(dataset, processor_for(dataset))
    assert [message.split(" (")[0] for message in said_by_data(caplog)] == ["Dataset 'd' declares no conventions"]


STATES = {
    "constant": (np.full(EPISODES * LENGTH, 0.7), 0.7003, 0.0, "was constant in training, so the policy reads 0"),
    "sparse": (sparse(), 1.0, 0.0, "was constant in training, so the policy reads 0"),
    "jumping": (jumping(), 0.0, -10.0, "clipped to 10"),
    "resting": (resting(), 1.7, 10.0, "clipped to 10"),
}


@pytest.mark.parametrize("name", STATES)
def test_states_unlike_those_of_training_stop_no_robot_and_are_said_once(name, caplog):
    column, state, expected, said = STATES[name]
    statistics = ActionStatistics.from_actions(np.stack([column, np.linspace(-1, 1, len(column))], axis=1))
    processor = tiny_policy(state_dim=2, state_stats={"default": statistics}, normalization_mode="q01_q99")[1]
    usual = np.array([np.median(column), 0.5], np.float32)
    assert processor.normalize_state(usual, None, 1).abs().max() < 1
    assert caplog.records == []
    for _ in range(3):
        read = processor.normalize_state(np.array([state, 0.5], np.float32), None, 1)
        assert read[0, 0] == expected
        assert 0 < read[0, 1] < 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Dimension 0 of the state is" in record.message
    assert said in record.message


values = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 30), st.integers(1, 3)),
    elements=st.sampled_from([0.0, 1.0]) | st.floats(-9, 9, width=16),
)


@settings(max_examples=100, deadline=None)
@given(values, st.sampled_from(["q01_q99", "min_max", "mean_std"]))
def test_problems_are_those_that_normalisation_has(rows, mode):
    statistics = ActionStatistics.from_actions(rows)
    found = {problem.dimension: problem for problem in find_range_problems(statistics, mode)}
    lost = lost_values(rows, statistics, mode).numpy().any(axis=0)
    sizes = np.abs(normalize(rows, statistics, mode, lossy=True)).max(axis=0)
    for dimension, size in enumerate(sizes):
        problem = found.get(dimension)
        constant = np.ptp(rows[:, dimension]) == 0
        assert (problem is not None and problem.problem == "constant") == constant
        if lost[dimension]:
            assert problem.problem in ("sparse", "nearly constant")
        elif size > 11:
            assert problem.reach == pytest.approx(size, rel=1e-2)
        elif size < 9 and problem is not None:
            assert problem.problem in ("constant", "nearly constant", "sparse")


@settings(max_examples=100, deadline=None)
@given(values, st.floats(0.0625, 100, width=32), st.sampled_from(["q01_q99", "min_max", "mean_std"]))
def test_a_floor_widens_what_is_narrower_and_nothing_else(rows, floor, mode):
    statistics = ActionStatistics.from_actions(rows)
    widened = statistics.with_range_floor(floor)
    wide = statistics.q99 - statistics.q01 > floor
    np.testing.assert_array_equal(widened.q01[wide], statistics.q01[wide])
    assert (widened.q99 - widened.q01 >= floor * (1 - 1e-5) - 1e-5).all()
    normalized = normalize(rows, widened, mode)
    np.testing.assert_allclose(unnormalize(normalized, widened, mode), rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("floor", [0, -1.0, float("nan"), float("inf")])
def test_floors_that_are_none_are_refused(floor):
    with pytest.raises(ValueError, match="`floor` is"):
        ActionStatistics.from_actions(np.eye(2, dtype=np.float32)).with_range_floor(floor)
