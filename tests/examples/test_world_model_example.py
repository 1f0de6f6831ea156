# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/world_model.py: from a dataset to a folder that loads, continued by default, refused with other settings."""

import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from helpers.blobs import blob_model, write_blobs
from helpers.paths import EXAMPLES
from helpers.warm_processes import run_processes
from nora15_hf.commands import world_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("world_model_example", EXAMPLES / "world_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return write_blobs(tmp_path_factory.mktemp("demonstrations") / "blobs", 5)


def command(blobs, output, **changes) -> list[str]:
    options = {
        "dataset": blobs,
        "output_dir": output,
        "image_size": 28,
        "num_frames": 4,
        "validation_share": 0.4,
        "sensitivity_horizon": 3,
        "encoder_steps": 3,
        "encoder_batch_size": 4,
        "max_steps": 4,
        "save_steps": 2,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    # Of the tiny model only.
    unused = ("image_size", "encoder_steps", "encoder_batch_size") if "model" in changes else ()
    options = {name: value for name, value in (options | changes).items() if name not in unused}
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


def test_from_random_weights_and_on_from_a_checkpoint(example, blobs, tmp_path, capsys):
    output = tmp_path / "world-model"
    example.main(command(blobs, output))
    weights = load_file(output / "model.safetensors")
    assert isinstance(AutoModel.from_pretrained(output), torch.nn.Module)
    conventions = json.loads((output / "clips.json").read_text())
    assert len(conventions["held_out_episodes"]) == 2
    assert conventions["normalization_mode"] == "q01_q99"
    assert {"eval_loss", "eval_beats_noise_1"} <= set(json.loads((output / "eval_results.json").read_text()))

    # As if it had been interrupted after the second step.
    shutil.rmtree(output / "checkpoint-4")
    capsys.readouterr()
    example.main(command(blobs, output))
    runs = [line for line in capsys.readouterr().out.splitlines() if "train_runtime" in line]
    assert len(runs) == 1, "the encoder is trained"
    again = load_file(output / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in weights.items())

    # A finished run is not trained further.
    example.main(command(blobs, output))
    assert "train_runtime" not in capsys.readouterr().out
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert "| optimiser steps | 4 |" in (output / "README.md").read_text()

    with pytest.raises(SystemExit, match="2"):
        example.main(command(blobs, output, encoder_learning_rate=0.1))
    assert "encoder_learning_rate was 0.0015, is 0.1" in capsys.readouterr().err
    # Without the checkpoints nothing tells whose encoder lies there: it is trained again.
    for folder in (*output.rglob("checkpoint-*"), output / "_latents"):
        shutil.rmtree(folder)
    example.main(command(blobs, output, encoder_learning_rate=0.1, max_steps=1))
    name = "encoder.layernorm.bias"
    assert not torch.equal(load_file(output / "model.safetensors")[name], weights[name])


def test_continues_a_given_model(example, blobs, tmp_path, capsys):
    model, processor = blob_model()
    model.save_pretrained(tmp_path / "given")
    processor.save_pretrained(tmp_path / "given")
    output = tmp_path / "trained"
    example.main(command(blobs, output, model=tmp_path / "given"))
    trained = load_file(output / "model.safetensors")
    for name, value in model.state_dict().items():
        untouched = name.startswith("encoder.") or "extrinsics" in name
        assert torch.equal(trained[name], value) == untouched, name
    assert not (output / "_encoder").exists()
    # Another encoder finds the latents of this one, and does not use them.
    model.encoder.layernorm.bias.data += 0.1
    model.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit, match="2"):
        example.main(command(blobs, tmp_path / "next", model=tmp_path / "other", latent_cache_dir=output / "_latents"))
    assert "created from something else: encoder was" in capsys.readouterr().err


def test_two_processes_learn_as_one_does(example, blobs, tmp_path):
    options = {"encoder_steps": 4, "max_steps": 20, "save_steps": 20, "logging_steps": 1, "dataloader_drop_last": True}
    one = command(blobs, tmp_path / "one", **options, per_device_train_batch_size=8, encoder_batch_size=8)
    example.main(one)
    two = command(blobs, tmp_path / "two", **options, per_device_train_batch_size=4, encoder_batch_size=4)
    run_processes(world_model.main, two)
    runs = []
    for output in (tmp_path / "one", tmp_path / "two"):
        history = json.loads((output / "checkpoint-20" / "trainer_state.json").read_text())["log_history"]
        runs.append([entry for entry in history if "loss" in entry])
    assert len(runs[0]) == len(runs[1]) == 20
    for name in ("loss", "teacher_forcing_loss", "autoregressive_loss"):
        assert [entry[name] for entry in runs[1]] == pytest.approx([entry[name] for entry in runs[0]], rel=1e-4)
    assert runs[0][-1]["loss"] < runs[0][0]["loss"]
    # Each process has encoded its share.
    assert len(list((tmp_path / "two" / "_latents").glob("episode-*.safetensors"))) == 5
