# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The inference path, which reads weights instead of calling modules, gives the modules' numbers, whatever happens to them."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from helpers.inference_runs import CLOSE, draw, widen
from helpers.module_calls import ModuleCalls
from nora15_hf.nora15 import Nora15ForActionPrediction
from nora15_hf.nora15.inference.joined_linear import ONEDNN_MIN_ROWS, joined_linear, linear
from nora15_hf.nora15.inference.known_policy import is_known_backbone, is_known_generator
from nora15_hf.nora15.inference.prefill import attend_windows
from nora15_hf.nora15.presets import tiny_policy
from random_policy import random_policy

pytestmark = pytest.mark.isa

TEXTS = ["open the faucet", "press the handle down", "open the faucet please now"]


@pytest.fixture
def policy():
    model, processor = tiny_policy(seed=0)
    return widen(model), processor


@pytest.fixture
def inputs(policy):
    """Three rows of unequal length, so that two are padded."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, 84, 84, 3), dtype=np.uint8)
    return policy[1](images=list(pictures), text=TEXTS)


@torch.no_grad()
def prefix_by_modules(model, inputs, **extra):
    model.use_inference_path = False
    prefix = model.encode_prefix(**inputs, **extra)
    model.use_inference_path = True
    return prefix


@torch.no_grad()
def by_modules(model, inputs, noise, num_steps=4, **extra):
    """Sampling as training runs the policy."""
    prefix = prefix_by_modules(model, inputs, **extra)
    sample = noise
    for step in range(num_steps):
        time = torch.full(noise.shape[:-2], 1 - step / num_steps)
        sample = sample - model.predict_velocity(sample, time, prefix) / num_steps
    return sample


def transposed_in_one_storage(*layers):
    """As weights come that another library keeps with the input's axis first."""
    storage = torch.stack([2 * layer.weight.data.t() for layer in layers])
    for layer, weight in zip(layers, storage, strict=True):
        layer.weight = nn.Parameter(weight.t())


class TestSameNumbers:
    @pytest.mark.parametrize("num_samples", [1, 3])
    def test_actions(self, policy, inputs, num_samples, monkeypatch):
        model, _ = policy
        noise = draw(3, 5, 4) if num_samples == 1 else draw(3, num_samples, 5, 4)
        expected = by_modules(model, inputs, noise)
        calls = ModuleCalls(model.action_expert.layers[0], monkeypatch)
        found = model.sample_actions(**inputs, noise=noise, num_steps=4, num_samples=num_samples)
        assert calls.count == 0
        torch.testing.assert_close(found, expected, **CLOSE)

    def test_prefix(self, policy, inputs):
        model, _ = policy
        with torch.no_grad():
            expected, found = prefix_by_modules(model, inputs), model.encode_prefix(**inputs)
        real = inputs["attention_mask"].bool()
        assert torch.equal(found.mask, expected.mask)
        for kind in ("keys", "values"):
            for one, other in zip(getattr(found, kind), getattr(expected, kind), strict=True):
                torch.testing.assert_close(one.transpose(1, 2)[real], other.transpose(1, 2)[real], **CLOSE)

    def test_state_token(self, policy, inputs):
        model, _ = policy
        model.add_state_input(3)
        widen(model)
        state, noise = draw(3, 3, seed=1), draw(3, 2, 5, 4)
        expected = by_modules(model, inputs, noise, state=state)
        found = model.sample_actions(**inputs, noise=noise, num_steps=4, num_samples=2, state=state)
        torch.testing.assert_close(found, expected, **CLOSE)
        other = model.sample_actions(**inputs, noise=noise, num_steps=4, num_samples=2, state=state + 1)
        assert (other - found).abs().max() > 1e-2

    @pytest.mark.parametrize("grids", [[(1, 18, 18)], [(1, 16, 16)] * 2, [(1, 16, 16), (1, 8, 12)], [(1, 4, 4)]])
    def test_pictures_of_every_size(self, grids):
        """Windows of equal length in one batch, of unequal length one by one."""
        model = random_policy("tiny")
        visual, grid = model.vlm.model.visual, torch.tensor(grids)
        pixels = draw(int(grid.prod(-1).sum()), 3 * 2 * 14 * 14)
        ids = torch.tensor([[20, *[2] * (len(pixels) // 4), 21]])
        prompt = {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grid}
        with torch.no_grad():
            expected = visual(pixels, grid_thw=grid)
            prefix, by_module = model.encode_prefix(**prompt), prefix_by_modules(model, prompt)
        assert expected.pooler_output.abs().max() > 0.1
        torch.testing.assert_close(prefix.keys[-1], by_module.keys[-1], **CLOSE)

    def test_windows_in_one_batch_equal_windows_one_by_one(self):
        query, key, value = (draw(32, 2, 8, seed=seed) for seed in range(3))
        together = attend_windows(query, key, value, (16, 16), 0.3)
        alone = torch.cat([attend_windows(query[:16], key[:16], value[:16], (16,), 0.3)] * 1)
        torch.testing.assert_close(together[:16], alone)
        # Another split of the first half is another result: the lengths matter.
        unequal = attend_windows(query, key, value, (10, 6, 16), 0.3)
        torch.testing.assert_close(unequal[16:], together[16:])
        assert (unequal[:16] - together[:16]).abs().max() > 1e-2

    @pytest.mark.parametrize(
        "change",
        [
            lambda text, expert, vision: setattr(text.self_attn, "scaling", 0.05),
            lambda text, expert, vision: setattr(expert.self_attn, "scaling", 0.05),
            lambda text, expert, vision: setattr(vision.attn, "scaling", 0.05),
            lambda text, expert, vision: setattr(text.self_attn.k_proj, "weight", text.self_attn.v_proj.weight),
            lambda text, expert, vision: setattr(expert.mlp.gate_proj, "weight", expert.mlp.up_proj.weight),
            lambda text, expert, vision: setattr(
                vision.mlp.gate_proj, "weight", nn.Parameter(vision.mlp.up_proj.weight.data)
            ),
            lambda text, expert, vision: transposed_in_one_storage(text.mlp.gate_proj, text.mlp.up_proj),
        ],
        ids=[
            "text scaling",
            "expert scaling",
            "vision scaling",
            "tied",
            "tied in the expert",
            "tied memory",
            "transposed",
        ],
    )
    def test_modules_that_were_changed_by_hand(self, policy, inputs, change):
        model, noise = policy[0], draw(3, 5, 4)
        before = model.sample_actions(**inputs, noise=noise, num_steps=2)
        vlm = model.vlm.model
        change(vlm.language_model.layers[1], model.action_expert.layers[1], vlm.visual.blocks[1])
        expected = by_modules(model, inputs, noise, num_steps=2)
        for _ in range(2):
            found = model.sample_actions(**inputs, noise=noise, num_steps=2)
            torch.testing.assert_close(found, expected, **CLOSE)
        assert (expected - before).abs().max() > 1e-3

    def test_bfloat16(self, policy, inputs):
        model, _ = policy
        exact = model.sample_actions(**inputs, noise=draw(3, 5, 4), num_steps=4)
        model.to(torch.bfloat16)
        found = model.sample_actions(**inputs, noise=draw(3, 5, 4), num_steps=4)
        assert found.dtype == torch.float32
        assert ((found - exact).norm() / exact.norm()).item() < 0.05

    @pytest.mark.parametrize("rows", [ONEDNN_MIN_ROWS - 1, ONEDNN_MIN_ROWS])
    def test_linear_on_both_sides_of_the_threshold(self, rows):
        x, weight, bias = draw(1, rows, 24), draw(10, 24, seed=1), draw(10, seed=2)
        torch.testing.assert_close(linear(x, weight, bias), x @ weight.T + bias, **CLOSE)
        torch.testing.assert_close(linear(x, weight), x @ weight.T, **CLOSE)


class TestWhatCannotBeRead:
    """Whatever stands between a weight and its use goes through the modules; nothing is passed over."""

    @pytest.mark.parametrize("targets", [r".*(q_proj|up_proj)", r".*action_expert.*v_proj", "action_time_mlp_in"])
    def test_adapters(self, policy, inputs, targets):
        model, _ = policy
        noise = draw(3, 5, 4)
        before = model.sample_actions(**inputs, noise=noise, num_steps=4)
        adapted = get_peft_model(model, LoraConfig(target_modules=targets, r=4, init_lora_weights=False))
        found = model.sample_actions(**inputs, noise=noise, num_steps=4)
        assert (found - before).abs().max() > 1e-2
        torch.testing.assert_close(found, by_modules(model, inputs, noise), **CLOSE)
        with adapted.disable_adapter():
            off = model.sample_actions(**inputs, noise=noise, num_steps=4)
        torch.testing.assert_close(off, before, **CLOSE)

    def test_attributes_that_are_not_read(self, policy):
        model, _ = policy
        language_model = model.vlm.model.language_model
        for is_known, module, name, value in (
            (is_known_backbone, language_model.layers[1].self_attn, "is_causal", False),
            (is_known_backbone, language_model.embed_tokens, "max_norm", 1.0),
            # As of a layer that stands in two places: in the cache of `generate` it has one.
            (is_known_generator, language_model.layers[1].self_attn, "layer_idx", 0),
        ):
            usual = getattr(module, name)
            setattr(module, name, value)
            assert not is_known(model)
            setattr(module, name, usual)
            assert is_known(model)

    def test_expert_trained_beside_an_adapter(self, policy, inputs):
        model, _ = policy
        noise = draw(3, 5, 4)
        before = model.sample_actions(**inputs, noise=noise, num_steps=4)
        config = LoraConfig(target_modules=r".*language_model.*q_proj", modules_to_save=["action_expert"])
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for parameter in model.action_expert.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.02)
        found = model.sample_actions(**inputs, noise=noise, num_steps=4)
        assert (found - before).abs().max() > 1e-3
        torch.testing.assert_close(found, by_modules(model, inputs, noise), **CLOSE)
        with adapted.disable_adapter():
            off = model.sample_actions(**inputs, noise=noise, num_steps=4)
        torch.testing.assert_close(off, before, **CLOSE)

    def test_eager_attention(self, policy, inputs, monkeypatch):
        model, _ = policy
        model.set_attn_implementation("eager")
        calls = ModuleCalls(model.action_expert.layers[0], monkeypatch)
        model.sample_actions(**inputs, num_steps=2)
        assert calls.count == 2 * len(model.action_expert.layers)


class TestSwitch:
    """`use_inference_path = False`: the modules alone, and none of the folder's code."""

    def test_the_same_numbers_by_modules(self, policy, inputs, monkeypatch):
        model, _ = policy
        noise = draw(3, 2, 5, 4)
        expected = model.sample_actions(**inputs, noise=noise, num_steps=4, num_samples=2)
        tokens = model.generate_actions(**inputs, max_new_tokens=4)
        prefix = ModuleCalls(model.vlm.model.language_model.layers[0], monkeypatch)
        expert = ModuleCalls(model.action_expert.layers[0], monkeypatch)
        model.use_inference_path = False
        found = model.sample_actions(**inputs, noise=noise, num_steps=4, num_samples=2)
        assert prefix.count == len(model.vlm.model.language_model.layers)
        assert expert.count == 4 * len(model.action_expert.layers)
        torch.testing.assert_close(found, expected, **CLOSE)
        assert model.generate_actions(**inputs, max_new_tokens=4) == tokens
        with pytest.raises(ValueError, match="use_inference_path=False"):
            model.warm_up(**inputs)

    def test_the_last_layer_is_not_finished_for_nobody(self, policy, inputs, monkeypatch):
        model, _ = policy
        model.use_inference_path = False
        calls = ModuleCalls(model.vlm.model.language_model.layers[0].mlp, monkeypatch)
        model.sample_actions(**inputs, num_steps=1)
        assert calls.count == len(model.vlm.model.language_model.layers) - 1 + len(model.action_expert.layers)

    @pytest.mark.slow
    def test_without_the_folder(self):
        """Also a fresh import: nothing else in the package leans on it."""
        code = """
import sys
sys.modules["nora15_hf.nora15.inference"] = None
import numpy as np
import nora15_hf
from nora15_hf.nora15.presets import tiny_policy
model, processor = tiny_policy(seed=0)
inputs = processor(images=np.zeros((84, 84, 3), dtype=np.uint8), text="open the faucet")
try:
    model.sample_actions(**inputs)
except ImportError:
    print("missed")
model.use_inference_path = False
print(tuple(model.sample_actions(**inputs).shape), len(model.generate_actions(**inputs, max_new_tokens=2)))
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.stdout.splitlines() == ["missed", "(1, 5, 4) 1"], run.stderr


class TestNothingGrowsOld:
    """Joined weights are the parameters' own storage."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda parameter: parameter.add_(0.05),
            lambda parameter: parameter.data.copy_(parameter.data + 0.05),
            lambda parameter: setattr(parameter, "data", parameter.data + 0.05),
        ],
        ids=["in place", "through data", "replaced"],
    )
    def test_after_a_change_of_the_weights(self, policy, inputs, change):
        model, _ = policy
        noise = draw(3, 5, 4)
        before = model.sample_actions(**inputs, noise=noise, num_steps=4)
        with torch.no_grad():
            for parameter in model.parameters():
                change(parameter)
        found = model.sample_actions(**inputs, noise=noise, num_steps=4)
        assert (found - before).abs().max() > 1e-2
        torch.testing.assert_close(found, by_modules(model, inputs, noise), **CLOSE)

    def test_after_training_steps(self, policy, inputs):
        """The gradient of each parameter stays its own although they share a storage."""
        model, _ = policy
        untouched = copy.deepcopy(model)
        model.sample_actions(**inputs, num_steps=1)
        noise, times, actions = draw(3, 5, 4), torch.tensor([0.2, 0.5, 0.9]), draw(3, 5, 4, seed=3)
        for network in (model, untouched):
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
            for _ in range(2):
                network(**inputs, actions=actions, noise=noise, timestep=times).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        for (name, one), other in zip(model.named_parameters(), untouched.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0, msg=name)
        found = model.sample_actions(**inputs, noise=noise, num_steps=4)
        torch.testing.assert_close(found, by_modules(model, inputs, noise), **CLOSE)

    def test_after_loading_and_copying(self, policy, inputs):
        model, _ = policy
        noise = draw(3, 5, 4)
        model.sample_actions(**inputs, num_steps=1)
        other = widen(copy.deepcopy(model))
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.1)
        expected = other.sample_actions(**inputs, noise=noise, num_steps=4)
        assert (model.sample_actions(**inputs, noise=noise, num_steps=4) - expected).abs().max() > 1e-2
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.sample_actions(**inputs, noise=noise, num_steps=4), expected)

    def test_saving(self, policy, inputs, tmp_path):
        model, _ = policy
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        expected = model.sample_actions(**inputs, noise=draw(3, 5, 4), num_steps=4)
        model.save_pretrained(tmp_path)
        loaded = Nora15ForActionPrediction.from_pretrained(tmp_path)
        assert loaded.state_dict().keys() == before.keys()
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in before.items())
        assert torch.equal(loaded.sample_actions(**inputs, noise=draw(3, 5, 4), num_steps=4), expected)

    def test_joined_weights_are_the_parameters(self):
        layers = [nn.Linear(6, 4), nn.Linear(6, 2)]
        expected = torch.cat([layer(torch.ones(1, 6)) for layer in layers], dim=-1)
        project = joined_linear(layers)
        with torch.no_grad():
            torch.testing.assert_close(project(torch.ones(1, 6)), expected)
            layers[1].weight.fill_(1)
            layers[1].bias.zero_()
            assert project(torch.ones(1, 6))[0, 4:].tolist() == [6, 6]
        address = layers[0].weight.data_ptr()
        joined_linear(layers)
        assert layers[0].weight.data_ptr() == address

    @pytest.mark.parametrize(
        "layers",
        [
            [nn.Linear(6, 4, bias=False), nn.Linear(6, 2)],
            [nn.Linear(6, 4), nn.Linear(6, 2, bias=False)],
            [nn.Linear(6, 4).share_memory(), nn.Linear(6, 2).share_memory()],
        ],
        ids=["first bias missing", "second bias missing", "shared with another process"],
    )
    def test_weights_that_cannot_be_joined_stay_where_they_are(self, layers):
        before = [layer.weight.data_ptr() for layer in layers]
        with torch.no_grad():
            expected = torch.cat([layer(torch.ones(1, 6)) for layer in layers], dim=-1)
            torch.testing.assert_close(joined_linear(layers)(torch.ones(1, 6)), expected)
        assert [layer.weight.data_ptr() for layer in layers] == before


class TestGeneration:
    """Against transformers' `generate`, which a hook on the language model brings back."""

    def both(self, model, inputs, **options):
        rows = []
        for hooked in (False, True):
            handles = []
            if hooked:
                handles = [model.vlm.model.language_model.register_forward_hook(lambda *args: None)]
            rows.append(model.generate_actions(**inputs, **options))
            for handle in handles:
                handle.remove()
        return rows

    @pytest.fixture(autouse=True)
    def untied_head(self, policy):
        """A tied head makes a network this small repeat its last token. The end marker scores 0, below the best."""
        model, processor = policy
        head = nn.Linear(*reversed(model.vlm.lm_head.weight.shape), bias=False)
        with torch.no_grad():
            head.weight.normal_(generator=torch.Generator().manual_seed(5))
            head.weight[processor.tokenizer.eos_token_id] = 0
        model.vlm.lm_head = head

    def test_greedy(self, policy, inputs):
        fast, plain = self.both(policy[0], inputs, max_new_tokens=8)
        assert fast == plain
        assert [len(row) for row in fast] == [8, 8, 8]
        assert len({tuple(row) for row in fast}) == 3

    def test_greedy_with_rows_that_end(self, policy, inputs):
        """An end marker that is likely now and then: rows end at different lengths, and the others go on unharmed."""
        model, processor = policy
        end = processor.tokenizer.eos_token_id
        head = model.vlm.lm_head.weight
        start = model.config.action_token_start_id
        lengths = set()
        free = model.generate_actions(**inputs, max_new_tokens=8)
        for token in {row[number] for row, number in zip(free, (1, 3, 5), strict=True)}:
            with torch.no_grad():
                head[end] = head[start + token] * 1.01
            fast, plain = self.both(model, inputs, max_new_tokens=8)
            assert fast == plain
            lengths |= {len(row) for row in fast}
        assert len(lengths) > 1

    @pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.6}, {"temperature": 0.5, "top_k": 0}])
    def test_sampling_has_the_same_distribution(self, policy, inputs, options, monkeypatch):
        """The probabilities that the first tokens are drawn with; draws themselves differ, as there are fewer tokens."""
        model, processor = policy
        drawn, original = [], torch.multinomial

        def multinomial(probabilities, *args, **kwargs):
            drawn.append(probabilities)
            return original(probabilities, *args, **kwargs)

        monkeypatch.setattr(torch, "multinomial", multinomial)
        self.both(model, inputs, do_sample=True, max_new_tokens=1, **options)
        fast, plain = drawn
        start, end = model.config.action_token_start_id, processor.tokenizer.eos_token_id
        ids = [end, *range(start, start + model.config.num_action_tokens)]
        torch.testing.assert_close(fast, plain[:, ids], **CLOSE)
        torch.testing.assert_close(plain[:, ids].sum(-1), torch.ones(3))
        if options.get("top_k"):
            assert (fast > 0).sum(-1).tolist() == [3, 3, 3]

    def test_other_options_are_left_to_transformers(self, policy, inputs, monkeypatch):
        model, _ = policy
        calls = ModuleCalls(model.vlm.model.language_model, monkeypatch)
        model.generate_actions(**inputs, max_new_tokens=2)
        assert calls.count == 0
        rows = model.generate_actions(**inputs, max_new_tokens=2, num_beams=2)
        assert calls.count
        assert [len(row) for row in rows] == [2, 2, 2]
