# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow DPO's other objectives and anchors, and which options of its parents apply."""

import copy
import logging
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from transformers import TrainingArguments
from trl import DPOConfig

from helpers.flow_dpo_runs import make_rows, make_trainer
from nora15_hf.trainers.flow_dpo.flow_dpo_config import FlowDPOConfig
from nora15_hf.trainers.flow_dpo.preference_loss import proximal_penalty

# FAST tokens


def token_errors(policy, processor, row) -> dict[str, float]:
    """Minus the log-likelihood of each chunk's tokens, one chunk and one token after the other."""
    errors = {}
    prompt = processor(images=row["images"], text=row["instruction"])
    _, closing = processor.prompt_ids(row["instruction"])
    for side in ("chosen", "rejected"):
        [tokens] = processor.action_codec.encode(np.array([row[side]], dtype=np.float32))
        answer = [token + processor.first_action_token_id for token in tokens] + closing
        ids = torch.cat([prompt["input_ids"], torch.tensor([answer])], dim=1)
        with torch.no_grad():
            logits = policy(**{**prompt, "input_ids": ids, "attention_mask": None}, return_logits=True).logits
        log_probs = logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        errors[side] = -log_probs[range(len(answer)), answer].sum().item()
    return errors


def test_fast_tokens_start_at_ln_2_and_are_the_answers_log_likelihood(policy, processor, tmp_path):
    rows = make_rows()
    expected = [token_errors(policy, processor, row) for row in rows]
    trainer = make_trainer(policy, processor, tmp_path, rows, objective="fast", learning_rate=1e-3, fast_beta=1.0)
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    for side in ("chosen", "rejected"):
        assert first[f"token_error/{side}"] == pytest.approx(np.mean([row[side] for row in expected]), rel=1e-5)
    assert second["loss"] < first["loss"]
    assert second["token_rewards/margins"] > 0
    assert not any(name.startswith(("flow_error", "rewards/")) for name in first)


def test_the_joint_loss_is_the_weighted_sum(tiny, processor, tmp_path):
    def first_and_second(name, **options):
        trainer = make_trainer(copy.deepcopy(tiny[0]), processor, tmp_path / name, learning_rate=1e-6, **options)
        batch = trainer.data_collator(list(trainer.train_dataset))
        with torch.no_grad():
            trainer.model.action_out_proj.weight.add_(0.01)
            trainer.model.vlm.get_input_embeddings().weight.mul_(1.1)
        return trainer.compute_loss(trainer.model, batch).item()

    flow, fast = first_and_second("flow", objective="flow"), first_and_second("fast", objective="fast")
    joint = first_and_second("joint", objective="joint", fast_weight=0.3)
    assert flow != pytest.approx(math.log(2), abs=1e-3)
    assert fast != pytest.approx(math.log(2), abs=1e-3)
    assert joint == pytest.approx(flow + 0.3 * fast, rel=1e-4)


def test_the_prompt_is_encoded_once_for_both_answers(policy, processor, tmp_path):
    trainer = make_trainer(policy, processor, tmp_path, objective="joint", max_steps=1)
    images = []
    policy.vlm.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: images.append(1), with_kwargs=True
    )
    trainer.train()
    assert len(images) == 1


def test_chunks_that_tokens_cannot_tell_apart_or_spell(policy, processor, tmp_path, caplog):
    rows = make_rows(chosen=[np.full((5, 4), 0.5)] * 4, rejected=[np.full((5, 4), 0.5001)] * 4)
    with caplog.at_level(logging.WARNING):
        make_trainer(policy, processor, tmp_path, rows, objective="fast")
    assert "4 of the 4 pairs in train_dataset have the same FAST tokens" in caplog.text
    with pytest.raises(ValueError, match=r"train_dataset, column 'rejected': .*train with objective="):
        make_trainer(policy, processor, tmp_path, make_rows(rejected=[np.full((5, 4), 90.0)] * 4), objective="joint")


# Anchors


def test_the_proximal_penalty_is_nothing_inside_its_bound_and_pulls_back_outside():
    rewards = torch.tensor([[0.9, -0.9], [3.0, -2.0], [-3.0, 0.0]], requires_grad=True)
    penalty = proximal_penalty(rewards, 1.0)
    torch.testing.assert_close(penalty, torch.tensor([0.0, (4 + 1) / 2, 4 / 2]))
    penalty.sum().backward()
    torch.testing.assert_close(rewards.grad, torch.tensor([[0.0, 0.0], [2.0, -1.0], [-2.0, 0.0]]))


@pytest.mark.slow
def test_the_proximal_term_keeps_rewards_near_its_bound(tiny, processor, tmp_path):
    def largest_reward(name, **options):
        options |= {"learning_rate": 1e-3, "max_steps": 12, "freeze_backbone": True, "num_draws": 4}
        trainer = make_trainer(copy.deepcopy(tiny[0]), processor, tmp_path / name, **options)
        trainer.train()
        last = trainer.state.log_history[-2]
        return max(abs(last["rewards/chosen"]), abs(last["rewards/rejected"])), last

    free, log = largest_reward("free")
    assert "rewards/out_of_bounds" not in log
    bound, log = largest_reward("bound", proximal_weight=10.0, proximal_bound=1.0)
    assert free > 5
    assert bound < free / 2
    assert 0 <= log["rewards/out_of_bounds"] <= 1


# Options


APPLICABLE = {
    "disable_dropout",
    "precompute_ref_log_probs",
    "precompute_ref_batch_size",
    "loss_type",
    "label_smoothing",
    "beta",
    "activation_offloading",
}
OTHER_VALUES = {
    "model_init_kwargs": {"revision": "main"},
    "trust_remote_code": True,
    "router_aux_loss_coef": 0.1,
    "dataset_num_proc": 2,
    "max_length": 512,
    "truncation_mode": "keep_end",
    "padding_free": True,
    "pad_to_multiple_of": 8,
    "loss_weights": [1.0],
    "ld_alpha": 0.5,
    "f_divergence_type": "forward_kl",
    "f_alpha_divergence_coef": 0.3,
    "use_weighting": True,
    "discopop_tau": 0.1,
    "sync_ref_model": True,
    "ref_model_mixup_alpha": 0.5,
    "ref_model_sync_steps": 64,
    "pad_token": "<pad>",
    # of TrainingArguments
    "use_liger_kernel": True,
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5.0,
    "bf16_full_eval": True,
    "fp16_full_eval": True,
    "remove_unused_columns": True,
    "prediction_loss_only": False,
}


def test_every_option_of_the_parent_is_applied_or_refused():
    own = {option.name for option in fields(DPOConfig)} - {option.name for option in fields(TrainingArguments)}
    assert own == APPLICABLE | (own & OTHER_VALUES.keys())


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_options_that_cannot_apply_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}="):
        FlowDPOConfig(str(tmp_path), use_cpu=True, **{name: OTHER_VALUES[name]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "text"}, 'objective="text" must be "flow", "fast" or "joint"'),
        ({"fast_beta": 1.0}, "fast_beta=1.0 has no effect with objective='flow'.*set objective to 'fast' or 'joint'"),
        ({"fast_weight": 2.0, "objective": "fast"}, "fast_weight=2.0 has no effect with objective='fast'"),
        ({"num_draws": 2, "objective": "fast"}, "num_draws=2 has no effect"),
        ({"freeze_backbone": True, "objective": "joint"}, "freeze_backbone=True has no effect"),
        ({"precompute_ref_folder": "x"}, "precompute_ref_folder='x' has no effect"),
        ({"precompute_ref_batch_size": 8}, "precompute_ref_batch_size=8 has no effect"),
        ({"proximal_bound": 1.0}, "proximal_bound=1.0 has no effect with proximal_weight=0"),
        ({"proximal_weight": -1.0}, "proximal_weight=-1.0 must not be negative"),
        ({"proximal_weight": 1.0, "proximal_bound": 0.0}, "proximal_bound=0.0 must be greater than 0"),
        ({"objective": "fast", "fast_beta": 0.0}, "fast_beta=0.0 must be greater than 0"),
        ({"objective": "joint", "fast_weight": 0.0}, "fast_weight=0.0 must be greater than 0"),
    ],
)
def test_options_that_nothing_uses_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        FlowDPOConfig(str(tmp_path), use_cpu=True, **options)
