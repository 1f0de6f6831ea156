# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Artefacts of another kind than a command asks for, and datasets that do not fit: one line that says what was found."""

import json

import numpy as np
import pytest

from helpers.blobs import blob_model, resized
from nora15_hf.clips import ClipConventions
from nora15_hf.commands import main
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.nora15 import Nora15Processor
from nora15_hf.trainers import policy_lora_config, tiny_policy_for


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """`policy`, `adapters` of it, `world-model`, and datasets: `data` in openpi's names, `plain`, which has no state."""
    root = tmp_path_factory.mktemp("artefacts")
    rng = np.random.default_rng(0)
    for name, (image, action, state) in {
        "data": ("image", "actions", "state"),
        "plain": ("observation.images.front", "action", None),
    }.items():
        features = {
            image: {"dtype": "image", "shape": (56, 56, 3)},
            action: {"dtype": "float32", "shape": (4,)},
        }
        if state is not None:
            features[state] = {"dtype": "float32", "shape": (4,)}
        writer = LeRobotWriter(root / name, fps=10, robot_type="arm", features=features)
        for _ in range(2):
            columns = {key: rng.uniform(-1, 1, (8, 4)).astype(np.float32) for key in (action, state) if key}
            writer.add_episode("pick", {image: rng.integers(0, 256, (8, 56, 56, 3), dtype=np.uint8)} | columns)
        writer.finalize()
    dataset = LeRobotDataset(root / "data", action_key="actions", state_key="state")
    model, processor = tiny_policy_for(dataset, ["pick"], image_size=56)
    for part in (model, processor):
        part.save_pretrained(root / "policy")
    (root / "adapters").mkdir()
    lora = policy_lora_config(model.config, rank=2)
    lora.base_model_name_or_path = "me/base"
    lora.save_pretrained(root / "adapters")
    processor.save_pretrained(root / "adapters")
    (root / "adapters" / "training_args.bin").touch()
    world_model, frames_to_pixels = blob_model()
    world_model = resized(world_model, 4)
    conventions = ClipConventions.of_dataset(LeRobotDataset(root / "plain"), "min_max", [1])
    for part in (world_model, frames_to_pixels, conventions):
        part.save_pretrained(root / "world-model")
    relative = Nora15Processor(
        processor.tokenizer, processor.action_codec, processor.norm_stats, image_size=56, chunk_size=5, action_dim=4,
        normalization_mode="min_max", delta_action_mask=[True, True, True, False],
    )  # fmt: skip
    for part in (model, relative):
        part.save_pretrained(root / "relative-policy")
    return root


TRAINING = ["--output_dir", "out", "--max_steps", "1", "--use_cpu", "true", "--report_to", "none"]
NAMES = ["--action-key", "actions", "--state-key", "state"]
ADAPTERS = "It holds adapter_config.json: these are adapters"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sft", "--datasets", "data", *NAMES, "--policy", "world-model", *TRAINING], "'world-model' holds a world model, expected a policy."),
        (["sft", "--datasets", "data", *NAMES, "--policy", "adapters", *TRAINING], ADAPTERS),
        (["sft", "--datasets", "data", *TRAINING], "`action_key` 'action'"),
        (["sft", "--datasets", "data", *NAMES, "--chunk_size", "500", *TRAINING], "chunk_size=500 is longer than every episode of dataset 'data'"),
        (["sft", "--datasets", "policy", *TRAINING], "meta/info.json is missing: policy is not the root"),
        (["dpo", "--policy", "world-model", "--preferences", "data", *TRAINING], "'world-model' holds a world model, expected a policy."),
        (["dpo", "--policy", "adapters", "--preferences", "data", *TRAINING], ADAPTERS),
        (["dpo", "--policy", "policy", "--preferences", "data", *TRAINING], "preferences.json"),
        (["world-model", "--dataset", "plain", "--model", "policy", *TRAINING], "'policy' holds a policy, expected a world model."),
        (["world-model", "--dataset", "plain", "--model", "adapters", *TRAINING], ADAPTERS),
        (["world-model", "--dataset", "plain", "--policy", "world-model", *TRAINING], "'world-model' holds a world model, expected a policy."),
        (["preferences", "--policy", "world-model", "--demonstrations", "data", "--world_model", "world-model", "--output", "out"], "'world-model' holds a world model, expected a policy."),
        (["preferences", "--policy", "policy", "--demonstrations", "data", *NAMES, "--world_model", "policy", "--output", "out", "--num_states", "2"], "'policy' holds a policy, expected a world model."),
        (["imagine", "--model", "policy", "--dataset", "plain", "--output", "out"], "'policy' holds a policy, expected a world model."),
        (["imagine", "--model", "world-model", "--dataset", "data", "--output", "out"], "`action_key` 'action' is not a feature of the dataset"),
        (["imagine", "--model", "world-model", "--dataset", "plain", "--output", "out", "--device", "abacus"], "device='abacus' cannot be used here"),
        (["imagine", "--model", "world-model", "--dataset", "plain", "--output", "out", "--image-keys", "a,b"], "a world model uses one camera"),
        (["convert", "policy", "--output", "converted"], "'policy' is already a native repo, that of a policy"),
        (["convert", "policy/model.safetensors", "--output", "converted"], "'policy' is already a native repo, that of a policy"),
        (["convert", "world-model", "--output", "converted"], "'world-model' is already a native repo, that of a world model"),
        (["convert", "world-model/model.safetensors", "--output", "converted"], "'world-model' is already a native repo, that of a world model"),
        (["convert", "adapters", "--output", "converted"], ADAPTERS),
        (["stats", "plain", "--delta-mask", "1,1,1,0"], "takes differences from a state that has 0 dimensions (state_key=None)"),
        (["card", "data/meta"], "contains no artefact"),
        (["push-all", "--folder", "data", "--namespace", "me", "--dry-run"], "contains no folder with an artefact"),
    ],
    ids=lambda value: "-".join(value[:5]) if isinstance(value, list) else None,
)  # fmt: skip
def test_one_line_says_what_was_found(artefacts, command, message, monkeypatch, capsys):
    monkeypatch.chdir(artefacts)
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"nora15 {command[0]}: ")
    assert message in said[-1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["adapters"], ADAPTERS),
        (["world-model"], "'world-model' holds a world model, expected a policy."),
        (
            ["relative-policy", "--dataset", "plain", "--image-keys", "image=observation.images.front"],
            "takes differences from a state that has 0 dimensions (state_key=None)",
        ),
        (["policy", "--dataset", "plain"], "Checkpoint and dataset do not agree: cameras"),
        (["policy", "--dataset", "data"], "data cannot be read. ValueError: `action_key` 'action'"),
    ],
)
def test_the_doctor_reports_it(artefacts, command, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(artefacts)
    assert (
        main(["doctor", *command, "--device", "cpu", "--samples", "2", "--json", str(tmp_path / "a" / "b.json")]) == 1
    )
    printed = capsys.readouterr().out
    assert message in printed
    assert message in json.loads((tmp_path / "a" / "b.json").read_text())["findings"][0]["message"]


@pytest.mark.slow
def test_datasets_with_other_names_are_read(artefacts, monkeypatch, capsys, tmp_path):
    """openpi's conversions call the columns `actions`, `state` and `image`."""
    monkeypatch.chdir(artefacts)
    output = tmp_path / "new" / "stats.json"
    assert main(["stats", "data", *NAMES, "--output", str(output)]) == 0
    assert main(["doctor", "policy", "--dataset", "data", *NAMES, "--device", "cpu", "--samples", "2"]) == 0
    command = ["preferences", "--policy", "policy", "--demonstrations", "data", *NAMES, "--reward", "ground_truth"]
    command += ["--num_states", "2", "--num_candidates", "2", "--num_steps", "1", "--image-keys", "image"]
    assert main([*command, "--output", str(tmp_path / "new" / "preferences")]) == 0
    command = ["imagine", "--model", "world-model", "--dataset", "data", "--image-keys", "image", *NAMES[:2]]
    command += ["--steps", "2", "--cases", "2", "--strips", "1", "--gallery", "8"]
    assert main([*command, "--output", str(tmp_path / "new" / "page")]) == 0
    command = ["sft", "--datasets", "data", *NAMES, "--state_input", "true", "--image_size", "28"]
    assert main([*command, *TRAINING, "--output_dir", str(tmp_path / "new" / "policy"), "--disable_tqdm", "true"]) == 0
    assert "data: 2 episodes, 16 frames" in capsys.readouterr().out
