# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow DPO on prefixes from disk: the same training, no backbone pass, never the prefixes of something else."""

import copy
import json
import math
import shutil
from collections import namedtuple

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from helpers.flow_dpo_runs import bit_equal, make_rows, make_trainer, snapshot
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers.flow_dpo.flow_dpo_config import FlowDPOConfig

pytestmark = pytest.mark.isa

INSTRUCTIONS = ("open the faucet", "push the button and then close the faucet", "reach")
TIMING = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy(INSTRUCTIONS, image_size=56)


def of_different_lengths(num_rows: int = 6):
    return make_rows(num_rows, instruction=[INSTRUCTIONS[row % 3] for row in range(num_rows)])


def loss_and_gradients(trainer, rows=slice(None)):
    batch = trainer.data_collator(list(trainer.train_dataset)[rows])
    # Away from the reference, where chosen and rejected would pull equally.
    with torch.no_grad():
        trainer.model.action_out_proj.weight.add_(0.01)
    loss = trainer.compute_loss(trainer.model.train(), batch)
    loss.backward()
    return loss, {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "options",
    [{}, {"precompute_ref_log_probs": True}, {"bf16": True}, {"shared_draws": False}],
    ids=["live", "precomputed", "bf16", "separate draws"],
)
def test_loss_and_gradients_are_the_same_bits(policy, processor, tmp_path, options):
    results = []
    for name, cache in (("without", None), ("with", str(tmp_path / "prefixes"))):
        common = {"freeze_backbone": True, "num_draws": 2, "per_device_train_batch_size": 6, **options}
        trainer = make_trainer(
            copy.deepcopy(policy), processor, tmp_path / name, of_different_lengths(), prefix_cache_dir=cache, **common
        )
        results.append(loss_and_gradients(trainer))
    (loss, gradients), (cached_loss, cached_gradients) = results
    assert torch.equal(loss, cached_loss)
    assert loss.item() != pytest.approx(math.log(2), abs=1e-4)
    assert gradients.keys() == cached_gradients.keys()
    assert all(torch.equal(gradient, cached_gradients[name]) for name, gradient in gradients.items())


def test_batches_of_another_padding_are_equal_to_rounding(policy, processor, tmp_path):
    """The prompts are encoded two at a time, and read in another company."""
    trainers = [
        make_trainer(
            copy.deepcopy(policy),
            processor,
            tmp_path / name,
            of_different_lengths(),
            prefix_cache_dir=cache,
            per_device_train_batch_size=2,
            freeze_backbone=True,
        )
        for name, cache in (("without", None), ("with", str(tmp_path / "prefixes")))
    ]
    for rows in (slice(0, 3), slice(2, 3), slice(1, 6, 2)):
        (loss, gradients), (cached_loss, cached_gradients) = (
            loss_and_gradients(trainer, rows) for trainer in trainers
        )
        torch.testing.assert_close(cached_loss, loss, rtol=1e-4, atol=1e-5)
        for name, gradient in gradients.items():
            assert (cached_gradients[name] - gradient).norm() < 1e-3 * gradient.norm() + 1e-6, name
        for trainer in trainers:
            trainer.model.zero_grad()
            trainer.model.action_out_proj.weight.data.sub_(0.01)


def test_no_backbone_pass_and_no_image_in_training(policy, processor, tmp_path, backbone_passes, monkeypatch):
    options = {"freeze_backbone": True, "prefix_cache_dir": str(tmp_path / "prefixes"), "dataset": make_rows(8)}
    trainer = make_trainer(policy, processor, tmp_path, per_device_train_batch_size=2, **options)
    assert backbone_passes == [2, 2, 2, 2]

    def refuse(*args, **kwargs):
        raise AssertionError("An image was decoded.")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    trainer.train()
    assert backbone_passes == [2, 2, 2, 2]
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)


def test_the_state_is_read_from_the_rows(tmp_path):
    policy, processor = tiny_policy(INSTRUCTIONS, image_size=56, state_dim=3)
    policy.state_proj.weight.data.normal_()
    states = list(np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32))
    # One picture, four states: one file, four different rows.
    rows = make_rows(images=[make_rows(1)["images"][0]] * 4, state=states)
    results = []
    for name, cache in (("without", None), ("with", str(tmp_path / "prefixes"))):
        trainer = make_trainer(
            copy.deepcopy(policy), processor, tmp_path / name, rows, prefix_cache_dir=cache, freeze_backbone=True
        )
        results.append(loss_and_gradients(trainer))
    assert len(list((tmp_path / "prefixes").glob("*.safetensors"))) == 1
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    gradient, cached = (found["state_proj.weight"] for _, found in results)
    assert gradient.norm() > 0
    assert (gradient - cached).norm() < 1e-3 * gradient.norm()


def test_prompts_are_encoded_once_and_shared(policy, processor, tmp_path, backbone_passes):
    """Rows of one state, splits and other preference sets on the same pictures."""
    images = make_rows(3)["images"][:]
    cache = {"freeze_backbone": True, "prefix_cache_dir": str(tmp_path / "prefixes")}
    repeated = make_rows(6, images=images * 2)
    make_trainer(copy.deepcopy(policy), processor, tmp_path / "one", repeated, **cache)
    assert backbone_passes == [3]
    chosen = list(np.zeros((2, 5, 4), dtype=np.float32))
    other = make_rows(2, images=[images[2], images[0]], chosen=chosen, rejected=[c + 1 for c in chosen])
    trainer = make_trainer(policy, processor, tmp_path / "two", other, eval_dataset=repeated, **cache)
    assert backbone_passes == [3]
    # Another instruction is another prompt.
    trainer.evaluate(make_rows(3, images=images, instruction=["reach"] * 3))
    assert backbone_passes == [3, 3]


def test_an_interrupted_build_continues(policy, processor, tmp_path, backbone_passes, monkeypatch):
    options = {
        "freeze_backbone": True,
        "prefix_cache_dir": str(tmp_path / "prefixes"),
        "per_device_train_batch_size": 2,
    }

    def interrupted(tensors, file):
        save_file(tensors, file)
        if len(list((tmp_path / "prefixes").glob("*.safetensors"))) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nora15_hf.trainers.flow_dpo.prefix_cache.save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_trainer(copy.deepcopy(policy), processor, tmp_path, make_rows(8), **options)
    backbone_passes.clear()
    make_trainer(policy, processor, tmp_path, make_rows(8), **options).train()
    assert backbone_passes == [2, 2, 1]


def other_backbone(policy, processor):
    policy.vlm.model.language_model.layers[0].self_attn.k_proj.bias.data[0] += 1e-6
    return policy, processor, {}


def other_image_statistics(policy, processor):
    processor = copy.deepcopy(processor)
    processor.image_mean = (0.5, 0.5, 0.5)
    return policy, processor, {}


def other_geometry(policy, processor):
    policy.config.vlm_config.text_config.rms_norm_eps = 1e-5
    return policy, processor, {}


def other_precision(policy, processor):
    return policy, processor, {"bf16": True}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_backbone, "backbone"),
        (other_image_statistics, "processor"),
        (other_geometry, "backbone_config"),
        (other_precision, "compute"),
    ],
)
def test_prefixes_of_another_backbone_are_refused(policy, processor, tmp_path, change, named):
    options = {"freeze_backbone": True, "prefix_cache_dir": str(tmp_path / "prefixes")}
    make_trainer(copy.deepcopy(policy), processor, tmp_path, **options)
    policy, processor, changed = change(policy, processor)
    with pytest.raises(ValueError, match=rf"something else: {named} was .*choose another one with prefix_cache_dir"):
        make_trainer(policy, processor, tmp_path, **options, **changed)


def test_another_action_expert_may_use_them(policy, processor, tmp_path, backbone_passes):
    options = {"freeze_backbone": True, "prefix_cache_dir": str(tmp_path / "prefixes")}
    make_trainer(copy.deepcopy(policy), processor, tmp_path / "one", **options)
    policy.action_out_proj.bias.data += 1
    make_trainer(policy, processor, tmp_path / "two", **options)
    assert backbone_passes == [4]


def test_what_cannot_be_cached_is_refused(policy, processor, tmp_path):
    cache = str(tmp_path / "prefixes")
    with pytest.raises(ValueError, match=r"prefix_cache_dir=.* has no effect with freeze_backbone=False"):
        FlowDPOConfig(str(tmp_path), prefix_cache_dir=cache)
    rows = make_rows()
    rows.set_transform(lambda batch: batch)
    with pytest.raises(ValueError, match="'train' has its own transform"):
        make_trainer(copy.deepcopy(policy), processor, tmp_path, rows, prefix_cache_dir=cache, freeze_backbone=True)
    lora = LoraConfig(r=2, target_modules=r"vlm.*layers.*q_proj")
    with pytest.raises(ValueError, match="adapter parameters of the backbone are trained"):
        make_trainer(policy, processor, tmp_path, peft_config=lora, prefix_cache_dir=cache, freeze_backbone=True)


def test_too_small_a_disk_is_noticed_before_anything_is_encoded(
    policy, processor, tmp_path, backbone_passes, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 1000, 1000))
    with pytest.raises(OSError, match=r"4 prompts in dataset 'train' take 0\.00 GiB, but .* has 0\.00 GiB free"):
        make_trainer(policy, processor, tmp_path, freeze_backbone=True, prefix_cache_dir=str(tmp_path / "prefixes"))
    assert backbone_passes == []


def test_the_announced_size_is_that_of_the_files(policy, processor, tmp_path, monkeypatch):
    rows, folder, asked = of_different_lengths(), tmp_path / "prefixes", []
    usage = namedtuple("usage", "total used free")

    def make(free: int):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage(0, 0, free))
        options = {"freeze_backbone": True, "prefix_cache_dir": str(folder), "disable_tqdm": False}
        return make_trainer(policy, processor, tmp_path, rows, **options)

    lengths = [len(processor.prompt_ids(row["instruction"], len(row["images"]))[0]) for row in rows]
    assert len(set(lengths)) == 3
    text = policy.config.vlm_config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    expected = sum(lengths) * 4 * 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim
    with pytest.raises(OSError, match="Choose another folder"):
        make(expected - 1)
    trainer = make(expected)
    stored = sum(
        trainer.data_collator([row])["prefix_key_values"].untyped_storage().nbytes() for row in trainer.train_dataset
    )
    assert stored == expected
    assert asked == [folder, folder]


def test_a_damaged_file_is_named(policy, processor, tmp_path):
    trainer = make_trainer(
        policy, processor, tmp_path, freeze_backbone=True, prefix_cache_dir=str(tmp_path / "prefixes")
    )
    file = tmp_path / "prefixes" / f"{trainer.train_dataset[0]['prefix_name']}.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"{file.name} is damaged .* Remove it"):
        trainer.data_collator([trainer.train_dataset[0]])


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.slow
def test_resumed_training_and_evaluation(tiny, processor, tmp_path, precompute):
    def run(name: str, **options):
        return make_trainer(
            copy.deepcopy(tiny[0]),
            processor,
            tmp_path / name,
            make_rows(8),
            eval_dataset={"other": of_different_lengths()},
            freeze_backbone=True,
            precompute_ref_log_probs=precompute,
            save_strategy="steps",
            save_steps=1,
            max_steps=2,
            dataloader_num_workers=1,
            **options,
        )

    cache = {"prefix_cache_dir": str(tmp_path / "prefixes")}
    whole, resumed, without = run("whole", **cache), run("resumed", **cache), run("without")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    without.train()
    assert bit_equal(snapshot(whole.model), resumed.model)
    histories = [list(run.state.log_history) for run in (whole, resumed, without)]
    metrics, expected = whole.evaluate(), without.evaluate()
    assert metrics["eval_other_reference_distance"] > 0
    assert metrics["eval_other_loss"] == pytest.approx(expected["eval_other_loss"], rel=1e-4)
    for one, two, three in zip(*histories, strict=True):
        assert {k: v for k, v in one.items() if k not in TIMING} == {k: v for k, v in two.items() if k not in TIMING}
        if "loss" in one:
            assert one["loss"] == pytest.approx(three["loss"], abs=1e-5)
            assert one["grad_norm"] == pytest.approx(three["grad_norm"], rel=1e-3)


def test_the_folder_says_what_it_holds(policy, processor, tmp_path):
    make_trainer(policy, processor, tmp_path, freeze_backbone=True, prefix_cache_dir=str(tmp_path / "prefixes"))
    settings = json.loads((tmp_path / "prefixes" / "cache.json").read_text())
    assert settings.keys() == {"backbone", "backbone_config", "compute", "processor"}
