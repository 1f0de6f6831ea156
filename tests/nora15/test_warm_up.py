# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Compiled inference: the uncompiled numbers, on the observations it was made for and on all others."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from helpers.inference_runs import CLOSE, draw, widen
from nora15_hf.nora15 import Nora15ForActionPrediction
from nora15_hf.nora15.inference import denoising, generation, prefill
from nora15_hf.nora15.presets import tiny_policy

pytestmark = pytest.mark.slow

LONG, SHORT, LONGER = "press the handle down now", "open the faucet", "open the faucet and then close the faucet again"
NEW_TOKENS = 6


@pytest.fixture(scope="module")
def policies():
    """A policy, and the same compiled for one observation with the long instruction, by flow and by FAST tokens."""
    plain, processor = tiny_policy(seed=0)
    # With random weights another end marker is the first token of every answer.
    plain.generation_config.eos_token_id = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    compiled = copy.deepcopy(widen(plain))
    inputs = observe(processor, [LONG])
    compiled.warm_up(**inputs)
    compiled.warm_up(**inputs, num_samples=3)
    compiled.warm_up(**inputs, decoder="fast", max_new_tokens=NEW_TOKENS)
    return plain, compiled, processor


def observe(processor, texts, size=84):
    pictures = np.random.default_rng(len(texts)).integers(0, 256, (len(texts), size, size, 3), dtype=np.uint8)
    return processor(images=list(pictures), text=texts)


def forbid(monkeypatch):
    """Makes the uncompiled parts fail, so that a result can only come from the compiled ones."""

    def fail(*args):
        raise AssertionError("ran uncompiled")

    for module, name in (
        (prefill, "encode_patches"),
        (prefill, "encode_tokens"),
        (denoising, "velocity_at"),
        (generation, "decode_token"),
    ):
        # Compiled forms are found under the original function.
        monkeypatch.setattr(getattr(module, name), "__code__", fail.__code__)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("text", [LONG, SHORT])
def test_actions(policies, text, num_samples, monkeypatch):
    plain, compiled, processor = policies
    inputs = observe(processor, [text])
    noise = draw(1, 5, 4) if num_samples == 1 else draw(1, num_samples, 5, 4)
    expected = plain.sample_actions(**inputs, noise=noise, num_samples=num_samples)
    forbid(monkeypatch)
    with pytest.raises(AssertionError, match="ran uncompiled"):
        plain.sample_actions(**inputs, noise=noise, num_samples=num_samples)
    found = compiled.sample_actions(**inputs, noise=noise, num_samples=num_samples)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("text", [LONG, SHORT])
def test_fast_tokens(policies, text, monkeypatch):
    plain, compiled, processor = policies
    inputs = observe(processor, [text])
    expected = plain.generate_actions(**inputs, max_new_tokens=NEW_TOKENS)
    assert len(expected[0]) == NEW_TOKENS
    forbid(monkeypatch)
    assert compiled.generate_actions(**inputs, max_new_tokens=NEW_TOKENS) == expected


@pytest.mark.parametrize("texts", [[LONGER], [LONG, SHORT]])
def test_other_observations_run_uncompiled(policies, texts):
    plain, compiled, processor = policies
    inputs, noise = observe(processor, texts), draw(len(texts), 5, 4)
    expected = plain.sample_actions(**inputs, noise=noise)
    torch.testing.assert_close(compiled.sample_actions(**inputs, noise=noise), expected, **CLOSE)
    tokens = plain.generate_actions(**inputs, max_new_tokens=NEW_TOKENS + 1)
    assert compiled.generate_actions(**inputs, max_new_tokens=NEW_TOKENS + 1) == tokens


def test_changed_weights_are_seen(policies, monkeypatch):
    plain, compiled, processor = policies
    inputs, noise = observe(processor, [LONG]), draw(1, 5, 4)
    before = compiled.sample_actions(**inputs, noise=noise)
    changed = copy.deepcopy(plain)
    with torch.no_grad():
        for name in (
            "vlm.model.visual.blocks.0.attn.qkv",
            "vlm.model.language_model.layers.1.mlp.up_proj",
            "action_expert.layers.2.self_attn.v_proj",
            "action_time_mlp_in",
        ):
            changed.get_submodule(name).weight.mul_(1.5)
    expected = changed.sample_actions(**inputs, noise=noise)
    assert (expected - before).abs().max() > 1e-2
    original = copy.deepcopy(compiled.state_dict())
    forbid(monkeypatch)
    compiled.load_state_dict(changed.state_dict())
    try:
        torch.testing.assert_close(compiled.sample_actions(**inputs, noise=noise), expected, **CLOSE)
    finally:
        compiled.load_state_dict(original)


def test_adapters_are_called_and_what_was_compiled_is_left_alone(policies):
    _, compiled, processor = policies
    inputs, noise = observe(processor, [LONG]), draw(1, 5, 4)
    expected = compiled.sample_actions(**inputs, noise=noise)
    names = r"vlm\..*\.q_proj|action_expert\..*\.v_proj|action_time_mlp_out"
    adapted = get_peft_model(compiled, LoraConfig(target_modules=names, init_lora_weights=False))
    try:
        assert (adapted.sample_actions(**inputs, noise=noise) - expected).abs().max() > 1e-3
    finally:
        adapted.unload()
    torch.testing.assert_close(compiled.sample_actions(**inputs, noise=noise), expected, **CLOSE)


def test_layers_of_another_form_run_uncompiled(policies):
    """Compiled code takes sizes, biases and epsilons for granted, and looks at none of them."""
    plain, compiled, processor = policies
    inputs, noise = observe(processor, [LONG]), draw(1, 5, 4)

    def change(policy):
        attention, norm = policy.action_expert.layers[0].self_attn, policy.vlm.model.language_model.layers[1]
        before = attention.q_proj.bias, norm.input_layernorm.variance_epsilon
        attention.q_proj.bias, norm.input_layernorm.variance_epsilon = None, 0.5
        return lambda: (
            setattr(attention.q_proj, "bias", before[0]),
            setattr(norm.input_layernorm, "variance_epsilon", before[1]),
        )

    changed = copy.deepcopy(plain)
    change(changed)
    expected = changed.sample_actions(**inputs, noise=noise)
    assert (expected - plain.sample_actions(**inputs, noise=noise)).abs().max() > 1e-3
    undo = change(compiled)
    try:
        torch.testing.assert_close(compiled.sample_actions(**inputs, noise=noise), expected, **CLOSE)
    finally:
        undo()


def test_copies_and_saved_policies_start_uncompiled(policies, tmp_path, monkeypatch):
    _, compiled, processor = policies
    inputs, noise = observe(processor, [LONG]), draw(1, 5, 4)
    compiled.save_pretrained(tmp_path)
    for other in (copy.deepcopy(compiled), Nora15ForActionPrediction.from_pretrained(tmp_path)):
        expected = compiled.sample_actions(**inputs, noise=noise)
        torch.testing.assert_close(other.sample_actions(**inputs, noise=noise), expected, **CLOSE)
        with monkeypatch.context() as patch:
            forbid(patch)
            with pytest.raises(AssertionError, match="ran uncompiled"):
                other.sample_actions(**inputs, noise=noise)


def test_what_cannot_be_compiled_is_refused(policies):
    plain, _, processor = policies
    inputs = observe(processor, [LONG])
    with pytest.raises(ValueError, match=r'decoder=.flows. must be "flow"'):
        plain.warm_up(**inputs, decoder="flows")
    hooked = copy.deepcopy(plain)
    hooked.action_expert.layers[0].register_forward_hook(lambda *_: None)
    eager = copy.deepcopy(plain)
    eager.set_attn_implementation("eager")
    for model in (hooked, eager):
        with pytest.raises(ValueError, match=r"sample_actions\(\) works without it"):
            model.warm_up(**inputs)
