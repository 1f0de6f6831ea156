# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow DPO of adapters on a full and on a quantised backbone, 8-bit optimizers, and what a step costs."""

import copy
import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model

import dpo_step
import margin_variance
from helpers.flow_dpo_runs import make_rows, make_trainer
from helpers.tensor_memory import largest_memory
from nora15_hf.nora15.modeling_nora15 import Nora15ForActionPrediction
from nora15_hf.trainers import nf4_config, policy_lora_config

pytestmark = [pytest.mark.isa, pytest.mark.slow]

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'nora15_hf[quant]'",
)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny[0].save_pretrained(folder)
    return folder


def load_quantized(folder) -> Nora15ForActionPrediction:
    return Nora15ForActionPrediction.from_pretrained(
        folder, dtype=torch.float32, quantization_config=nf4_config(torch.float32)
    )


def actions_of(model, processor) -> torch.Tensor:
    noise = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    prompt = processor(images=np.zeros((56, 56, 3), dtype=np.uint8), text="open the faucet")
    return model.eval().sample_actions(**prompt, noise=noise)


@needs_bitsandbytes
@pytest.mark.parametrize("added_by_trainer", [True, False])
def test_adapters_on_a_quantised_backbone(saved, tiny, tmp_path, added_by_trainer):
    processor = tiny[1]
    policy = load_quantized(saved)
    lora = policy_lora_config(policy.config, rank=2)
    model, peft_config = (policy, lora) if added_by_trainer else (get_peft_model(policy, lora), None)
    trainer = make_trainer(model, processor, tmp_path, peft_config=peft_config, max_steps=3)
    learning = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in learning.values())
    assert any("lora_A" in name for name in learning)
    assert any("action_expert" in name for name in learning)
    # Full modules begin as the bits of what they copy, although the parent rounds them to bfloat16.
    weights = dict(tiny[0].named_parameters())
    for name in ("action_out_proj", "action_in_proj"):
        copied = trainer.model.get_parameter(f"base_model.model.{name}.modules_to_save.default.weight")
        assert torch.equal(copied, weights[f"{name}.weight"])
    trainer.train()
    log = trainer.state.log_history
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert log[1]["reference_distance"] > 0
    after = actions_of(trainer.model, processor)
    trainer.save_model()
    reloaded = PeftModel.from_pretrained(load_quantized(saved), tmp_path)
    torch.testing.assert_close(actions_of(reloaded, processor), after, atol=1e-6, rtol=0)


@needs_bitsandbytes
def test_8_bit_optimizer(tiny, tmp_path):
    policy = copy.deepcopy(tiny[0])
    before = policy.action_out_proj.weight.detach().clone()
    trainer = make_trainer(policy, tiny[1], tmp_path, optim="adamw_8bit", freeze_backbone=True)
    trainer.train()
    assert not torch.equal(policy.action_out_proj.weight, before)
    states = [state for state in trainer.optimizer.state.values() if state]
    assert {state["state1"].dtype for state in states} >= {torch.uint8}


def test_gradient_checkpointing_of_adapters(tiny, tmp_path):
    logs = {}
    for checkpointing in (False, True):
        policy = copy.deepcopy(tiny[0])
        trainer = make_trainer(
            policy,
            tiny[1],
            tmp_path / str(checkpointing),
            peft_config=policy_lora_config(policy.config, rank=2),
            gradient_checkpointing=checkpointing,
            objective="joint",
        )
        trainer.train()
        logs[checkpointing] = trainer.state.log_history[:2]
    for plain, checkpointed in zip(logs[False], logs[True], strict=True):
        assert checkpointed["loss"] == pytest.approx(plain["loss"], rel=1e-6)
        assert checkpointed["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)


def test_bf16_weights_that_would_learn_are_refused(tiny, tmp_path):
    policy = copy.deepcopy(tiny[0]).to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"modules_to_save.* is trained in torch\.bfloat16"):
        make_trainer(policy, tiny[1], tmp_path, peft_config=policy_lora_config(policy.config, rank=2))


@pytest.mark.parametrize("lora", [False, True])
def test_accumulated_batches_equal_one(tiny, tmp_path, lora):
    logs = {}
    for size in (4, 2):
        policy = copy.deepcopy(tiny[0])
        trainer = make_trainer(
            policy,
            tiny[1],
            tmp_path / str(size),
            peft_config=policy_lora_config(policy.config, rank=2) if lora else None,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            num_draws=2,
        )
        trainer.train()
        logs[size] = trainer.state.log_history[:2]
    for whole, accumulated in zip(logs[4], logs[2], strict=True):
        for key in ("loss", "grad_norm", "flow_error/chosen"):
            assert accumulated[key] == pytest.approx(whole[key], rel=1e-4), key


def test_the_last_batch_may_be_smaller(tiny, tmp_path):
    options = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_steps": 3}
    trainer = make_trainer(copy.deepcopy(tiny[0]), tiny[1], tmp_path, make_rows(5), freeze_backbone=True, **options)
    trainer.train()
    assert trainer.state.epoch == 1
    rows = make_rows(3)
    together = trainer.evaluate(rows)
    trainer.args.per_device_eval_batch_size = 1
    one_by_one = trainer.evaluate(rows)
    assert together["eval_flow_error/chosen"] == pytest.approx(one_by_one["eval_flow_error/chosen"], rel=1e-5)


@pytest.fixture
def requested_memory(monkeypatch):
    """The benchmark counts what its steps ask for instead of what the allocator gives, libraries included."""
    monkeypatch.setattr(dpo_step, "peak_memory", largest_memory)


def test_a_step_costs_one_backbone_pass(tmp_path, capsys, requested_memory):
    output = tmp_path / "dpo_step.json"
    arguments = ["--size", "tiny", "--pairs", "2", "--rounds", "1", "--draws", "2", "--output", str(output)]
    results = dpo_step.main(arguments)["results"]
    passes = {name: row["backbone_passes"] for name, row in results.items()}
    assert passes == {
        "plain": pytest.approx(8, rel=1e-6),
        "ours, live reference": pytest.approx(1, rel=1e-6),
        "ours, precomputed reference": pytest.approx(1, rel=1e-6),
        "ours, prefixes on disk": 0,
        "ours, prefixes on disk, precomputed reference": 0,
    }
    memory = {name: row["memory_bytes"] for name, row in results.items()}
    assert max(memory.values()) == memory["plain"]
    assert all(0 < row["fastest"] <= row["median"] <= row["slowest"] for row in results.values())
    assert json.loads(output.read_text())["conditions"]["torch_threads"] >= 1
    assert "| ours, prefixes on disk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "dtype"),
    [
        ("full", "float32"),
        ("lora", "float32"),
        pytest.param("qlora", "float32", marks=needs_bitsandbytes),
        pytest.param("qlora", "bfloat16", marks=needs_bitsandbytes),
    ],
)
def test_a_step_of_everything_and_of_adapters(train, dtype, capsys, requested_memory):
    """What a GPU is asked to measure runs on the CPU: gradients agree, or `main` raises, and ours takes less of all."""
    arguments = ["--size", "tiny", "--pairs", "2", "--rounds", "1", "--train", train, "--dtype", dtype]
    outcome = dpo_step.main([*arguments, *(["--gradient_checkpointing"] if dtype == "bfloat16" else [])])
    results = outcome["results"]
    plain = results.pop("plain")
    assert results.keys() == dpo_step.OURS.keys()
    for name, row in results.items():
        assert row["memory_bytes"] <= plain["memory_bytes"], name
        assert row["backbone_passes"] < 0.6 * plain["backbone_passes"], name
    assert f"{train} training, 2 pairs" in capsys.readouterr().out


def test_a_step_that_trains_another_loss_is_not_timed(monkeypatch):
    loss = dpo_step.PlainStep.loss
    monkeypatch.setattr(dpo_step.PlainStep, "loss", lambda self: 1.01 * loss(self))
    with pytest.raises(RuntimeError, match="trains another loss than the plain one"):
        dpo_step.main(["--size", "tiny", "--pairs", "2", "--rounds", "1"])


def test_shared_draws_lower_the_deviation_of_the_margin(tmp_path):
    figure = tmp_path / "margins.png"
    arguments = ["--pairs", "4", "--draws", "2", "--repeats", "12", "--figure", str(figure)]
    found = {row["kind"]: row["standard_deviation"] for row in margin_variance.main(arguments)["results"]}
    assert found["shared"] < 0.9 * found["independent"]
    assert figure.is_file()
