# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Flow DPO: the surrogate, the losses, the trainer, and parity with the released loss."""

import copy
import dataclasses
import json
import logging
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import TrainingArguments
from trl import DPOConfig

from helpers.flow_dpo_runs import bit_equal, make_rows, make_trainer, snapshot
from helpers.paths import FIXTURES
from nora15_hf.nora15.configuration_nora15 import Nora15Config
from nora15_hf.nora15.flow_matching import FlowDraws, draw_flow_samples, draw_times, flow_loss
from nora15_hf.nora15.modeling_nora15 import Nora15ForActionPrediction, Nora15Output
from nora15_hf.trainers.flow_dpo.flow_dpo_config import _INAPPLICABLE, FlowDPOConfig
from nora15_hf.trainers.flow_dpo.preference_loss import preference_loss

pytestmark = pytest.mark.isa

GOLDEN = FIXTURES / "nora15"


def prompt_of(processor) -> dict[str, torch.Tensor]:
    return processor(images=np.zeros((56, 56, 3), dtype=np.uint8), text="open the faucet")


# The released loss


@pytest.fixture(scope="module")
def golden():
    given = json.loads((GOLDEN / "config.json").read_text())["qwen2_5_vl_config"]
    text = {key: given["text_config"][key] for key in ("vocab_size", "hidden_size", "intermediate_size")}
    text |= {key: given["text_config"][key] for key in ("num_hidden_layers", "num_attention_heads", "rms_norm_eps")}
    text |= {
        "num_key_value_heads": given["text_config"]["num_key_value_heads"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }
    vision_keys = ("depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "window_size")
    vision = {key: given["vision_config"][key] for key in vision_keys}
    vision |= {"fullatt_block_indexes": [1], "tokens_per_second": 2}
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Nora15Config(
        vlm_config={
            "text_config": text,
            "vision_config": vision,
            "tie_word_embeddings": True,
            **{key: given[key] for key in tokens},
        },
        action_expert_config={"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 6},
        action_token_start_id=500,
        num_action_tokens=64,
    )
    tensors = load_file(GOLDEN / "dpo.safetensors")
    reference = Nora15ForActionPrediction(config).eval()
    reference.load_state_dict(load_file(GOLDEN / "state_dict.safetensors"))
    policy = copy.deepcopy(reference)
    own = {name.removeprefix("policy."): value for name, value in tensors.items() if name.startswith("policy.")}
    policy.load_state_dict({**reference.state_dict(), **own})
    batch = load_file(GOLDEN / "batch.safetensors")
    prompt = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
    return policy, reference, prompt, tensors


def errors_of(policy, prefix, chunks, draws, **options) -> torch.Tensor:
    return policy(
        prefix=prefix, actions=chunks, **draws._asdict(), **{"loss_reduction": "chunk_mean", **options}
    ).flow_loss


def by_pair(tensor: torch.Tensor) -> torch.Tensor:
    """Released layout `cat[chosen, rejected]` to `(B, 2, ...)`."""
    return torch.stack(tensor.chunk(2), dim=1)


def test_released_loss(golden):
    policy, reference, prompt, tensors = golden
    chunks = by_pair(tensors["actions"])
    draws = FlowDraws(noise=by_pair(tensors["noise"])[:, :, None], timestep=by_pair(tensors["time"])[:, :, None])
    output = policy(**prompt, actions=chunks, **draws._asdict(), loss_reduction="chunk_mean")
    velocity, errors = output.velocity[:, :, 0], output.flow_loss
    with torch.no_grad():
        reference_errors = errors_of(reference, reference.encode_prefix(**prompt), chunks, draws)
    for side, name in enumerate("wl"):
        torch.testing.assert_close(velocity[:, side], tensors[f"velocity.model_{name}"], atol=3e-5, rtol=0)
        torch.testing.assert_close(errors[:, side], tensors[f"model_loss_{name}"], atol=3e-5, rtol=0)
        torch.testing.assert_close(reference_errors[:, side], tensors[f"ref_loss_{name}"], atol=3e-5, rtol=0)
    chosen, rejected = (reference_errors - errors).unbind(1)
    loss = preference_loss(chosen - rejected, "sigmoid", beta=250.0)
    torch.testing.assert_close(250 * (chosen - rejected), tensors["inside_term"], atol=5e-3, rtol=0)
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(tensors["inside_term"]), atol=5e-3, rtol=0)
    torch.testing.assert_close(loss.mean(), tensors["dpo_loss"], atol=5e-3, rtol=0)

    # At the recorded margin: 250 times the rounding of this processor would change the slope there.
    margin = chosen - rejected
    margin = tensors["inside_term"] / 250 + margin - margin.detach()
    policy.zero_grad()
    preference_loss(margin, "sigmoid", beta=250.0).mean().backward()
    parameters = dict(policy.named_parameters())
    compared = [name for name in tensors if name.startswith("grad.")]
    assert len(compared) == 16
    for name in compared:
        gradient = parameters[name.removeprefix("grad.")].grad
        assert (gradient - tensors[name]).norm() < 1e-4 * tensors[name].norm(), name


@pytest.mark.slow
def test_shared_draws_lower_the_variance_of_the_margin(golden):
    """The ratio is at most 0.74; from 256 margins its standard error is 0.05, a third of the distance to 0.9."""
    policy, reference, prompt, tensors = golden
    repeats = 256
    draws = FlowDraws(*(x[0] for x in draw_flow_samples(policy.config, [(0,)], (3, 2 * repeats, 1), stratified=True)))
    own, others = (FlowDraws(*(x[:, half::2] for x in draws)) for half in (0, 1))
    with torch.no_grad():
        prefix = reference.encode_prefix(**prompt)

        def gain(side: int, draws: FlowDraws) -> torch.Tensor:
            chunks = by_pair(tensors["actions"])[:, side : side + 1].repeat(1, repeats, 1, 1)
            return errors_of(reference, prefix, chunks, draws) - errors_of(policy, prefix, chunks, draws)

        chosen = gain(0, own)
        spread = {"shared": (chosen - gain(1, own)).std(1), "independent": (chosen - gain(1, others)).std(1)}
    assert (spread["shared"] < 0.9 * spread["independent"]).all(), spread


# The surrogate


def test_times_are_stratified_and_follow_the_configured_law():
    config = Nora15Config()
    draws = draw_flow_samples(config, [(row,) for row in range(512)], (1, 8), stratified=True)
    quantile = ((draws.timestep - config.time_sampling_offset) / config.time_sampling_scale) ** 1.5
    assert torch.equal((quantile * 8).floor().sort(-1).values, torch.arange(8.0).expand(512, 1, 8))
    # Mean and variance of Beta(1.5, 1): 0.6 and 1.5 / (2.5 ** 2 * 3.5).
    assert abs((draws.timestep.mean() - 0.001) / 0.999 - 0.6) < 0.002
    assert abs(draws.timestep.var() - 1.5 / (2.5**2 * 3.5)) < 0.002
    assert abs(draws.noise.mean()) < 0.01
    assert abs(draws.noise.std() - 1) < 0.01


def test_draws_are_reproducible_and_antithetic():
    config = Nora15Config()
    first, second = (
        draw_flow_samples(config, [(1,), (2,)], (1, 4), stratified=True, antithetic=True) for _ in range(2)
    )
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.timestep, second.timestep)
    assert torch.equal(first.noise[:, :, 1::2], -first.noise[:, :, 0::2])
    with pytest.raises(ValueError, match=r"shape=\(1, 3\) must end with an even number"):
        draw_flow_samples(config, [(1,)], (1, 3), antithetic=True)
    with pytest.raises(ValueError, match="time_sampling_beta_beta=2"):
        draw_times(Nora15Config(time_sampling_beta_beta=2.0), (2, 1), stratified=True)


def test_errors_equal_one_chunk_at_a_time(policy, processor):
    generator = torch.Generator().manual_seed(0)
    chunks = torch.randn(1, 2, 5, 4, generator=generator)
    mask = torch.tensor([[True, True, True, False, False]])
    draws = draw_flow_samples(policy.config, [(0,)], (1, 3), stratified=True)
    with torch.no_grad():
        prefix = policy.encode_prefix(**prompt_of(processor))
        together = {
            reduction: errors_of(policy, prefix, chunks, draws, action_mask=mask, loss_reduction=f"chunk_{reduction}")
            for reduction in ("mean", "sum")
        }
        for side in range(2):
            squared = []
            for noise, time in zip(draws.noise[0, 0], draws.timestep[0, 0], strict=True):
                action = chunks[0, side]
                velocity = policy.predict_velocity((time * noise + (1 - time) * action)[None], time[None], prefix)[0]
                squared.append(((velocity - (noise - action)) ** 2)[:3])
            expected = torch.stack(squared)
            torch.testing.assert_close(together["mean"][0, side], expected.mean(), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together["sum"][0, side], expected.sum((1, 2)).mean(), atol=1e-4, rtol=1e-5)


class PointPolicy(torch.nn.Module):
    """Believes that the clean action is `mean`, so that its error on action a is `(a - mean)^2 / t^2`."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(()))

    def forward(self, actions, noise, timestep, prefix, loss_reduction):
        time = timestep[..., None, None]
        velocity = (time * noise + (1 - time) * actions[:, :, None] - self.mean) / time
        return Nora15Output(flow_loss=flow_loss(velocity, actions, noise, reduction=loss_reduction))


@pytest.mark.parametrize("chosen", [1.0, -1.0])
@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo", "robust"])
def test_gradient_moves_the_mean_towards_the_chosen_action(loss_type, chosen):
    config = Nora15Config(chunk_size=1, action_dim=1)
    policy = PointPolicy()
    chunks = torch.tensor([chosen, -chosen]).view(1, 2, 1, 1)
    draws = draw_flow_samples(config, [(0,)], (1, 2), stratified=True)
    error = errors_of(policy, None, chunks, draws)
    torch.testing.assert_close(error[0, 0], (1 / draws.timestep**2).mean(), rtol=1e-4, atol=0)
    logratio = (error.detach() - error)[0]
    preference_loss((logratio[0] - logratio[1])[None], loss_type, 0.1, 0.1).mean().backward()
    assert math.copysign(1, -policy.mean.grad) == chosen


def test_losses_at_the_reference_and_far_from_it():
    zero = torch.zeros(3)
    torch.testing.assert_close(preference_loss(zero, "sigmoid", 250.0), torch.full((3,), math.log(2)))
    torch.testing.assert_close(preference_loss(zero, "robust", 250.0, 0.1), torch.full((3,), math.log(2)))
    torch.testing.assert_close(preference_loss(zero, "hinge", 250.0), torch.ones(3))
    torch.testing.assert_close(preference_loss(zero, "ipo", 250.0), torch.full((3,), 0.002**2))
    delta = torch.tensor([0.5])
    torch.testing.assert_close(preference_loss(delta, "robust", 2.0), preference_loss(delta, "sigmoid", 2.0))
    assert preference_loss(delta, "hinge", 2.0).item() == 0
    assert preference_loss(torch.tensor([0.25]), "ipo", 2.0).item() == 0
    with pytest.raises(ValueError, match="aot"):
        preference_loss(delta, "aot", 2.0)


# The trainer


@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_training_starts_at_ln_2_and_leaves_the_reference_alone(policy, processor, tmp_path, freeze_backbone):
    trainer = make_trainer(policy, processor, tmp_path, freeze_backbone=freeze_backbone, num_draws=2)
    before, reference = snapshot(policy), snapshot(trainer.ref_model)
    assert bit_equal(before, trainer.ref_model)
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["rewards/margins"] == first["reference_distance"] == 0
    assert first["flow_error/chosen"] == first["flow_error/reference_chosen"]
    assert second["reference_distance"] > 0
    assert first["grad_norm"] > 0
    expected = second["rewards/chosen"] - second["rewards/rejected"]
    assert second["rewards/margins"] == pytest.approx(expected, abs=1e-4)
    assert bit_equal(reference, trainer.ref_model)
    changed = {name for name, tensor in policy.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "action_in_proj.weight" in changed
    assert any(name.startswith("vlm.") for name in changed) != freeze_backbone


def test_frozen_backbone_runs_once_without_gradient_and_is_shared(policy, processor, tmp_path, monkeypatch):
    trainer = make_trainer(policy, processor, tmp_path, freeze_backbone=True, max_steps=1)
    assert trainer.ref_model.vlm is policy.vlm
    assert trainer.ref_model.action_expert is not policy.action_expert
    gradient_enabled = []
    run = Nora15ForActionPrediction.run_backbone

    def counting_run(self, *args, **kwargs):
        gradient_enabled.append(torch.is_grad_enabled())
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Nora15ForActionPrediction, "run_backbone", counting_run)
    trainer.train()
    assert gradient_enabled == [False]


def test_bf16_compute_changes_float32_weights_at_the_released_learning_rate(policy, processor, tmp_path):
    before = snapshot(policy)
    make_trainer(policy, processor, tmp_path, freeze_backbone=True, learning_rate=5e-7, bf16=True).train()
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in trained.values())
    changed = sum((p != before[name]).sum().item() for name, p in trained.items())
    assert changed > 0.95 * sum(p.numel() for p in trained.values())


def test_saved_policy_samples_the_same_actions(policy, processor, tmp_path):
    trainer = make_trainer(policy, processor, tmp_path, freeze_backbone=True, max_steps=1)
    trainer.train()
    trainer.save_model()
    reloaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
    noise = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    prompt = prompt_of(processor)
    assert torch.equal(
        reloaded.sample_actions(**prompt, noise=noise), policy.eval().sample_actions(**prompt, noise=noise)
    )


@pytest.mark.slow
def test_resumed_training_equals_uninterrupted_training(tiny, processor, tmp_path):
    options = {"freeze_backbone": True, "save_strategy": "steps", "save_steps": 1, "dataset": make_rows(8)}
    whole = make_trainer(copy.deepcopy(tiny[0]), processor, tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(copy.deepcopy(tiny[0]), processor, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    assert resumed.state.global_step == 2
    assert bit_equal(snapshot(whole.model), resumed.model)


def test_evaluation_repeats_its_draws_and_leaves_training_metrics_alone(policy, processor, tmp_path):
    trainer = make_trainer(policy, processor, tmp_path, num_draws=2)
    first, second = (trainer.evaluate(make_rows()) for _ in range(2))
    assert first["eval_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["eval_flow_error/chosen"] == second["eval_flow_error/chosen"]
    trainer.train()
    assert not any(key.startswith("eval_") for key in trainer.state.log_history[2])


@pytest.mark.parametrize("added_by_trainer", [True, False])
def test_adapters(tiny, policy, processor, tmp_path, added_by_trainer):
    lora = LoraConfig(r=4, target_modules=r"action_expert\..*\.(q_proj|v_proj)", modules_to_save=["action_out_proj"])
    model, peft_config = (policy, lora) if added_by_trainer else (get_peft_model(policy, lora), None)
    trainer = make_trainer(model, processor, tmp_path, peft_config=peft_config, freeze_backbone=True)
    assert trainer.ref_model is None
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert second["reference_distance"] > 0
    noise = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    prompt = prompt_of(processor)
    # Modules with adapters are called: to the bit, the same as those without where these are called, too.
    base = copy.deepcopy(tiny[0])
    base.use_inference_path = policy.use_inference_path = False
    with trainer.model.disable_adapter():
        before = trainer.model.eval().sample_actions(**prompt, noise=noise)
    assert torch.equal(before, base.sample_actions(**prompt, noise=noise))
    policy.use_inference_path = True

    trainer.save_model()
    after = trainer.model.eval().sample_actions(**prompt, noise=noise)
    assert not torch.equal(after, before)
    reloaded = PeftModel.from_pretrained(copy.deepcopy(tiny[0]), tmp_path).eval()
    torch.testing.assert_close(reloaded.sample_actions(**prompt, noise=noise), after, atol=0, rtol=0)


def test_anchor_is_the_flow_error_of_the_chosen_chunk(policy, processor, tmp_path):
    trainer = make_trainer(policy, processor, tmp_path, sft_weight=2.0, max_steps=1)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(math.log(2) + 2 * first["flow_error/chosen"], rel=1e-5)


def test_collapse_guard_warns_and_stops(policy, processor, tmp_path, caplog):
    options = {"learning_rate": 3e-2, "max_steps": 6, "collapse_factor": 1.01, "stop_on_collapse": True}
    trainer = make_trainer(policy, processor, tmp_path, freeze_backbone=True, **options)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "The policy is forgetting" in caplog.text
    assert trainer.state.global_step < 6


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta=0.0 must be greater than 0"),
        ({"loss_type": ["aot"]}, "loss_type=.*must be a list with one of"),
        ({"loss_type": ["sigmoid", "sft"]}, "set sft_weight"),
        ({"label_smoothing": 0.1}, "has no effect with loss_type"),
        ({"loss_type": ["robust"], "label_smoothing": 0.5}, r"must lie in \[0, 0.5\)"),
        ({"sft_weight": -1.0}, "sft_weight=-1.0 must not be negative"),
        ({"num_draws": 0}, "num_draws=0 must be at least 1"),
        ({"num_draws": 3, "antithetic_noise": True}, "even with antithetic_noise"),
        ({"reduction": "max"}, 'reduction="max"'),
        ({"collapse_factor": 1.0}, "collapse_factor=1.0 must be greater than 1"),
        ({"remove_unused_columns": True}, "remove_unused_columns=True"),
        ({"prediction_loss_only": False}, "prediction_loss_only=False"),
        ({"max_length": 512}, "max_length=512 does not apply"),
        ({"f_divergence_type": "forward_kl"}, "f_divergence_type='forward_kl' does not apply"),
        ({"sync_ref_model": True}, "sync_ref_model=True does not apply"),
        ({"padding_free": True}, "padding_free=True does not apply"),
        ({"use_weighting": True}, "use_weighting=True does not apply"),
    ],
)
def test_config_refuses(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        FlowDPOConfig(str(tmp_path), use_cpu=True, **options)


def test_every_option_of_trl_is_used_or_refused():
    """A new one is a decision to make: into the list here, or into `_INAPPLICABLE` with what to do instead."""
    used = {
        "activation_offloading", "beta", "disable_dropout", "label_smoothing", "loss_type", "precompute_ref_batch_size",
        "precompute_ref_log_probs",
    }  # fmt: skip
    options, parents = ({field.name for field in dataclasses.fields(each)} for each in (DPOConfig, TrainingArguments))
    assert options - parents - set(_INAPPLICABLE) == used
    assert set(_INAPPLICABLE) <= options


def test_an_option_that_trl_drops_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setitem(_INAPPLICABLE, "dropped_option", "nothing")
    FlowDPOConfig(str(tmp_path), use_cpu=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda: make_rows(0), "train_dataset has no rows"),
        (lambda: make_rows().remove_columns("rejected"), r"lacks the columns \['rejected'\]"),
        (lambda: make_rows().with_format("torch"), r"train_dataset has the format 'torch'.*reset_format\(\)"),
        (lambda: make_rows().with_format("numpy"), r"train_dataset has the format 'numpy'"),
        (lambda: make_rows().with_format(columns=["images"]), r"lacks the columns \['chosen', .* it has \['images'\]"),
        (lambda: make_rows(dataset_key=["other"] * 4), r"dataset_key \['other'\]"),
        (lambda: make_rows(chosen=[np.full((5, 4), np.nan)] * 4), "Row 0 of train_dataset: chosen .* not finite"),
        (lambda: make_rows(chosen=[np.ones((5, 4))] * 4, rejected=[np.ones((5, 4))] * 4), "the same chunk"),
        (lambda: make_rows(chosen=[np.zeros((8, 4))] * 4, rejected=[np.ones((8, 4))] * 4), r"shape \(8, 4\)"),
    ],
)
def test_trainer_refuses_rows(policy, processor, tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(policy, processor, tmp_path, rows())


def test_trainer_refuses_models(policy, processor, tmp_path):
    with pytest.raises(TypeError, match="model is a Linear"):
        make_trainer(torch.nn.Linear(2, 2), processor, tmp_path)
    with pytest.raises(ValueError, match=r"is trained in torch\.bfloat16"):
        make_trainer(copy.deepcopy(policy).to(torch.bfloat16), processor, tmp_path)
    with pytest.raises(ValueError, match="No parameter of model requires a gradient"):
        make_trainer(copy.deepcopy(policy).requires_grad_(False), processor, tmp_path)
    with pytest.raises(ValueError, match=r'this run is on cpu\. Use optim="adamw_8bit"'):
        make_trainer(policy, processor, tmp_path, optim="paged_adamw_8bit")
    other = copy.deepcopy(policy)
    other.vlm.lm_head.weight.data += 1
    with pytest.raises(ValueError, match="backbones of model and ref_model differ"):
        make_trainer(policy, processor, tmp_path, ref_model=other, freeze_backbone=True)
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules=r"vlm\.model\.language_model\..*q_proj"))
    with pytest.raises(ValueError, match="adapter parameters of the backbone are trained"):
        make_trainer(adapted, processor, tmp_path, freeze_backbone=True)
