# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Reference values computed before training: what they are, that they are reused, and when they are refused."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from helpers.flow_dpo_runs import bit_equal, make_rows, make_trainer, snapshot
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers.flow_dpo.flow_dpo_trainer import FlowDPOTrainer, _reference_fingerprints
from nora15_hf.trainers.flow_dpo.preference_reference import rows_fingerprint

OPTIONS = {"precompute_ref_log_probs": True, "freeze_backbone": True, "num_draws": 2}


@pytest.mark.parametrize("options", [{}, {"freeze_backbone": True}, OPTIONS])
def test_a_policy_that_is_trained_again_begins_with_a_reference_of_its_own(policy, processor, tmp_path, options):
    logs = []
    for number in (1, 2):
        trainer = make_trainer(policy, processor, tmp_path / str(number), learning_rate=1e-2, **options)
        trainer.train()
        logs.append(trainer.state.log_history)
    for first, second in (log[:2] for log in logs):
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert second["rewards/margins"] != 0
        assert second["flow_error/reference_chosen"] != second["flow_error/chosen"]
    assert "forward" not in vars(policy)


def test_a_forward_that_a_copy_would_share(policy, processor, tmp_path):
    add_fused_lm_head(policy)
    with pytest.raises(ValueError, match="replaced the policy's forward by a function that calls this very policy"):
        make_trainer(policy, processor, tmp_path)


@pytest.mark.parametrize("objective", ["flow", "fast", "joint"])
def test_they_replace_the_reference(policy, processor, tmp_path, objective):
    options = OPTIONS if objective == "flow" else {"precompute_ref_log_probs": True, "objective": objective}
    trainer = make_trainer(policy, processor, tmp_path, **options)
    assert trainer.ref_model is None
    before = snapshot(policy)
    trainer.train()
    first, second = trainer.state.log_history[:2]
    losses = 2 if objective == "joint" else 1
    assert first["loss"] == pytest.approx(losses * math.log(2), abs=1e-6)
    # Both steps saw the same rows under the same draws: their reference is the same, the policy is not.
    for name in ["flow_error"] * (objective != "fast") + ["token_error"] * (objective != "flow"):
        assert second[f"{name}/reference_chosen"] == pytest.approx(first[f"{name}/reference_chosen"], rel=1e-6)
        assert second[f"{name}/chosen"] != first[f"{name}/chosen"]
    assert not bit_equal(before, policy)


def test_one_backbone_pass_per_step_and_none_for_known_values(policy, processor, tmp_path, backbone_passes):
    untrained = copy.deepcopy(policy)
    trainer = make_trainer(policy, processor, tmp_path, precompute_ref_batch_size=2, **OPTIONS)
    assert backbone_passes == [2, 2]
    trainer.train()
    assert backbone_passes == [2, 2, 4, 4]
    again = make_trainer(untrained, processor, tmp_path, **OPTIONS)
    assert backbone_passes == [2, 2, 4, 4]
    assert again.train_dataset["reference_velocity"][:] == trainer.train_dataset["reference_velocity"][:]


def change_policy(policy):
    policy.action_out_proj.bias.data += 1
    return {}


def change_rows(policy):
    images = [[image.rotate(90) for image in row] for row in make_rows()["images"]]
    return {"dataset": make_rows(images=images)}


def change_geometry(policy):
    """The same weights, but another computation."""
    policy.config.action_expert_config.rms_norm_eps = 1e-5
    return {}


def of_adapters(policy, alpha):
    lora = LoraConfig(r=2, lora_alpha=alpha, target_modules=r"action_expert\..*q_proj", init_lora_weights=False)
    torch.manual_seed(0)
    return _reference_fingerprints(get_peft_model(copy.deepcopy(policy), lora))


def test_another_scale_of_the_same_adapters_is_another_reference(policy):
    assert of_adapters(policy, 4) == of_adapters(policy, 4)
    one, other = of_adapters(policy, 4), of_adapters(policy, 8)
    assert {name for name in one if one[name] != other[name]} == {"configuration of the reference"}


def change_states(rows, processor):
    rows["state"][1][2] += 1e-3


def change_key_of_states(rows, processor):
    rows["dataset_key"][1] = "other"


def change_statistics_of_states(rows, processor):
    statistics = processor.state_stats["default"]
    wider = dataclasses.replace(statistics, max=statistics.max + 1)
    processor.set_norm_stats(processor.norm_stats, processor.state_stats | {"default": wider})


def change_instruction(rows, processor):
    rows["instruction"][1] = "close the faucet"


def change_case_of_instructions(rows, processor):
    rows["instruction"] = [instruction.title() for instruction in rows["instruction"]]


def change_chunk(rows, processor):
    rows["chosen"][1][0, 0] += 1e-3


def swap_images(rows, processor):
    rows["images"][0], rows["images"][1] = rows["images"][1], rows["images"][0]


def change_first_token(rows, processor):
    processor.first_action_token_id += 1


@pytest.mark.parametrize(
    ("change", "of_tokens_only"),
    [
        (change_states, False),
        (change_key_of_states, False),
        (change_statistics_of_states, False),
        (change_instruction, False),
        (change_case_of_instructions, False),
        (change_chunk, False),
        (swap_images, False),
        (change_first_token, True),
    ],
)
def test_rows_are_the_same_when_the_reference_reads_the_same(change, of_tokens_only):
    def content():
        _, processor = tiny_policy(("open the faucet", "close"), image_size=56, state_dim=3)
        # Different for each dataset key.
        other = processor.state_stats["default"]
        other = dataclasses.replace(other, max=other.max + 2)
        stats = processor.norm_stats["default"]
        processor.set_norm_stats(
            {"default": stats, "other": stats}, {"default": processor.state_stats["default"], "other": other}
        )
        plain = make_rows()
        rows = {
            name: plain.with_format("numpy" if name in ("chosen", "rejected") else None)[name][:]
            for name in plain.features
        }
        rows["state"] = [[0.1 * row, 0.2, 0.3] for row in range(4)]
        rows["images"], rows["chosen"] = list(rows["images"]), [np.array(chunk) for chunk in rows["chosen"]]
        return rows, processor

    def of(rows, processor, action_tokens):
        return rows_fingerprint(make_rows(**rows), processor, action_tokens=action_tokens)

    rows, processor = content()
    # What the reference does not read.
    with_masks = make_rows(**rows, action_mask=[[True] * 4 + [False]] * 4)
    before = {tokens: of(rows, processor, tokens) for tokens in (True, False)}
    assert rows_fingerprint(with_masks, processor, action_tokens=True) == before[True]
    rows, processor = content()
    change(rows, processor)
    processor._prompts.clear()
    after = {tokens: of(rows, processor, tokens) for tokens in (True, False)}
    assert after[True] != before[True]
    assert (after[False] != before[False]) is not of_tokens_only


def test_a_reference_without_a_state_does_not_read_it(processor):
    rows = [make_rows(state=[[row * 1.0] for row in range(start, start + 4)]) for start in (0, 4)]
    assert len({rows_fingerprint(each, processor, action_tokens=False) for each in rows}) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_policy, "another reference"),
        (change_rows, "another set of rows"),
        (lambda policy: {"dataset": make_rows().select([1, 0, 2, 3])}, "another set of rows"),
        (lambda policy: {"seed": 7}, "another set of draws"),
        (lambda policy: {"num_draws": 4}, "another set of draws"),
        (lambda policy: {"bf16": True}, "another set of draws"),
        (change_geometry, "another configuration of the reference"),
    ],
    ids=["policy", "images", "order", "seed", "draws", "precision", "geometry"],
)
def test_values_of_something_else_are_refused(policy, processor, tmp_path, change, named):
    make_trainer(copy.deepcopy(policy), processor, tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match=f"{named} .*name another precompute_ref_folder"):
        make_trainer(policy, processor, tmp_path, **{**OPTIONS, **change(policy)})


def test_the_folder_can_be_shared_between_runs(policy, processor, tmp_path, backbone_passes):
    for name in ("one", "two"):
        make_trainer(
            copy.deepcopy(policy),
            processor,
            tmp_path / name,
            precompute_ref_folder=str(tmp_path / "reference"),
            beta={"one": 10.0, "two": 20.0}[name],
            **OPTIONS,
        )
    assert backbone_passes == [4]


def test_evaluation(policy, processor, tmp_path):
    rng = np.random.default_rng(1)
    rows = make_rows(chosen=list(rng.normal(scale=0.5, size=(4, 5, 4)).astype(np.float32)))
    # Named as the training rows are.
    trainer = make_trainer(policy, processor, tmp_path, eval_dataset={"train": rows}, **OPTIONS)
    files = {path.name for path in (tmp_path / "_reference").iterdir()}
    assert files == {"train.safetensors", "eval_train.safetensors"}
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_train_reference_distance"] > 0
    assert metrics["eval_train_loss"] != pytest.approx(math.log(2), abs=1e-6)
    with pytest.raises(ValueError, match=r"no reference remains\. Pass the dataset to the trainer as eval_dataset"):
        trainer.evaluate(rows)


@pytest.mark.parametrize("added_by_trainer", [True, False])
def test_adapters_keep_their_reference(policy, processor, tmp_path, added_by_trainer):
    lora = LoraConfig(r=4, target_modules=r"action_expert\..*\.(q_proj|v_proj)", modules_to_save=["action_out_proj"])
    model, peft_config = (policy, lora) if added_by_trainer else (get_peft_model(policy, lora), None)
    trainer = make_trainer(model, processor, tmp_path, peft_config=peft_config, **OPTIONS)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for start in (0, 4):
        # One set after another, neither under the name of the other.
        trainer.evaluate(make_rows(8).select(range(start, start + 4)))
        assert trainer.state.log_history[-1]["eval_reference_distance"] > 0


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.slow
def test_resumed_training_equals_uninterrupted_training(tiny, processor, tmp_path, lora):
    def run(name: str) -> FlowDPOTrainer:
        return make_trainer(
            copy.deepcopy(tiny[0]),
            processor,
            tmp_path / name,
            make_rows(8),
            peft_config=LoraConfig(r=2, target_modules=r"action_expert\..*q_proj") if lora else None,
            precompute_ref_folder=str(tmp_path / "reference"),
            save_strategy="steps",
            save_steps=2,
            max_steps=4,
            **OPTIONS,
        )

    whole, resumed = run("whole"), run("resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert bit_equal(snapshot(whole.model), resumed.model)
    timing = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
    for one, two in zip(whole.state.log_history, resumed.state.log_history, strict=True):
        assert {k: v for k, v in one.items() if k not in timing} == {k: v for k, v in two.items() if k not in timing}


def test_a_truncated_file_is_an_error(policy, processor, tmp_path):
    make_trainer(copy.deepcopy(policy), processor, tmp_path, **OPTIONS)
    path = tmp_path / "_reference" / "train.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"train.safetensors is damaged .*[Ii]ncomplete"):
        make_trainer(policy, processor, tmp_path, **OPTIONS)


def test_no_gradient_reaches_the_stored_values(policy, processor, tmp_path):
    trainer = make_trainer(policy, processor, tmp_path, **OPTIONS)
    batch = trainer.data_collator(list(trainer.train_dataset))
    values = batch["reference_velocity"]
    assert values.dtype == torch.float32
    assert values.shape == (4, 2 * 2 * 5 * 4)
    assert not values.requires_grad


@pytest.mark.slow
def test_a_push_carries_policy_processor_card_and_curves_but_not_the_values(policy, processor, tmp_path, hub):
    options = OPTIONS | {"push_to_hub": True, "hub_model_id": "robots/policy-dpo", "save_strategy": "steps"}
    trainer = make_trainer(policy, processor, tmp_path / "run", save_steps=2, **options)
    trainer.train()
    trainer.push_to_hub()
    files = hub.files("robots/policy-dpo")
    expected = {"model.safetensors", "config.json", "processor_config.json", "README.md", "preference_curves.png"}
    assert expected <= files.keys()
    assert [path for path in files if path.startswith(("_", "checkpoint"))] == []
    card = files["README.md"].decode()
    assert "| beta | 250 |" in card
    assert "(preference_curves.png)" in card
