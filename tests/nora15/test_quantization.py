# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy with its backbone in 8 and 4 bits: what is quantised, what that costs, and what can be saved."""

import copy
import re

import numpy as np
import pytest
import torch
from transformers import AutoModel, BitsAndBytesConfig, GPTQConfig

from nora15_hf.nora15 import Nora15ForActionPrediction
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.nora15.quantization import DEFAULT_SKIP_MODULES, backbone_quantization

pytestmark = pytest.mark.isa

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'nora15_hf[quant]'")

CONFIGS = {
    "8bit": {"load_in_8bit": True},
    "fp4": {"load_in_4bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}
LANGUAGE_LINEARS = {
    f"vlm.model.language_model.layers.{layer}.{linear}"
    for layer in range(4)
    for linear in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
}


@pytest.fixture(scope="module")
def policy():
    model, processor = tiny_policy(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wide enough for the action to depend visibly on the backbone.
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.normal_(std=1.0 / parameter[0].numel() ** 0.5, generator=generator)
    return model, processor


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    policy[0].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(policy):
    images = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 3), dtype=np.uint8)
    return policy[1](images=list(images), text=["open the faucet", "press the button"])


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2))


def load(folder, name, **options):
    config = BitsAndBytesConfig(**CONFIGS[name], **options)
    return Nora15ForActionPrediction.from_pretrained(folder, quantization_config=config)


def quantized_modules(model):
    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return {name for name, module in model.named_modules() if isinstance(module, kinds)}


def relative_error(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


class TestLoading:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_exactly_the_language_layers_are_quantized(self, folder, policy, name):
        model = load(folder, name)
        assert quantized_modules(model) == LANGUAGE_LINEARS
        integers = {n.removesuffix(".weight") for n, p in model.named_parameters() if not p.is_floating_point()}
        assert integers == LANGUAGE_LINEARS
        exact = policy[0].state_dict()
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                assert torch.equal(parameter, exact[name]), name
        assert model.get_memory_footprint() < policy[0].get_memory_footprint()

    def test_auto_model(self, folder):
        model = AutoModel.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
        assert quantized_modules(model) == LANGUAGE_LINEARS

    def test_a_list_of_the_callers_own_is_respected(self, folder):
        kept = [*DEFAULT_SKIP_MODULES, "vlm.model.language_model.layers.0"]
        assert quantized_modules(load(folder, "8bit", llm_int8_skip_modules=kept)) == {
            name for name in LANGUAGE_LINEARS if "layers.0." not in name
        }

    def test_the_vision_tower_may_be_quantized(self, folder, inputs, noise):
        kept = [name for name in DEFAULT_SKIP_MODULES if name != "vlm.model.visual"]
        model = load(folder, "8bit", llm_int8_skip_modules=kept)
        added = quantized_modules(model) - LANGUAGE_LINEARS
        assert {"vlm.model.visual.blocks.0.attn.qkv", "vlm.model.visual.merger.mlp.0"} <= added
        assert all(name.startswith("vlm.model.visual.") for name in added)
        assert model.sample_actions(**inputs, noise=noise).isfinite().all()

    def test_the_callers_configuration_is_not_changed(self):
        config = BitsAndBytesConfig(load_in_8bit=True)
        assert backbone_quantization(config).llm_int8_skip_modules == list(DEFAULT_SKIP_MODULES)
        assert config.llm_int8_skip_modules is None

    @pytest.mark.parametrize(
        ("kept", "exposed"),
        [
            ([], "action_expert"),
            (["vlm.lm_head", "vlm.model.visual"], "action_expert"),
            (
                ["expert", *DEFAULT_SKIP_MODULES[1:]],
                "action_expert",
            ),  # ends the module's name, but none of its layers'
            (["action_expert.layers.0", *DEFAULT_SKIP_MODULES[1:]], "action_expert"),
            ([name for name in DEFAULT_SKIP_MODULES if name != "action_out_proj"], "action_out_proj"),
            ([name for name in DEFAULT_SKIP_MODULES if name != "vlm.lm_head"], "vlm.lm_head"),
        ],
    )
    def test_a_list_that_exposes_the_expert_is_refused(self, folder, kept, exposed):
        with pytest.raises(ValueError, match=rf"would quantise \[.*{re.escape(exposed)}"):
            load(folder, "nf4", llm_int8_skip_modules=kept)

    def test_another_method_is_refused(self, folder):
        with pytest.raises(TypeError, match=r"GPTQConfig.*BitsAndBytesConfig"):
            Nora15ForActionPrediction.from_pretrained(folder, quantization_config=GPTQConfig(bits=4))


class TestActions:
    def test_8bit_is_near_float32(self, folder, policy, inputs, noise):
        exact = policy[0].sample_actions(**inputs, noise=noise)
        found = load(folder, "8bit").sample_actions(**inputs, noise=noise)
        assert found.dtype == torch.float32
        assert 0 < relative_error(found, exact) < 0.03

    @pytest.mark.parametrize("name", ["fp4", "nf4"])
    def test_4bit_error_is_that_of_the_rounded_weights(self, folder, policy, inputs, noise, name):
        """The float32 policy with the rounded weights gives the same actions: nothing else has changed."""
        model = load(folder, name)
        rounded = copy.deepcopy(policy[0])
        for module in LANGUAGE_LINEARS:
            weight = model.get_submodule(module).weight
            exact = rounded.get_submodule(module).weight.data
            found = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
            assert 0.05 < relative_error(found, exact) < 0.2
            exact.copy_(found)
        expected = rounded.sample_actions(**inputs, noise=noise)
        # CPUs with AVX512-BF16 multiply in bfloat16.
        assert relative_error(model.sample_actions(**inputs, noise=noise), expected) < 0.02

    @pytest.mark.parametrize("name", ["8bit", "nf4"])
    def test_fast_tokens(self, folder, policy, inputs, name):
        rows = load(folder, name).generate_actions(**inputs, max_new_tokens=4)
        assert len(rows) == 2
        assert all(0 <= token < policy[0].config.num_action_tokens for row in rows for token in row)


class TestSaving:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_reloaded_policy_is_the_same(self, folder, inputs, noise, name, tmp_path):
        model = load(folder, name)
        model.save_pretrained(tmp_path)
        expected = model.sample_actions(**inputs, noise=noise)
        loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
        assert quantized_modules(loaded) == LANGUAGE_LINEARS
        assert torch.equal(loaded.sample_actions(**inputs, noise=noise), expected)

    def test_8bit_can_be_saved_after_use(self, folder, inputs, noise, tmp_path):
        model = load(folder, "8bit")
        expected = model.sample_actions(**inputs, noise=noise)
        model.save_pretrained(tmp_path)
        loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
        assert torch.equal(loaded.sample_actions(**inputs, noise=noise), expected)

    @pytest.mark.parametrize("name", ["fp4", "nf4"])
    def test_4bit_after_use_is_saved_faithfully_or_refused(self, folder, inputs, noise, name, tmp_path):
        model = load(folder, name)
        expected = model.sample_actions(**inputs, noise=noise)
        weight = model.vlm.model.language_model.layers[0].mlp.up_proj.weight
        if "packing_format_for_cpu" in vars(weight.quant_state):  # a CPU with AVX512-BF16
            with pytest.raises(ValueError, match="save it before its first use"):
                model.save_pretrained(tmp_path)
            assert not any(tmp_path.iterdir())
            assert torch.equal(model.sample_actions(**inputs, noise=noise), expected)
        else:
            model.save_pretrained(tmp_path)
            loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
            assert torch.equal(loaded.sample_actions(**inputs, noise=noise), expected)
