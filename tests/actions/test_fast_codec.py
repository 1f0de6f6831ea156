# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.paths import FIXTURES
from nora15_hf.actions.fast_codec import FastActionTokenizer

GOLDEN = FIXTURES / "tokenization_fast"
SHAPES = {"fit_5x7_v256": (5, 7), "fit_16x4_v256": (16, 4)}
MALFORMED = json.loads((GOLDEN / "malformed_golden.json").read_text())


def smooth_chunks(count, time_horizon, action_dim, seed=0):
    steps = np.random.default_rng(seed).normal(0, 0.3, (count, time_horizon, action_dim))
    return np.clip(np.cumsum(steps, axis=1), -1, 1)


def dct_by_definition(chunk):
    """The sums of the definition, in plain loops: an oracle that shares nothing with the codec's matrix."""
    length = len(chunk)
    return np.array(
        [
            np.sqrt((1 if k == 0 else 2) / length)
            * sum(chunk[n] * np.cos(np.pi * (2 * n + 1) * k / (2 * length)) for n in range(length))
            for k in range(length)
        ]
    )


@pytest.fixture(scope="module")
def published():
    return {name: FastActionTokenizer.from_pretrained(GOLDEN / name) for name in SHAPES}


@pytest.fixture(scope="module")
def fitted():
    return FastActionTokenizer.fit(smooth_chunks(1000, 5, 4), vocab_size=256)


@pytest.fixture(scope="module")
def all_bytes():
    """Like FAST+: all 256 bytes, a minimum of -354 and no shape; without its merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return FastActionTokenizer(tokenizer, scale=10, min_token=-354)


class TestGolden:
    @pytest.mark.parametrize("layout", ["", "_v4layout"])
    @pytest.mark.parametrize("name", SHAPES)
    def test_ids_and_actions_of_the_published_processor(self, name, layout):
        codec = FastActionTokenizer.from_pretrained(GOLDEN / f"{name}{layout}")
        assert (codec.time_horizon, codec.action_dim) == SHAPES[name]
        assert (codec.scale, codec.vocab_size, len(codec)) == (10, 256, 256)
        chunks = np.load(GOLDEN / f"{name}_test.npy")
        golden = json.loads((GOLDEN / f"{name}_golden.json").read_text())

        assert codec.encode(chunks) == golden["tokens"]
        assert codec.encode(torch.from_numpy(chunks).float()) == golden["tokens_float32_input"]
        assert codec.encode(chunks[3]) == golden["tokens"][3:4]
        actions, valid = codec.decode(golden["tokens"])
        assert actions.dtype == np.float64
        assert valid.dtype == bool
        assert valid.all()
        np.testing.assert_allclose(actions, np.load(GOLDEN / f"{name}_decoded.npy"), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("case", MALFORMED, ids=lambda case: f"{case['tokenizer']}-{case['case']}-{case['chunk']}")
    def test_malformed(self, published, case):
        codec, shape = published[case["tokenizer"]], (case["T"], case["D"])
        good = codec.encode(np.zeros((1, *shape)))[0]
        # An id outside the vocabulary is never a chunk here, the published processor drops it without a word.
        well_formed = not case["original_is_zeros"] and 99999 not in case["tokens"]

        actions, valid = codec.decode([good, case["tokens"], good])
        assert valid.tolist() == [True, well_formed, True]
        assert (actions[[0, 2]] == 0).all()
        if well_formed:
            np.testing.assert_allclose(actions[1], case["original"], rtol=0, atol=1e-12)
        else:
            assert np.isnan(actions[1]).all()
            with pytest.raises(ValueError, match="row 1 is not a chunk"):
                codec.decode([good, case["tokens"], good], on_invalid="raise")

        actions, valid = codec.decode([good, case["tokens"], good], on_invalid="relaxed")
        assert valid.tolist() == [True, well_formed, True]
        if case["tokens"]:
            np.testing.assert_allclose(actions[1], case["lerobot_relaxed"], rtol=0, atol=1e-12)
        else:
            assert np.isnan(actions[1]).all()


class TestCoding:
    @pytest.mark.parametrize("shape", [(1, 7), (5, 4), (5, 7), (16, 4), (10, 32), (50, 3)])
    def test_round_trip_is_rounding_of_the_dct(self, all_bytes, shape):
        chunks = smooth_chunks(4, *shape)
        actions, valid = all_bytes.decode(all_bytes.encode(chunks), *shape)
        assert valid.all()
        for chunk, action in zip(chunks, actions, strict=True):
            np.testing.assert_allclose(
                dct_by_definition(action) * 10, np.rint(dct_by_definition(chunk) * 10), atol=1e-9
            )
        assert np.abs(actions - chunks).max() <= 0.05 * np.sqrt(shape[0]) + 1e-9

    def test_order_is_frequency_major(self, all_bytes):
        chunk = np.array([[1.0, 2.0], [1.0, 2.0]])  # constant in time: frequency 1 is zero
        spelled = all_bytes.tokenizer.decode(all_bytes.encode(chunk)[0])
        assert [ord(character) - 354 for character in spelled] == [14, 28, 0, 0]

    def test_batch_equals_singles_and_any_dtype_or_container(self, published):
        codec = published["fit_5x7_v256"]
        chunks = np.load(GOLDEN / "fit_5x7_v256_test.npy")
        ids = codec.encode(chunks)
        assert ids == [codec.encode(chunk)[0] for chunk in chunks]
        for dtype in (torch.float16, torch.bfloat16):
            halves = torch.from_numpy(chunks).to(dtype)
            assert codec.encode(halves) == codec.encode(halves.double())
        assert codec.encode(chunks.astype(np.float16)) == codec.encode(chunks.astype(np.float16).astype(np.float64))

        expected, _ = codec.decode(ids)
        for rows in (tuple(map(tuple, ids)), [np.array(row) for row in ids], [torch.tensor(row) for row in ids]):
            np.testing.assert_array_equal(codec.decode(rows)[0], expected)
        for rectangle in (np.array(ids[:1] * 2), torch.tensor(ids[:1] * 2)):
            np.testing.assert_array_equal(codec.decode(rectangle)[0], expected[[0, 0]])

    def test_empty_batch(self, fitted):
        assert fitted.encode(np.zeros((0, 5, 4))) == []
        actions, valid = fitted.decode([])
        assert actions.shape == (0, 5, 4)
        assert valid.shape == (0,)

    def test_no_shape_is_remembered(self, all_bytes):
        small, large = smooth_chunks(1, 4, 6), smooth_chunks(1, 6, 4)
        small_ids = all_bytes.encode(small)
        all_bytes.decode(small_ids, 4, 6)
        large_ids = all_bytes.encode(large)
        np.testing.assert_allclose(all_bytes.decode(large_ids, 6, 4)[0], large, atol=0.13)
        with pytest.raises(ValueError, match="shape is unknown"):
            all_bytes.decode(large_ids)

    def test_invalid_utf8_is_never_an_action(self, all_bytes):
        ids = all_bytes.encode(np.zeros((1, 5, 7)))[0]
        lone_lead_byte = ids[0]  # 354 is two bytes long
        for on_invalid in ("mask", "relaxed"):
            for row in ([*ids[:-2], lone_lead_byte], [*ids, lone_lead_byte], [lone_lead_byte] * 35):
                actions, valid = all_bytes.decode([row, ids], 5, 7, on_invalid)
                assert valid.tolist() == [False, True]
                assert np.isnan(actions[0]).all()
                assert (actions[1] == 0).all()
        with pytest.raises(ValueError, match=r"row 0 .*not UTF-8"):
            all_bytes.decode([[lone_lead_byte]], 5, 7, "raise")

    @pytest.mark.parametrize("code", [709, 0xFFFD, 0x10FFFF])
    def test_coefficients_out_of_range_are_never_an_action(self, all_bytes, code):
        row = all_bytes.tokenizer.encode(chr(354) * 34 + chr(code)).ids
        for on_invalid in ("mask", "relaxed"):
            actions, valid = all_bytes.decode([row], 5, 7, on_invalid)
            assert not valid[0]
            assert np.isnan(actions).all()
        with pytest.raises(ValueError, match=r"coefficients outside \(-354, 354\)"):
            all_bytes.decode([row], 5, 7, "raise")

    @pytest.mark.parametrize("bad_id", [-1, 256, 10**12])
    def test_ids_outside_the_vocabulary(self, all_bytes, bad_id):
        ids = all_bytes.encode(np.zeros((1, 5, 7)))[0]
        assert all_bytes.decode([[*ids, bad_id]], 5, 7)[1].tolist() == [False]
        with pytest.raises(ValueError, match=rf"row 1 .*\[{bad_id}\] are not ids .*0 to 255"):
            all_bytes.decode([ids, [*ids, bad_id]], 5, 7, "raise")

    def test_holes_of_a_published_fit_are_refused_at_encode(self, published):
        codec = published["fit_5x7_v256"]
        assert codec.coefficient_range == (-22, 22)
        assert not {-21, -20} & set((np.flatnonzero(codec._encodable) - 22).tolist())
        chunk = np.zeros((5, 7))
        chunk[:, 2] = -2.0 / np.sqrt(5)  # coefficient -20
        with pytest.raises(ValueError, match=r"chunk 1 has the coefficient -20 at frequency 0 of dimension 2"):
            codec.encode(np.stack([chunk * 0, chunk]))


@settings(deadline=None, max_examples=60)
@given(chunks=hnp.arrays(np.float64, (3, 5, 4), elements=st.floats(-1, 1)))
def test_whatever_lies_in_minus_one_to_one_survives(fitted, chunks):
    actions, valid = fitted.decode(fitted.encode(chunks))
    assert valid.all()
    assert np.abs(actions - chunks).max() <= 0.05 * np.sqrt(5) + 1e-9


@settings(deadline=None, max_examples=100)
@given(
    ids=st.lists(st.lists(st.integers(-2, 300), max_size=30), max_size=4),
    on_invalid=st.sampled_from(["mask", "relaxed"]),
)
def test_any_ids_give_flagged_or_bounded_actions(fitted, all_bytes, ids, on_invalid):
    for codec in (fitted, all_bytes):
        actions, valid = codec.decode(ids, 5, 4, on_invalid)
        assert actions.shape == (len(ids), 5, 4)
        assert np.isfinite(actions[valid]).all()
        finite = np.isfinite(actions).all(axis=(1, 2))
        assert np.isnan(actions[~finite]).all()
        if on_invalid == "mask":
            assert (finite == valid).all()
        bound = max(map(abs, codec.coefficient_range)) / 10
        assert (np.linalg.norm(actions[finite], axis=1) <= bound * np.sqrt(5) + 1e-9).all()
        for row, action in zip([r for r, ok in zip(ids, valid, strict=True) if ok], actions[valid], strict=True):
            again = codec.decode(codec.encode(action), 5, 4)[0][0]
            np.testing.assert_allclose(again, action, atol=1e-12, err_msg=str(row))


class TestFit:
    def test_tiny_policy(self, fitted):
        assert len(fitted) == 256
        assert (fitted.time_horizon, fitted.action_dim, fitted.scale) == (5, 4, 10)
        assert fitted.coefficient_range == (-31, 31)  # 10 * sqrt(5), rounded up, and the margin
        lengths = [len(ids) for ids in fitted.encode(smooth_chunks(300, 5, 4, seed=1))]
        assert np.mean(lengths) < 14

    def test_no_chunk_is_lost_where_the_published_fit_loses_some(self):
        train = np.load(GOLDEN / "fit_5x7_v256_train.npy")
        codec = FastActionTokenizer.fit(train, vocab_size=256)
        fresh = np.random.default_rng(5).uniform(-1, 1, (2000, 5, 7))
        actions, valid = codec.decode(codec.encode(fresh))
        assert valid.all()
        assert np.abs(actions - fresh).max() <= 0.05 * np.sqrt(5)
        test = np.load(GOLDEN / "fit_5x7_v256_test.npy")
        assert np.mean([len(ids) for ids in codec.encode(test)]) < 22.5  # the published fit: 21.8

    def test_deterministic(self, fitted):
        chunks = smooth_chunks(1000, 5, 4)
        for same in (chunks, torch.from_numpy(chunks)):
            assert FastActionTokenizer.fit(same, vocab_size=256).tokenizer.to_str() == fitted.tokenizer.to_str()

    @pytest.mark.parametrize("vocab_size", [63, 64, 100, 4096])
    def test_vocab_size_is_a_cap(self, vocab_size):
        codec = FastActionTokenizer.fit(smooth_chunks(50, 5, 4), vocab_size=vocab_size)
        assert 63 <= len(codec) <= vocab_size
        ids = codec.encode(smooth_chunks(50, 5, 4, seed=3))
        assert max(max(row) for row in ids) < len(codec)

    def test_outliers_widen_the_range(self):
        chunks = smooth_chunks(20, 5, 4)
        chunks[0] = 9.0
        codec = FastActionTokenizer.fit(chunks, vocab_size=512)
        assert codec.coefficient_range == (-31, 201 + 8)
        assert codec.decode(codec.encode(chunks))[1].all()

    @pytest.mark.parametrize(
        ("chunks", "options", "error", "message"),
        [
            (np.zeros((5, 4)), {}, ValueError, r"shape \(5, 4\); expected \(N, H, A\)"),
            (np.zeros((0, 5, 4)), {}, ValueError, "at least one chunk"),
            (np.full((1, 5, 4), np.nan), {}, ValueError, "NaN"),
            (np.zeros((2, 5, 4), dtype=int), {}, TypeError, "floating point"),
            (np.zeros((2, 5, 4)), {"vocab_size": 62}, ValueError, "`vocab_size` is 62.*need 63 ids"),
            (np.full((2, 5, 4), 1e6), {}, ValueError, "clip the outliers"),
            (np.zeros((2, 5, 4)), {"scale": 0}, ValueError, "scale"),
        ],
    )
    def test_bad_input(self, chunks, options, error, message):
        with pytest.raises(error, match=message):
            FastActionTokenizer.fit(chunks, **options)


class TestFiles:
    def test_round_trip_is_exact(self, fitted, tmp_path):
        fitted.save_pretrained(tmp_path / "repo" / "fast")
        loaded = FastActionTokenizer.from_pretrained(tmp_path / "repo", subfolder="fast")
        assert loaded.tokenizer.to_str() == fitted.tokenizer.to_str()
        assert repr(loaded) == repr(fitted)
        chunks = smooth_chunks(100, 5, 4, seed=7)
        assert loaded.encode(chunks) == fitted.encode(chunks)
        np.testing.assert_array_equal(loaded.decode(loaded.encode(chunks))[0], fitted.decode(fitted.encode(chunks))[0])
        assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")) == [
            "repo/fast/bpe_tokenizer/tokenizer.json",
            "repo/fast/bpe_tokenizer/tokenizer_config.json",
            "repo/fast/processor_config.json",
        ]

    def test_published_algorithm_reads_a_saved_codec(self, fitted, tmp_path):
        fitted.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "processor_config.json").read_text())
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "bpe_tokenizer")
        for chunk, ids in zip(smooth_chunks(20, 5, 4), fitted.encode(smooth_chunks(20, 5, 4)), strict=True):
            coefficients = np.rint(dct_by_definition(chunk) * config["scale"]).astype(int).ravel()
            text = "".join(chr(max(c - config["min_token"], 0)) for c in coefficients)
            assert tokenizer(text)["input_ids"] == ids
            assert [ord(c) + config["min_token"] for c in tokenizer.decode(ids)] == coefficients.tolist()

    def test_published_codec_can_be_saved_again(self, published, tmp_path):
        codec = published["fit_16x4_v256"]
        codec.save_pretrained(tmp_path)
        chunks = np.load(GOLDEN / "fit_16x4_v256_test.npy")
        assert FastActionTokenizer.from_pretrained(tmp_path).encode(chunks) == codec.encode(chunks)

    def test_missing_files(self, tmp_path):
        with pytest.raises(OSError, match=r"processor_config.json"):
            FastActionTokenizer.from_pretrained(tmp_path)
        shutil.copy(GOLDEN / "fit_5x7_v256" / "processor_config.json", tmp_path)
        with pytest.raises(OSError, match=r"tokenizer.json"):
            FastActionTokenizer.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("{", "not the configuration of a FAST codec"),
            ("[]", "not the configuration of a FAST codec"),
            ('{"scale": 10}', "min_token"),
            ('{"scale": "10", "min_token": 0}', "`scale` is '10'"),
            ('{"scale": NaN, "min_token": 0}', "`scale` is nan"),
            ('{"scale": 10, "min_token": 0.5}', "`min_token` is 0.5"),
            ('{"scale": 10, "min_token": -40000}', "surrogates"),
            ('{"scale": 10, "min_token": -22, "time_horizon": 0}', "`time_horizon` is 0"),
            ('{"scale": 10, "min_token": -22, "action_dim": "7"}', "`action_dim` is '7'"),
        ],
    )
    def test_damaged_configuration(self, tmp_path, config, message):
        shutil.copytree(GOLDEN / "fit_5x7_v256", tmp_path, dirs_exist_ok=True)
        (tmp_path / "processor_config.json").write_text(config)
        with pytest.raises(ValueError, match=message):
            FastActionTokenizer.from_pretrained(tmp_path)

    def test_damaged_tokenizer(self, tmp_path):
        shutil.copytree(GOLDEN / "fit_5x7_v256", tmp_path, dirs_exist_ok=True)
        path = tmp_path / "bpe_tokenizer" / "tokenizer.json"
        path.write_text(path.read_text()[:500])
        with pytest.raises(ValueError, match=r"tokenizer.json is not a tokenizer"):
            FastActionTokenizer.from_pretrained(tmp_path)

    def test_foreign_tokenizers_are_refused(self):
        words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
        lowered = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
        lowered.normalizer = normalizers.Lowercase()
        split = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
        split.pre_tokenizer = pre_tokenizers.Whitespace()
        for tokenizer in (words, lowered, split):
            with pytest.raises(ValueError, match="a FAST codec is BPE"):
                FastActionTokenizer(tokenizer, scale=10, min_token=0)
        with pytest.raises(ValueError, match="ids are not 0 to 1"):
            FastActionTokenizer(Tokenizer(models.BPE(vocab={"a": 0, "b": 5}, merges=[])), scale=10, min_token=0)
        with pytest.raises(ValueError, match="no token for any"):
            FastActionTokenizer(Tokenizer(models.BPE()), scale=10, min_token=0)


BAD_CALLS = [
    (lambda c: c.encode(np.zeros(5)), ValueError, r"shape \(5,\)"),
    (lambda c: c.encode(np.zeros((1, 1, 5, 4))), ValueError, r"expected \(B, H, A\)"),
    (lambda c: c.encode(np.zeros((2, 0, 4))), ValueError, r"expected \(B, H, A\)"),
    (lambda c: c.encode(np.zeros((2, 6, 4))), ValueError, "time_horizon 5, not 6"),
    (lambda c: c.encode(np.zeros((5, 7))), ValueError, "action_dim 4, not 7"),
    (lambda c: c.encode(np.zeros((5, 4), dtype=int)), TypeError, "floating point"),
    (lambda c: c.encode(torch.zeros(5, 4, dtype=torch.int8)), TypeError, "floating point"),
    (lambda c: c.encode(np.full((5, 4), np.nan)), ValueError, r"NaN.*\(0, 0\)"),
    (lambda c: c.encode(np.full((5, 4), -np.inf)), ValueError, "infinity"),
    (lambda c: c.encode(np.full((5, 4), 50.0)), ValueError, r"coefficient 1118 .*between -31 and 31"),
    (lambda c: c.encode(np.full((5, 4), -2.0)), ValueError, "coefficient -45 "),
    (lambda c: c.encode(np.full((5, 4), 1e300)), ValueError, "cannot encode"),
    (lambda c: c.decode([1, 2, 3]), TypeError, "Wrap a single list"),
    (lambda c: c.decode(np.array([1, 2])), TypeError, "Wrap a single list"),
    (lambda c: c.decode([[1.5]]), TypeError, "expected integers"),
    (lambda c: c.decode([["1"]]), TypeError, "expected integers"),
    (lambda c: c.decode([[True]]), TypeError, "expected integers"),
    (lambda c: c.decode([[1]], on_invalid="zeros"), ValueError, "`on_invalid` is 'zeros'"),
    (lambda c: c.decode([[1]], time_horizon=-1), ValueError, "positive"),
    (lambda c: c.decode([[1]], action_dim=0), ValueError, "positive"),
    (lambda c: c.decode([[]], on_invalid="raise"), ValueError, "row 0 .*0 coefficients, expected 20"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_bad_calls(fitted, call, error, message):
    with pytest.raises(error, match=message):
        call(fitted)
