# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Gradient checkpointing of backbone and expert, and the wall between the expert's loss and the backbone."""

import numpy as np
import pytest
import torch

from helpers.tensor_memory import largest_memory
from nora15_hf.nora15.flow_matching import draw_flow_samples
from nora15_hf.nora15.presets import tiny_policy

pytestmark = pytest.mark.isa

TEXTS = ["open the faucet", "close the faucet, please", "press the button"]


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(image_size=56, state_dim=2, seed=0)[0].train()


@pytest.fixture(scope="module")
def batch():
    model, processor = tiny_policy(image_size=56, state_dim=2, seed=0)
    rng = np.random.default_rng(0)
    batch = processor(
        images=list(rng.integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)),
        text=TEXTS,
        actions=rng.uniform(-0.9, 0.9, (3, 5, 4)).astype(np.float32),
        state=rng.uniform(-1, 1, (3, 2)),
    )
    noise, timestep = draw_flow_samples(model.config, [(row,) for row in range(len(batch["actions"]))], (4,))
    return {**batch, "noise": noise, "timestep": timestep}


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.fixture
def checkpointed(policy):
    policy.activation_checkpointing_enable()
    yield policy
    policy.activation_checkpointing_disable()


@pytest.mark.parametrize("dropped", [(), ("labels",), ("actions",)], ids=["joint", "flow", "fast"])
def test_same_gradients(policy, batch, dropped):
    batch = {key: value for key, value in batch.items() if key not in dropped}
    expected = gradients(policy, batch)
    policy.activation_checkpointing_enable()
    found = gradients(policy, batch)
    policy.activation_checkpointing_disable()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-6)


def peak(model, batch):
    def forward():
        model.zero_grad()
        # Held until counted, with all that its graph has saved.
        return model(**batch)

    return largest_memory({"forward": forward})["forward"]


@pytest.mark.slow
def test_activations_of_both_parts_shrink(policy, batch):
    """Backbone alone, expert alone, both: each saves memory of its own."""
    # As many action tokens as prompt tokens, so that the expert has as much to save as the backbone.
    noise, timestep = batch["noise"].repeat(1, 2, 1, 1), batch["timestep"].repeat(1, 2)
    batch = {**batch, "noise": noise, "timestep": timestep}
    parts = {"backbone": policy.vlm, "expert": policy.action_expert}
    plain = peak(policy, batch)
    saved = {}
    for name, part in parts.items():
        part.activation_checkpointing_enable()
        saved[name] = plain - peak(policy, batch)
        part.activation_checkpointing_disable()
    policy.activation_checkpointing_enable()
    both = plain - peak(policy, batch)
    policy.activation_checkpointing_disable()
    assert min(saved.values()) > 0.15 * plain
    assert both > 0.95 * sum(saved.values())


def test_evaluation_is_untouched(checkpointed, batch):
    prompt = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "state")}
    noise = batch["noise"][:, 0]
    during = checkpointed.sample_actions(**prompt, noise=noise)
    checkpointed.activation_checkpointing_disable()
    assert torch.equal(during, checkpointed.sample_actions(**prompt, noise=noise))


def test_insulated_backbone_gets_no_gradient_of_the_flow(policy, batch):
    policy.zero_grad()
    outputs = policy(**batch, detach_prefix=True)
    (policy.config.flow_loss_weight * outputs.flow_loss).backward()
    moved = {name for name, parameter in policy.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, _ in policy.named_parameters() if not name.startswith("vlm.")}


def test_insulation_changes_no_other_gradient(policy, batch):
    """Of the joint loss: the expert's gradients stay, the backbone's become those of the token loss alone."""
    joint = gradients(policy, batch)
    tokens = gradients(policy, {key: value for key, value in batch.items() if key != "actions"})
    policy.zero_grad()
    policy(**batch, detach_prefix=True).loss.backward()
    for name, parameter in policy.named_parameters():
        expected = tokens[name] if name.startswith("vlm.") else joint[name]
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-5)
