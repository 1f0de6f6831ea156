# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FSDP2 over gloo: the sharded policy sees the losses of the whole one and saves an ordinary repo."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers import fsdp_training
from helpers.paths import EXAMPLES
from helpers.warm_processes import run_processes
from nora15_hf import Nora15ForActionPrediction
from nora15_hf.trainers.ema import EMA_FILE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """The folder that two processes left."""
    folder = tmp_path_factory.mktemp("sharded")
    run_processes(fsdp_training.train_both, folder)
    return folder


@pytest.mark.parametrize("objective", ["joint", "flow"])
def test_sharded_training_equals_whole(objective, sharded):
    """With gradient checkpointing; flow matching alone reaches the last layer through its keys and values only."""
    folder = sharded / objective
    seen = json.loads((folder / "seen.json").read_text())
    model, expected = fsdp_training.train(objective)
    assert seen["sharded"] == 1 + 4 + 4 + 3
    assert seen["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert expected["losses"][-1] < 0.95 * expected["losses"][0]

    loaded = Nora15ForActionPrediction.from_pretrained(folder)
    found = loaded.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(torch.tensor(seen["actions"]), torch.tensor(expected["actions"]), atol=2e-3, rtol=0)
    average = load_file(folder / EMA_FILE)
    for name, value in expected["average"].average.items():
        torch.testing.assert_close(average[name], value, atol=2e-4, rtol=1e-3)


def test_the_shipped_configuration_wraps_the_same_modules():
    config = yaml.safe_load((EXAMPLES / "accelerate" / "fsdp2.yaml").read_text())["fsdp_config"]
    named = config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert config["fsdp_version"] == 2
    assert set(named) == set(Nora15ForActionPrediction._no_split_modules)
