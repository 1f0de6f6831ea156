# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks run on the smallest inputs and report what they claim to measure."""

import cProfile
import json
import pstats

import pytest
import torch

import evaluation
import fast_codec
import generate
import harness
import label
import latency
import matched_pi0
import plain_policy
import quantization
import random_policy
import rollout
import run_all
import sample
import sft_step
import solvers
from nora15_hf import Nora15ForActionPrediction
from nora15_hf.nora15.presets import tiny_policy

pytestmark = pytest.mark.isa


@pytest.fixture(autouse=True)
def compilation_without_code_generation(monkeypatch):
    """`warm_up` still traces whole graphs, but a C++ compiler takes minutes; tests/nora15/test_warm_up.py runs the real one."""
    compile_function = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda function, *, options, **settings: compile_function(
            function, backend="eager", options={"guard_filter_fn": options["guard_filter_fn"]}, **settings
        ),
    )


def test_rounds_are_interleaved_and_the_warm_up_is_not_timed():
    calls = []
    seconds = harness.median_seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert all(value >= 0 for value in seconds.values())


def test_peak_memory_counts_what_is_held_at_one_time(capfd):
    kept = []

    def apart():
        for _ in range(3):
            torch.empty(1 << 20)

    def together():
        return torch.cat([torch.empty(1 << 20), torch.empty(1 << 20)])

    def once():
        if not kept:
            kept.append(torch.empty(1 << 22))

    def gradients():
        weight = torch.ones(512, 512, requires_grad=True)
        (weight * 2).sum().backward()

    found = harness.peak_memory({"apart": apart, "together": together, "once": once, "gradients": gradients})
    mebibyte = 1 << 20
    assert found["apart"] == 4 * mebibyte
    assert found["together"] == 16 * mebibyte
    assert found["once"] == 0
    # The weight, the product and, expanded from a scalar, its gradient; then the weight's.
    assert 2 * mebibyte <= found["gradients"] <= 4 * mebibyte
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_solvers(tmp_path, capsys):
    output = tmp_path / "results" / "solvers.json"
    solvers.main(["--observations", "1", "--evaluations", "1", "3", "100", "--output", str(output)])
    saved = json.loads(output.read_text())
    errors = {(row["solver"], row["evaluations"]): row["mean_abs_error"] for row in saved["results"]}
    assert set(errors) == {(name, count) for name in solvers.SOLVERS for count in (1, 3, 100)} - {("Heun", 100)}
    # One Euler step and one step of Heun are the same thing; many evaluations bring everyone near the reference.
    assert errors["Heun", 1] == pytest.approx(errors["Euler", 1], rel=1e-3)
    for name in ("Euler", "DPM-Solver++", "UniPC"):
        assert errors[name, 100] < 0.3 * errors[name, 1]
    assert saved["conditions"]["torch_threads"] >= 1
    assert {"torch", "diffusers"} <= set(saved["conditions"]["versions"])
    assert "| evaluations | Euler" in capsys.readouterr().out


@pytest.mark.slow
def test_solvers_of_a_saved_policy(tmp_path):
    model, processor = tiny_policy(seed=0)
    model.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    outcome = solvers.main(["--policy", str(tmp_path / "policy"), "--observations", "1", "--evaluations", "200"])
    errors = {row["solver"]: row["mean_abs_error"] for row in outcome["results"]}
    assert errors["Euler"] == 0
    assert outcome["policy"] == "policy"


def test_fast_codec(tmp_path, capsys):
    output = tmp_path / "fast.json"
    fast_codec.main(["--repeats", "3", "--output", str(output)])
    results = json.loads(output.read_text())["results"]
    assert set(results) == {"encode", "decode", "encode + decode"}
    assert all(value > 0 for result in results.values() for value in result.values())
    assert "same ids" in capsys.readouterr().out


def test_fast_codec_works_by_the_batch():
    """Python's calls per chunk, counted: the speed that the benchmark shows comes from those that are left out."""

    def added_calls(run):
        counts = []
        for chunks in (fast_codec.smooth_chunks(count, 5, 7, seed=1) for count in (64, 256)):
            with cProfile.Profile() as profile:
                run(chunks)
            counts.append(pstats.Stats(profile).total_calls)
        return counts[1] - counts[0]

    codec = fast_codec.byte_level_codec(fast_codec.smooth_chunks(1000, 5, 7, seed=0))
    published = fast_codec.PublishedProcessor(codec)
    both_ways = {
        "ours": lambda chunks: codec.decode(codec.encode(chunks), 5, 7),
        "published": lambda chunks: published.decode(published.encode(chunks), 5, 7),
    }
    calls = {name: added_calls(run) for name, run in both_ways.items()}
    assert calls["ours"] < calls["published"] / 5


def test_fast_codec_refuses_to_compare_different_ids(monkeypatch):
    monkeypatch.setattr(fast_codec.PublishedProcessor, "encode", lambda self, chunks: [[0]] * len(chunks))
    with pytest.raises(RuntimeError, match="different ids"):
        fast_codec.main(["--repeats", "1"])


def test_quantization():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'nora15_hf[quant]'")
    results = {row["backbone"]: row for row in quantization.main(["--observations", "2"])["results"]}
    assert results["4 bits, nf4"]["bytes"] < results["8 bits"]["bytes"] < results["float32"]["bytes"]
    assert 0 < results["8 bits"]["mean_abs_error"] < results["4 bits, nf4"]["mean_abs_error"]


@pytest.mark.slow
def test_rollout(tmp_path, capsys):
    sizes = {"states": 3, "candidates": 2, "steps": 3, "image-size": 64, "width": 48, "depth": 2, "repeats": 1}
    arguments = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    rollout.main([*arguments, "--output", str(tmp_path / "rollout.json")])
    saved = json.loads((tmp_path / "rollout.json").read_text())
    assert set(saved["speed_up"]) == {"released", "cached, one by one", "cached, batched"}
    assert saved["max_energy_difference"] < 1e-6
    assert "| cached, batched" in capsys.readouterr().out


@pytest.mark.simulator
@pytest.mark.slow
def test_evaluation(tmp_path, capsys):
    sizes = {"tasks": "handle-press", "episodes": 2, "rounds": 1, "max-steps": 10, "slots": 2, "workers": 1}
    arguments = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    evaluation.main([*arguments, "--output", str(tmp_path / "evaluation.json")])
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert saved["episodes_per_minute"].keys() == {"plain loop", "nora15 evaluate"}
    assert 0 < saved["policy_utilization"] < 1
    assert "2 of 2 episodes ended after the same number of steps" in capsys.readouterr().out


def test_rollout_refuses_to_compare_different_energies(monkeypatch):
    monkeypatch.setattr(rollout, "rotate_axis", lambda hidden, positions: hidden)
    with pytest.raises(RuntimeError, match="disagree"):
        rollout.main(["--states", "1", "--image-size", "64", "--width", "48", "--depth", "2", "--repeats", "1"])


@pytest.mark.parametrize(
    "benchmark", [solvers, fast_codec, quantization, rollout, evaluation], ids=lambda module: module.__name__
)
def test_help(benchmark, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--help"])
    assert stop.value.code == 0
    assert "--output" in capsys.readouterr().out


# That of flow DPO runs in tests/trainers/test_flow_dpo_adapters.py.
@pytest.mark.parametrize(
    ("benchmark", "fewer"),
    [
        (sample, ["--steps", "2"]),
        (generate, ["--batch", "2", "--tokens", "4"]),
        (label, ["--states", "2", "--steps", "2"]),
        (sft_step, []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.slow
def test_speed_benchmarks(benchmark, fewer, tmp_path, capsys):
    """At the tiny size: contestants agree, or `main` raises; all are timed."""
    output = tmp_path / "found.json"
    outcome = benchmark.main(["--size", "tiny", "--rounds", "1", "--output", str(output), *fewer])
    assert json.loads(output.read_text())["conditions"]["torch_threads"] >= 1
    figures = list(outcome["results"].values())
    if benchmark in (generate, sample):
        figures = [timing for batch in figures for timing in batch.values()]
    assert all(0 < timing["fastest"] <= timing["median"] <= timing["slowest"] for timing in figures)
    assert "ours" in capsys.readouterr().out


def test_all_write_their_figures_into_one_folder(tmp_path, capsys):
    outcome = run_all.main(["--only", "load", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)])
    figures = json.loads((tmp_path / "load.json").read_text())["results"]
    assert figures == outcome["load"]["results"]
    assert all(0 < timing["fastest"] <= timing["median"] <= timing["slowest"] for timing in figures.values())
    assert "## load" in capsys.readouterr().out


@pytest.mark.slow
def test_latency_tells_how_far_the_floor_is(tmp_path, capsys):
    arguments = ["--size", "tiny", "--rounds", "3", "--batch", "2", "--no-compile"]
    outcome = latency.main([*arguments, "--output", str(tmp_path / "latency.json")])
    assert json.loads((tmp_path / "latency.json").read_text())["p95_ms"] == outcome["p95_ms"]
    assert all(0 < outcome["p50_ms"][part] <= outcome["p95_ms"][part] for part in ("one chunk", "prompt", "denoising"))
    assert outcome["fraction_of_floor"] == pytest.approx(outcome["floor_ms"] / outcome["p50_ms"]["one chunk"])
    assert sum(operator["part"] for operator in outcome["operators"]) <= 1
    assert "chunks per second" in capsys.readouterr().out


def test_percentiles_are_measured_values():
    ordered = [float(value) for value in range(1, 21)]
    assert [latency.percentile(ordered, percent) for percent in (5, 50, 95, 100)] == [1, 10, 19, 20]
    assert latency.percentile([3.0], 50) == 3


def test_the_floor_counts_what_is_read():
    model = random_policy.random_policy("tiny")
    backbone, expert = latency.weight_bytes(model)
    assert backbone + expert < 4 * sum(weight.numel() for weight in model.parameters())
    embedding, norm = model.get_input_embeddings().weight, model.vlm.model.language_model.norm.weight
    assert backbone + expert == 4 * (sum(w.numel() for w in model.parameters()) - embedding.numel() - norm.numel())


@pytest.mark.slow
def test_speed_benchmarks_refuse_to_compare_different_results(monkeypatch):
    monkeypatch.setattr(plain_policy.PlainPolicy, "sample_actions", lambda self, inputs, noise, steps: noise)
    with pytest.raises(RuntimeError, match="cannot be compared"):
        sample.main(["--size", "tiny", "--rounds", "1"])


def test_pi0_has_the_policys_sizes():
    config = random_policy.policy_config("cpu")
    with torch.device("meta"):
        policy = Nora15ForActionPrediction(config)
        pi0 = matched_pi0.matched_pi0(config, 14, "meta", torch.float32)
    assert sample.parameters(pi0.model.dit.layers) == pytest.approx(sample.parameters(policy.action_expert), rel=0.01)
    ours, theirs = policy.vlm.model.language_model.layers, pi0.model.vlm.language_model.layers
    assert sample.parameters(theirs) == pytest.approx(sample.parameters(ours), rel=0.01)
    assert sample.parameters(pi0.model.vlm.vision_tower.encoder) == pytest.approx(
        sample.parameters(policy.vlm.model.visual.blocks), rel=0.02
    )


@pytest.mark.slow
def test_serving(tmp_path, capsys):
    import serving

    sizes = {"requests": ["3"], "long": ["20"], "clients": ["1", "2"], "milliseconds": ["1"]}
    arguments = [text for name, values in sizes.items() for text in (f"--{name}", *values)]
    serving.main([*arguments, "--output", str(tmp_path / "serving.json")])
    saved = json.loads((tmp_path / "serving.json").read_text())
    assert saved["clients"]["1"]["times_one"] == 1
    assert saved["clients"]["2"]["requests_per_second"] > 0
    assert saved["growth"]["late_descriptors"] > 0
    assert "| clients at once |" in capsys.readouterr().out


@pytest.mark.slow
def test_whole_sets_are_labelled_by_one_and_by_two_processes():
    outcome = label.main(["--size", "tiny", "--processes", "1", "2", "--states", "8", "--rounds", "1"])
    assert set(outcome["processes"]) == {1, 2}
    assert outcome["processes"][1]["speedup"] == 1
