# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow DPO in two CPU processes equals one process, with DDP and with FSDP2's sharded parameters."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import flow_dpo_runs
from helpers.warm_processes import run_processes

pytestmark = pytest.mark.slow

# SGD, since Adam turns rounding into steps of full size where a gradient is nearly 0.
COMMON = {"max_steps": 20, "learning_rate": 1e-4, "optim": "sgd", "lr_scheduler_type": "constant", "beta": 50.0}
RUNS = {
    "frozen-precomputed": {"freeze_backbone": True, "num_draws": 2, "precompute_ref_log_probs": True},
    "prefixes-on-disk": {"freeze_backbone": True, "num_draws": 2, "prefix_cache_dir": "prefixes"},
    "joint": {"objective": "joint", "fast_beta": 1.0, "num_draws": 2, "antithetic_noise": True},
}
SHARDED = {"objective": "joint", "num_draws": 2, "beta": 50.0}


def options_of(name: str, folder: Path) -> dict:
    """Of a run that writes to `folder`, its cache included."""
    options = COMMON | RUNS[name]
    if "prefix_cache_dir" in options:
        options["prefix_cache_dir"] = str(folder / options["prefix_cache_dir"])
    return options


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("two")
    runs = {name: options_of(name, output) | {"per_device_train_batch_size": 2} for name in RUNS}
    run_processes(flow_dpo_runs.train_all, output, runs, SHARDED)
    return output


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one(two_processes, tmp_path, name):
    assert (two_processes / name / "world_size").read_text() == "2"
    flow_dpo_runs.train(tmp_path, options_of(name, tmp_path) | {"per_device_train_batch_size": 4})
    one, two = (json.loads((folder / "log.json").read_text())[:20] for folder in (tmp_path, two_processes / name))
    for single, double in zip(one, two, strict=True):
        # An accuracy is a sign, which rounding turns where a margin is nearly 0.
        for key in [key for key in single if "/" in key and not key.endswith("accuracies")] + ["loss"]:
            assert double[key] == pytest.approx(single[key], rel=1e-4, abs=1e-4), (single["step"], key)
    # The runs learnt something that could have differed.
    assert abs(one[-1]["rewards/margins"]) > 1e-2
    weights = load_file(two_processes / name / "model.safetensors")
    for key, weight in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(weights[key], weight, atol=1e-4, rtol=0, msg=key)


def test_sharded_parameters_get_the_same_gradients(two_processes, tmp_path):
    sharded = load_file(two_processes / "gradients.safetensors")
    whole = flow_dpo_runs.gradients(tmp_path, SHARDED)
    assert sharded.keys() == whole.keys()
    for name, gradient in whole.items():
        assert (sharded[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-6, name
