# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from helpers.paths import FIXTURES
from nora15_hf.actions.normalization import (
    ActionStatistics,
    load_norm_stats,
    normalize,
    save_norm_stats,
    select_dataset_key,
    unnormalize,
)

GOLDEN = FIXTURES / "normalization"
MODES = ["q01_q99", "min_max", "mean_std"]
FIELDS = ["q01", "q99", "min", "max", "mean", "std"]


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "golden.safetensors"), json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture
def statistics():
    actions = np.random.default_rng(0).normal([0.0, 3.0, -1.0], [1.0, 0.1, 20.0], size=(500, 3))
    return ActionStatistics.from_actions(actions)


class TestGolden:
    def test_statistics_are_exact(self, golden):
        tensors, expected = golden
        statistics = ActionStatistics.from_actions(tensors["dataset_b"].reshape(-1, 7))
        for name in FIELDS:
            np.testing.assert_allclose(
                getattr(statistics, name), expected["dataset_b_exact"][name], rtol=1e-6, atol=1e-7
            )
        assert statistics.count == tensors["dataset_b"].size // 7

    @pytest.mark.parametrize("as_torch", [False, True])
    def test_normalize_is_the_released_training_code(self, golden, as_torch):
        tensors, _ = golden
        mask = np.array([True] * 6 + [False])
        statistics = ActionStatistics(q01=tensors["normalize.q01"], q99=tensors["normalize.q99"], mask=mask)
        raw = torch.from_numpy(tensors["normalize.raw"]) if as_torch else tensors["normalize.raw"]
        out = normalize(raw, statistics)
        assert out.dtype == raw.dtype
        assert isinstance(out, type(raw))
        out, expected = np.asarray(out), tensors["normalize.out"]
        np.testing.assert_allclose(out[..., [0, 1, 2, 3, 4, 6]], expected[..., [0, 1, 2, 3, 4, 6]], atol=3e-6)
        # The LeRobot path gives -1 in the constant dimension, the RLDS path and this package 0.
        assert (expected[..., 5] == -1).all()
        assert (out[..., 5] == 0).all()

    @pytest.mark.parametrize("key", ["tiny_arm", "tiny_libero"])
    def test_unnormalize_is_the_released_code(self, golden, key):
        tensors, expected = golden
        statistics = ActionStatistics.from_dict(expected["norm_stats"][key])
        np.testing.assert_allclose(
            unnormalize(tensors["unnormalize.in"], statistics), tensors[f"unnormalize.{key}"], rtol=0, atol=1e-6
        )
        # float64 actions: what is left is the float32 rounding of the statistics
        doubles = unnormalize(tensors["unnormalize.in"].astype(np.float64), statistics)
        assert doubles.dtype == np.float64
        np.testing.assert_allclose(doubles, tensors[f"unnormalize.{key}.f64"], rtol=0, atol=2e-7)


class TestMaps:
    def test_analytic_values(self):
        statistics = ActionStatistics(
            q01=[0.0, 0.0], q99=[2.0, 1.0], min=[-2.0, 0.0], max=[6.0, 1.0], mean=[1.0, 0.0], std=[0.5, 1.0]
        )
        actions = np.array([[2.0, 0.5], [1.0, 0.0], [4.0, 1.0]], dtype=np.float32)
        np.testing.assert_allclose(normalize(actions, statistics), [[1, 0], [0, -1], [3, 1]], atol=1e-6)
        np.testing.assert_allclose(normalize(actions, statistics, clip=True), [[1, 0], [0, -1], [1, 1]], atol=1e-6)
        np.testing.assert_allclose(normalize(actions, statistics, "min_max")[:, 0], [0, -0.25, 0.5], atol=1e-6)
        np.testing.assert_allclose(normalize(actions, statistics, "mean_std")[:, 0], [2, 0, 6], atol=1e-6)

    @settings(deadline=None, max_examples=60)
    @given(
        data=hnp.arrays(np.float64, st.tuples(st.integers(2, 12), st.just(4)), elements=st.floats(-50, 50, width=32)),
        masked=hnp.arrays(bool, 4),
        mode=st.sampled_from(MODES),
        as_torch=st.booleans(),
    )
    def test_inverse_and_mask(self, data, masked, mode, as_torch):
        data = np.round(data, 2)  # spans of at least 0.01, where the 1e-8 of the formula is below the tolerance
        statistics = ActionStatistics.from_actions(data, mask=masked)
        actions = torch.from_numpy(data) if as_torch else data
        normalized = normalize(actions, statistics, mode)
        assert isinstance(normalized, type(actions))
        np.testing.assert_array_equal(np.asarray(normalized)[:, ~masked], data[:, ~masked])
        constant = masked & (data.min(axis=0) == data.max(axis=0))
        assert (np.asarray(normalized)[:, constant] == 0).all()
        if mode == "min_max":
            assert (np.abs(np.asarray(normalized)[:, masked]) <= 1 + 1e-4).all()
        back = np.asarray(unnormalize(normalized, statistics, mode))
        np.testing.assert_allclose(back, data, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_dtype_is_kept_and_halves_are_computed_in_float32(self, statistics, dtype):
        actions = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
        for function in (normalize, unnormalize):
            result = function(actions, statistics)
            assert result.dtype == dtype
            torch.testing.assert_close(result, function(actions.double(), statistics).to(dtype), atol=1e-5, rtol=1e-2)

    def test_gradient_flows(self, statistics):
        actions = torch.zeros(2, 3, requires_grad=True)
        unnormalize(actions, statistics).sum().backward()
        torch.testing.assert_close(actions.grad[0], torch.from_numpy((statistics.q99 - statistics.q01) / 2))

    def test_mean_of_a_constant_is_the_constant(self):
        data = np.full((5, 1), 1.62)
        assert data.std() > 0  # a rounding error of the summation, which would pass for a spread
        assert (normalize(data, ActionStatistics.from_actions(data), "mean_std") == 0).all()

    def test_input_is_not_changed(self, statistics):
        actions = np.ones((4, 3), dtype=np.float32)
        actions.flags.writeable = False
        unnormalize(normalize(actions[::-1], statistics), statistics)
        assert (actions == 1).all()

    def test_nan_rows_of_a_decoder_stay_nan(self, statistics):
        actions = np.zeros((2, 3))
        actions[1] = np.nan
        assert np.isnan(unnormalize(actions, statistics)[1]).all()
        assert np.isfinite(unnormalize(actions, statistics)[0]).all()

    def test_constant_dimension(self):
        statistics = ActionStatistics(q01=[0.25, 0.0], q99=[0.25, 1.0])
        assert normalize(np.array([[0.25, 0.5]]), statistics)[0, 0] == 0
        assert (unnormalize(np.array([[-1.0, 0.0], [7.0, 0.0]]), statistics)[:, 0] == 0.25).all()
        with pytest.raises(ValueError, match=r"dimension 0 is constant .*min_max.*mask"):
            normalize(np.array([[0.3, 0.5]]), statistics)
        unmasked = ActionStatistics(q01=[0.25, 0.0], q99=[0.25, 1.0], mask=[False, True])
        assert normalize(np.array([[0.3, 0.5]]), unmasked)[0, 0] == 0.3


BAD_MAPS = [
    (lambda s: normalize(np.zeros((2, 4)), s), ValueError, r"shape \(2, 4\).*3 dimension"),
    (lambda s: unnormalize(torch.zeros(2, 4), s), ValueError, r"shape \(2, 4\).*3 dimension"),
    (lambda s: normalize(np.float64(1.0) * np.ones(()), s), ValueError, r"shape \(\)"),
    (lambda s: normalize(np.zeros((2, 3), dtype=int), s), TypeError, "floating point"),
    (lambda s: unnormalize(torch.zeros(2, 3, dtype=torch.uint8), s), TypeError, "floating point"),
    (lambda s: normalize(np.array([[0, 0, 0], [0, np.nan, 0.0]]), s), ValueError, r"NaN.*\(1, 1\)"),
    (lambda s: normalize(torch.tensor([[0, 0, torch.inf]]), s), ValueError, r"infinite.*\(0, 2\)"),
    (lambda s: normalize(np.zeros((2, 3)), s, "quantile"), ValueError, r"mode.*quantile.*q01_q99"),
    (lambda s: normalize(np.zeros((2, 3)), s, "mean_std", clip=True), ValueError, "clip"),
    (lambda s: normalize(np.zeros((2, 1)), ActionStatistics([0.0], [1.0]), "min_max"), ValueError, "not recorded"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_MAPS)
def test_bad_input_of_the_maps(statistics, call, error, message):
    with pytest.raises(error, match=message):
        call(statistics)


BAD_STATISTICS = [
    (lambda: ActionStatistics(q01=0.0, q99=1.0), ValueError, "q01.*shape"),
    (lambda: ActionStatistics(q01=[], q99=[]), ValueError, "q01.*shape"),
    (lambda: ActionStatistics(q01=[0.0, 0.0], q99=[1.0]), ValueError, "q99.*one length"),
    (lambda: ActionStatistics(q01=[0.0], q99=None), ValueError, "q99"),
    (lambda: ActionStatistics(q01=[0.0], q99=[np.nan]), ValueError, r"q99.*not finite.*\[0\]"),
    (lambda: ActionStatistics(q01=[0.0, 2.0], q99=[1.0, 1.0]), ValueError, r"above.*\[1\].*swapped"),
    (lambda: ActionStatistics(q01=[0.0], q99=[1.0], min=[3.0], max=[1.0]), ValueError, "`min` is above `max`"),
    (lambda: ActionStatistics(q01=[0.0], q99=[1.0], std=[-1.0]), ValueError, "std.*negative"),
    (lambda: ActionStatistics(q01=[0.0], q99=[1.0], mask=[1]), TypeError, "mask.*bool"),
    (lambda: ActionStatistics(q01=[0.0], q99=[1.0], mask=[True, False]), ValueError, "mask.*one length"),
    (lambda: ActionStatistics(q01=[0.0], q99=[1.0], count=-1), ValueError, "count"),
    (lambda: ActionStatistics.from_actions(np.zeros(4)), ValueError, r"shape \(4,\)"),
    (lambda: ActionStatistics.from_actions(np.zeros((0, 4))), ValueError, "at least one row"),
    (lambda: ActionStatistics.from_actions(np.array([[0.0], [np.nan], [np.inf]])), ValueError, r"2 row.*row 1"),
    (lambda: ActionStatistics.from_dict({"proprio": {}}), ValueError, r"no 'action'.*proprio"),
    (lambda: ActionStatistics.from_dict({"action": {"q01": [0.0]}}), ValueError, r"lack \['q99'\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_STATISTICS)
def test_bad_statistics(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_statistics_cannot_be_changed(statistics):
    with pytest.raises(ValueError, match="read-only"):
        statistics.q01[0] = 5
    with pytest.raises(AttributeError):
        statistics.q01 = statistics.q99


def test_torch_and_numpy_actions_give_the_same_statistics():
    actions = np.random.default_rng(1).normal(size=(100, 2)).astype(np.float32)
    one, other = ActionStatistics.from_actions(actions), ActionStatistics.from_actions(torch.from_numpy(actions))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


class TestFiles:
    def test_round_trip_is_exact(self, tmp_path, statistics):
        masked = ActionStatistics(q01=[0.1, 0.0], q99=[0.7, 1.0], mask=[True, False])
        state = ActionStatistics.from_actions(np.random.default_rng(2).normal(size=(9, 5)))
        path = tmp_path / "norm_stats.json"
        save_norm_stats(path, {"one": statistics, "two": masked}, {"two": state})

        loaded = load_norm_stats(path)
        assert list(loaded) == ["one", "two"]
        for name in [*FIELDS, "mask"]:
            np.testing.assert_array_equal(getattr(loaded["one"], name), getattr(statistics, name))
        assert loaded["one"].count == 500
        assert loaded["two"].min is None
        assert loaded["two"].mask.tolist() == [True, False]
        states = load_norm_stats(path, feature="proprio")
        assert list(states) == ["two"]
        np.testing.assert_array_equal(states["two"].q99, state.q99)
        # OpenVLA's own layout
        assert set(json.loads(path.read_text())["two"]) == {"action", "proprio", "num_transitions"}

    def test_released_file_is_read_as_it_is(self, tmp_path, golden):
        path = tmp_path / "norm_stats.json"
        path.write_text(json.dumps(golden[1]["norm_stats"]))
        loaded = load_norm_stats(path)
        assert loaded["tiny_arm"].mask.tolist() == [True] * 6 + [False]
        assert loaded["tiny_libero"].mask.all()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "norm_stats.json is not valid JSON"),
            ("[]", "by dataset key"),
            ("{}", "by dataset key"),
            ('{"arm": 3}', "by dataset key"),
            ('{"arm": {}}', "'arm'.*no 'action'"),
            ('{"arm": {"action": null}}', "'arm'.*'action' of the statistics is None, expected an object"),
            ('{"arm": {"action": {"q01": ["x"], "q99": [1]}}}', "'arm'.*could not convert.*Correct the file"),
            ('{"arm": {"action": {"q01": {}, "q99": [1]}}}', "'arm'.*Correct the file"),
            ('{"arm": {"action": {"q01": [0], "q99": [1], "mask": [1]}}}', "'arm'.*booleans"),
            ('{"arm": {"action": {"q01": [0], "q99": [1]}, "num_transitions": "many"}}', "'arm'.*Correct the file"),
            ('{"arm": {"action": {"q01": [NaN], "q99": [1]}}}', "'arm'.*not finite"),
            ('{"arm": {"action": {"q01": [0, 0], "q99": [1]}}}', "'arm'.*one length"),
        ],
    )
    def test_damaged_files(self, tmp_path, content, message):
        path = tmp_path / "norm_stats.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_norm_stats(path)

    def test_nothing_to_save(self, tmp_path, statistics):
        with pytest.raises(ValueError, match="empty"):
            save_norm_stats(tmp_path / "norm_stats.json", {})
        with pytest.raises(ValueError, match="orphan"):
            save_norm_stats(tmp_path / "norm_stats.json", {"one": statistics}, {"orphan": statistics})


def test_select_dataset_key(statistics):
    assert select_dataset_key({"only": statistics}) == "only"
    assert select_dataset_key({"a": statistics, "b": statistics}, "b") == "b"
    with pytest.raises(ValueError, match=r"not given.*'a', 'b'"):
        select_dataset_key({"a": statistics, "b": statistics})
    with pytest.raises(ValueError, match=r"'c' is unknown.*'a', 'b'"):
        select_dataset_key({"a": statistics, "b": statistics}, "c")
    with pytest.raises(ValueError, match="0 to choose from"):
        select_dataset_key({})
