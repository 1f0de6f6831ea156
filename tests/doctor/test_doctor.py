# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 doctor` on saved policies and written datasets: what is sound stays unmentioned, what is wrong is found."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nora15_hf.actions import ActionStatistics
from nora15_hf.commands import main
from nora15_hf.data import LeRobotWriter
from nora15_hf.doctor import examine_policy
from nora15_hf.nora15 import Nora15Processor
from nora15_hf.nora15.presets import tiny_policy

LOW, HIGH = np.array([-2.0, 0.0, -0.5, 0.0]), np.array([2.0, 10.0, 0.5, 1.0])
CONVENTIONS = {"renderer": "raycast", "gripper": "1 = open"}
FAST_RUN = {"device": "cpu", "samples": 4, "num_steps": 2}


def write_dataset(
    root, low=LOW, high=HIGH, conventions=CONVENTIONS, tasks=("open the faucet", "close the faucet"), fps=2
):
    rng = np.random.default_rng(0)
    features = {
        "observation.image": {"dtype": "image", "shape": (40, 40, 3)},
        "action": {"dtype": "float32", "shape": (len(low),)},
    }
    writer = LeRobotWriter(root, fps=fps, features=features, robot_type="test", conventions=conventions)
    for task in tasks:
        actions = rng.uniform(low, high, (12, len(low)))
        actions[:2] = low, high
        images = rng.integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
        writer.add_episode(task, {"observation.image": images, "action": actions.astype(np.float32)})
    return writer.finalize()


def save_policy(folder, change=None, **options):
    """A tiny policy, changed in place by `change(model)`, with its processor."""
    options.setdefault("norm_stats", {"arm": ActionStatistics.from_actions(np.stack([LOW, HIGH]))})
    conventions = dict.fromkeys(options["norm_stats"], CONVENTIONS)
    model, processor = tiny_policy(conventions=conventions, seed=0, **options)
    with torch.no_grad():
        if change is not None:
            change(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "arm")


def messages(report, section):
    return [finding.message for finding in report.findings if finding.section == section]


def test_sound_policy_and_dataset(policy, dataset):
    report = examine_policy(policy, dataset, **FAST_RUN)
    assert not report.errors
    for section in ("load", "conventions", "statistics", "ablation"):
        assert messages(report, section) == []
    assert list(report.sections) == [
        "versions", "load", "conventions", "statistics", "actions", "latency", "ablation",
    ]  # fmt: skip
    load = report.sections["load"].values
    expected, _ = tiny_policy(seed=0)
    assert load["parameters"] == sum(parameter.numel() for parameter in expected.parameters())
    assert load["dtypes"] == ["float32"]
    assert load["missing keys"] == load["unexpected keys"] == load["mismatched keys"] == 0
    versions = report.sections["versions"].values
    assert versions["torch"] == torch.__version__
    assert report.sections["conventions"].values["dataset's gripper"] == "1 = open"
    for row, low, high in zip(report.sections["statistics"].rows, LOW, HIGH, strict=True):
        assert (row["checkpoint min"], row["dataset max"]) == (low, high)
        assert row["disagreement %"] == row["rows outside checkpoint's %"] == 0
    latency = {row["part"]: row for row in report.sections["latency"].rows}
    assert 0 < latency["denoise"]["p50 ms"] <= latency["total"]["p95 ms"]


def test_dataset_with_other_statistics_is_reported_per_dimension(policy, tmp_path):
    # Dimension 1 in other units, dimension 3 with the other gripper sign, dimension 0 within the tolerance.
    low, high = LOW * [1.05, 1, 1, 1] + [0, 0, 0, -1], HIGH * [1.05, 0.01, 1, 1]
    report = examine_policy(policy, write_dataset(tmp_path / "wrong", low, high), **FAST_RUN)
    found = messages(report, "statistics")
    assert [re.match(r"dimension (\d)", message).group(1) for message in found] == ["1", "3"]
    assert "0 ... 10 in the checkpoint, 0 ... 0.1 in the dataset, apart by 99%" in found[0]
    assert not report.errors
    disagreement = [row["disagreement %"] for row in report.sections["statistics"].rows]
    np.testing.assert_allclose(disagreement, [100 * 0.1 / 4.2, 99, 0, 50], atol=1e-3)
    assert report.sections["statistics"].rows[3]["rows outside checkpoint's %"] > 20
    # The policy's actions are in the checkpoint's units, and so out of the dataset's range.
    far = [row["far outside %"] for row in report.sections["actions"].rows]
    assert far[1] > 80
    assert any(message.startswith("dimension 1") and "dataset's" in message for message in messages(report, "actions"))


@pytest.mark.slow
def test_actions_in_and_out_of_range(tmp_path):
    def still(model):
        model.action_out_proj.weight.zero_()
        model.action_out_proj.bias.zero_()

    # With zero velocity the noise itself comes out, normal with std 1: wide statistics hold it, narrow ones do not.
    steps = np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
    wide = {"arm": ActionStatistics.from_actions(steps, mask=np.zeros(4, bool))}
    sound = examine_policy(save_policy(tmp_path / "wide", still, norm_stats=wide), **FAST_RUN)
    assert messages(sound, "actions") == []
    narrow = {"arm": ActionStatistics.from_actions(steps * [1, 0.1, 1, 1], mask=np.zeros(4, bool))}
    report = examine_policy(save_policy(tmp_path / "narrow", still, norm_stats=narrow), **FAST_RUN | {"samples": 32})
    (message,) = messages(report, "actions")
    assert message.startswith("dimension 1")
    row = report.sections["actions"].rows[1]
    assert 60 < row["far outside %"] <= row["outside min..max %"] <= row["outside q01..q99 %"] < 100
    # And it ignores its inputs, of course.
    assert len(messages(report, "ablation")) == 2


@pytest.mark.parametrize("with_dataset", [False, True])
def test_policy_that_ignores_its_image(tmp_path, dataset, with_dataset):
    def blind(model):
        model.vlm.model.visual.merger.mlp[-1].weight.zero_()
        model.vlm.model.visual.merger.mlp[-1].bias.zero_()

    report = examine_policy(save_policy(tmp_path / "blind", blind), dataset if with_dataset else None, **FAST_RUN)
    (message,) = messages(report, "ablation")
    assert "ignores its image" in message
    effects = {row["changed input"]: row["mean change %"] for row in report.sections["ablation"].rows}
    assert effects["image: black"] == effects["image: another observation's"] == 0
    assert effects["instruction: another"] > 0.1
    assert effects["noise: another"] > 1


def test_policy_that_ignores_its_instruction(tmp_path, dataset):
    def deaf(model):
        # All words look alike, and the dataset's two instructions have equally many.
        model.vlm.get_input_embeddings().weight.fill_(0.02)

    report = examine_policy(save_policy(tmp_path / "deaf", deaf), dataset, **FAST_RUN)
    (message,) = messages(report, "ablation")
    assert "ignores its instruction" in message
    effects = {row["changed input"]: row["mean change %"] for row in report.sections["ablation"].rows}
    assert effects["instruction: another"] == 0
    assert effects["image: black"] > 0.1


def test_conventions_that_differ_are_named(policy, tmp_path):
    data = write_dataset(tmp_path / "arm", conventions=CONVENTIONS | {"gripper": "1 = close", "camera": "front"})
    report = examine_policy(policy, data, **FAST_RUN)
    (message,) = messages(report, "conventions")
    assert message.startswith("gripper is '1 = open' in the checkpoint and '1 = close' in the dataset")


def test_a_policy_too_slow_for_the_data_is_reported(policy, tmp_path):
    report = examine_policy(policy, write_dataset(tmp_path / "arm", fps=1_000_000), **FAST_RUN)
    (message,) = messages(report, "latency")
    assert "the robot would wait" in message


def test_nan_weights_are_an_error_and_nothing_is_run(tmp_path):
    def damage(model):
        model.action_in_proj.weight[0, 0] = torch.nan

    report = examine_policy(save_policy(tmp_path / "nan", damage), **FAST_RUN)
    (error,) = report.errors
    assert "action_in_proj.weight" in error.message
    assert "actions" not in report.sections


def test_missing_weights_are_an_error(tmp_path):
    folder = save_policy(tmp_path / "torn")
    weights = load_file(folder / "model.safetensors")
    del weights["action_out_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    report = examine_policy(folder, **FAST_RUN)
    (error,) = report.errors
    assert (error.section, "action_out_proj.weight" in error.message) == ("load", True)
    assert "does not load as a policy" in error.message


def test_truncated_weights_are_an_error(tmp_path):
    folder = save_policy(tmp_path / "cut")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    (error,) = examine_policy(folder, **FAST_RUN).errors
    assert error.section == "load"


def test_model_and_processor_of_different_policies_are_an_error(tmp_path):
    folder = save_policy(tmp_path / "mixed")
    options = {"norm_stats": {"arm": ActionStatistics.from_actions(np.stack([LOW, HIGH]))}, "chunk_size": 3}
    tiny_policy(**options)[1].save_pretrained(folder)
    (error,) = examine_policy(folder, **FAST_RUN).errors
    assert error.message.startswith("chunk size: the model has 5, the processor 3")


def test_dataset_of_another_robot_is_an_error(policy, tmp_path):
    data = write_dataset(tmp_path / "leg", low=-np.ones(2), high=np.ones(2))
    (error,) = examine_policy(policy, data, **FAST_RUN).errors
    assert "2 dimensions, the policy's have 4" in error.message


def test_unreadable_dataset_is_an_error(policy, tmp_path):
    (error,) = examine_policy(policy, tmp_path, **FAST_RUN).errors
    assert error.section == "dataset"


def test_dataset_without_the_state_that_actions_are_differences_from_is_an_error(tmp_path, dataset):
    made = tiny_policy(norm_stats={"arm": ActionStatistics.from_actions(np.stack([LOW, HIGH]))})
    deltas = {"delta_action_mask": [True, True, True, False]}
    processor = Nora15Processor(
        made[1].tokenizer, made[1].action_codec, made[1].norm_stats, image_size=84, action_dim=4, **deltas
    )
    made[0].save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    report = examine_policy(tmp_path, dataset, **FAST_RUN)
    (error,) = report.errors
    assert error.section == "statistics"
    assert "takes differences from a state that has 0 dimensions" in error.message


def test_dataset_without_a_camera_is_an_error(policy, tmp_path):
    features = {"action": {"dtype": "float32", "shape": (4,)}}
    writer = LeRobotWriter(tmp_path / "arm", fps=2, features=features, robot_type="test")
    writer.add_episode("open the faucet", {"action": np.stack([LOW, HIGH]).astype(np.float32)})
    (error,) = examine_policy(policy, writer.finalize(), **FAST_RUN).errors
    assert "has no camera" in error.message


def test_the_dataset_key_must_be_chosen_when_there_are_several(tmp_path):
    statistics = ActionStatistics.from_actions(np.stack([LOW, HIGH]))
    folder = save_policy(tmp_path / "two", norm_stats={"arm": statistics, "leg": statistics})
    with pytest.raises(ValueError, match="'arm', 'leg'"):
        examine_policy(folder, **FAST_RUN)
    report = examine_policy(folder, dataset_key="leg", **FAST_RUN)
    assert report.sections["conventions"].values["dataset key used"] == "leg"


@pytest.mark.parametrize(("mode", "names"), [("q01_q99", ("q01", "q99")), ("mean_std", ("mean - std", "mean + std"))])
def test_statistics_of_every_normalisation(tmp_path, dataset, mode, names):
    folder = save_policy(tmp_path / mode, normalization_mode=mode)
    rows = examine_policy(folder, dataset, **FAST_RUN).sections["statistics"].rows
    assert all(f"{side} {name}" in rows[0] for side in ("checkpoint", "dataset") for name in names)


def test_command_prints_the_report_and_writes_json(policy, dataset, tmp_path, capsys):
    file = tmp_path / "report.json"
    command = [
        "doctor",
        str(policy),
        "--dataset",
        str(dataset),
        "--device",
        "cpu",
        "--samples",
        "2",
        "--num-steps",
        "1",
    ]
    # Random weights leave the range: a warning, which is not a failure.
    assert main([*command, "--json", str(file), "--image-keys", "observation.image"]) == 0
    text = capsys.readouterr().out
    assert "Load report" in text
    assert "disagreement %" in text
    content = json.loads(file.read_text())
    assert f"0 error(s), {len(content['findings'])} warning(s)" in text
    assert content["sections"]["statistics"]["rows"][1]["dataset max"] == 10
    assert {finding["level"] for finding in content["findings"]} <= {"warning"}


def test_exit_codes(policy, tmp_path, capsys):
    assert main(["doctor", str(tmp_path), "--device", "cpu"]) == 1
    assert "does not load as a policy" in capsys.readouterr().out
    assert main(["doctor", str(policy), "--device", "cpu", "--dataset-key", "leg"]) == 2
    assert "'leg' is unknown" in capsys.readouterr().err
    for device, message in (("abacus", "cannot be used here"), ("meta", "holds shapes but no numbers")):
        assert main(["doctor", str(policy), "--device", device]) == 2
        assert f"device='{device}' {message}" in capsys.readouterr().err
