# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks of the data path run on the smallest inputs and report what they claim to measure."""

import json
from pathlib import Path

import pytest

import dataloader
import dataset_index


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux counts it")
@pytest.mark.slow
def test_dataset_index(tmp_path, capsys):
    output = tmp_path / "index.json"
    sizes = ["--frames", "4000", "--episode-length", "4", "--storage", "image"]
    dataset_index.main([*sizes, "--output", str(output)])
    found = json.loads(output.read_text())["results"]["image"]
    assert found["frames"] == 4000
    # The target for a million rows is 500 MB; four thousand must not come near it.
    assert 0 <= found["all_peak_mb"] < 200
    assert "| camera | frames" in capsys.readouterr().out


@pytest.mark.slow
def test_dataloader(tmp_path, capsys):
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'nora15_hf[video]'")
    output = tmp_path / "loader.json"
    sizes = ["--episodes", "3", "--length", "4", "--samples", "8", "--steps", "1", "--batch-size", "4"]
    dataloader.main([*sizes, "--workers", "1", "--rounds", "2", "--output", str(output)])
    found = json.loads(output.read_text())["samples_per_second"]
    assert len(found) == 6
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found.values())
    assert "video, decoded each time" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", [dataloader, dataset_index], ids=lambda module: module.__name__)
def test_help(benchmark, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--help"])
    assert stop.value.code == 0
    assert "--output" in capsys.readouterr().out
