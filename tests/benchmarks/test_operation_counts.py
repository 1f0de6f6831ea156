# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How much the key paths compute: operators and floating-point operations, counted, not timed.

The bounds are what the code does today, with a margin of a few per cent for other versions of PyTorch. A figure above its
bound means that something is computed twice, at every step instead of once, or for nobody.
"""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from nora15_hf.nora15.inference import joined_linear
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel
from plain_policy import PlainPolicy
from random_policy import random_policy, random_prompt

STEPS = 10
# Views cost nothing on any device.
VIEWS = {
    "alias",
    "as_strided",
    "detach",
    "expand",
    "permute",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "t",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
}


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that touch data."""

    def __init__(self):
        super().__init__()
        self.operators = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operators[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))

    def total(self) -> int:
        return sum(count for name, count in self.operators.items() if name.removeprefix("_unsafe_") not in VIEWS)


def operators(run) -> OperatorCounter:
    run()
    with OperatorCounter() as counter, torch.no_grad():
        run()
    return counter


class FlopCounter(TorchDispatchMode):
    """Adds up as PyTorch's `FlopCounterMode`, whose hooks on all modules would turn the reading of weights off."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=output)
        return output


def flops(run) -> int:
    with FlopCounter() as counter, torch.no_grad():
        run()
    return counter.total


@pytest.fixture(autouse=True)
def counted_products(monkeypatch):
    """PyTorch's counter does not know oneDNN's operator."""
    monkeypatch.setattr(joined_linear, "ONEDNN_MIN_ROWS", 10**9)


@pytest.fixture(scope="module")
def model():
    return random_policy("tiny")


@pytest.fixture(scope="module")
def inputs(model):
    return random_prompt(model)


@pytest.fixture(scope="module")
def prefix(model, inputs):
    with torch.no_grad():
        return model.encode_prefix(**inputs)


def noise(model, *leading):
    shape = (*leading, model.config.chunk_size, model.config.action_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_operators_of_a_denoising_step(model, prefix):
    """Per layer and step; everything that does not depend on the sample is outside of the steps."""
    counts = [
        operators(lambda n=n: model.sample_actions(prefix=prefix, noise=noise(model, 1), num_steps=n)) for n in (5, 10)
    ]
    added = Counter(counts[1].operators)
    added.subtract(counts[0].operators)
    layers = len(model.action_expert.layers)
    # Joined products: queries, keys and values; output; gate and up; down; and four around the layers.
    assert added["addmm"] + added["mm"] == 5 * (4 * layers + 4)
    assert added["masked_fill_"] == added["sin"] == added["cos"] == added["repeat"] == 0
    # The one concatenation left swaps the halves of a head for its rotation.
    assert added["cat"] == 5 * layers
    assert (counts[1].total() - counts[0].total()) / 5 <= 26 * layers + 18


def test_a_step_does_not_copy_the_prefix(model, prefix):
    """Written are the action tokens' keys and values: nothing of the prefix's size."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            output = function(*args, **(kwargs or {}))
            if function.overloadpacket.__name__ in ("cat", "copy_", "clone", "_to_copy", "mul", "add"):
                largest = max(largest, output.numel())
            return output

    with torch.no_grad():
        velocity = model.velocity_field(prefix, torch.ones(1))
        with Largest():
            velocity(noise(model, 1), 0)
    assert 0 < largest < prefix.keys[0].numel()


def test_candidates_share_the_backbone(model, inputs):
    one = flops(lambda: model.encode_prefix(**inputs))
    single = flops(lambda: model.sample_actions(**inputs, noise=noise(model, 1), num_steps=STEPS))
    five = flops(lambda: model.sample_actions(**inputs, noise=noise(model, 1, 5), num_steps=STEPS, num_samples=5))
    assert five - one < 5.2 * (single - one)
    several = operators(lambda: model.sample_actions(**inputs, noise=noise(model, 1, 5), num_samples=5))
    alone = operators(lambda: model.sample_actions(**inputs, noise=noise(model, 1)))
    assert several.total() <= alone.total() + 10


def test_arithmetic_of_a_prompt(model, inputs):
    """Neither the LM head nor, beyond its keys and values, the last layer."""
    plain = PlainPolicy(model)
    text = model.config.vlm_config.text_config
    tokens = inputs["input_ids"].shape[1]
    head = 2 * tokens * text.hidden_size * text.vocab_size
    last_layer = 2 * tokens * (3 * text.hidden_size * text.intermediate_size + text.hidden_size**2)
    saved = flops(lambda: plain.prefill(inputs)) - flops(lambda: model.encode_prefix(**inputs))
    assert 0.98 * (head + last_layer) <= saved <= 1.2 * (head + last_layer)


def test_operators_of_a_prompt(model, inputs):
    config = model.config.vlm_config
    bound = 26 * config.text_config.num_hidden_layers + 36 * config.vision_config.depth + 80
    assert operators(lambda: model.encode_prefix(**inputs)).total() <= bound


def test_waits_for_the_device_do_not_grow_with_depth(inputs):
    """Reading a value of a tensor makes the host wait for the device: so many times per call, not per layer or step."""
    model = random_policy("tiny")
    reads = operators(lambda: model.sample_actions(**inputs, num_steps=STEPS)).operators
    waits = {name: reads[name] for name in ("_local_scalar_dense", "nonzero", "item") if reads[name]}
    assert sum(waits.values()) <= 8, waits


def test_a_generated_token(model, inputs):
    """Scores of action tokens and the end marker; keys and values of one token; no cache is concatenated."""
    with torch.no_grad():
        model.vlm.lm_head.weight[0] = 0
    counts = [operators(lambda n=n: model.generate_actions(**inputs, max_new_tokens=n)).operators for n in (3, 5)]
    assert [len(model.generate_actions(**inputs, max_new_tokens=n)[0]) for n in (3, 5)] == [3, 5]
    added = Counter(counts[1])
    added.subtract(counts[0])
    text, config = model.config.vlm_config.text_config, model.config
    layers = text.num_hidden_layers
    # The head is two products, of the end marker's row and of the action tokens'.
    assert added["addmm"] + added["mm"] == 2 * (4 * layers + 2)
    more = flops(lambda: model.generate_actions(**inputs, max_new_tokens=5)) - flops(
        lambda: model.generate_actions(**inputs, max_new_tokens=4)
    )
    head_dim = text.hidden_size // text.num_attention_heads
    key_value = 2 * head_dim * text.num_key_value_heads
    per_layer = text.hidden_size * (2 * text.hidden_size + key_value + 3 * text.intermediate_size)
    products = 2 * (layers * per_layer + text.hidden_size * (config.num_action_tokens + 1))
    attention = 4 * layers * text.hidden_size * (inputs["input_ids"].shape[1] + 5)
    assert products <= more <= products + attention


# Attention on a CPU is an operator that PyTorch's counter does not know: below, products of weights are counted.
@pytest.fixture(scope="module")
def world_model():
    torch.manual_seed(0)
    return VJEPA2ACModel(
        VJEPA2ACConfig(
            encoder_config={
                "hidden_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "crop_size": 64,
                "patch_size": 16,
                "frames_per_clip": 2,
            },
            predictor_hidden_size=48,
            predictor_num_hidden_layers=3,
            predictor_num_attention_heads=4,
        )
    ).eval()


def test_a_rollout_computes_every_frame_once(world_model):
    config = world_model.config
    steps, candidates, width = 4, 5, config.predictor_hidden_size
    latents, actions = torch.randn(1, 1, 16, 48), torch.randn(1, candidates, steps, 7)
    tokens = config.tokens_per_frame
    products = 2 * tokens * 12 * width**2 * config.predictor_num_hidden_layers * steps
    # Embedding and projection of the patches, and the condition tokens, each computed eight times.
    ends = steps * 2 * width * (2 * 16 * 48 + 8 * 2 * 7)
    assert flops(lambda: world_model.rollout(latents, actions)) == candidates * (products + ends)


def test_operators_of_an_imagined_frame(world_model):
    """No cache is concatenated, and what a layer makes goes into buffers that exist."""
    latents, layers = torch.randn(1, 1, 16, 48), world_model.config.predictor_num_hidden_layers
    counts = [
        operators(lambda n=n: world_model.rollout(latents, torch.randn(1, 1, n, 7), batch_size=1)) for n in (2, 3)
    ]
    added = Counter(counts[1].operators)
    added.subtract(counts[0].operators)
    # One for the condition tokens, and one that joins the frames, which is there already.
    assert added["cat"] <= 1
    assert counts[1].total() - counts[0].total() <= 17 * layers + 30


def test_pictures_are_encoded_once(world_model):
    config = world_model.config.encoder_config
    width, patches = config.hidden_size, 16
    hidden = int(width * config.mlp_ratio)
    per_layer = 2 * patches * width * (4 * width + 2 * hidden)
    embedding = 2 * patches * width * 3 * 2 * 16**2
    expected = config.num_hidden_layers * per_layer + embedding
    assert flops(lambda: world_model.encode(torch.randn(2, 3, 3, 64, 64))) == 6 * expected


def test_the_last_mlp_of_a_training_pass(model, inputs):
    """It runs for the tokens whose scores are wanted: none for the flow loss, the supervised ones otherwise."""
    text = model.config.vlm_config.text_config
    last = f"language_model.layers.{text.num_hidden_layers - 1}.mlp"
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = 300
    for targets, tokens in ((None, 0), (labels, 3)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**inputs, labels=targets, actions=noise(model, 1))
        found = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
        one_token = 2 * 3 * text.hidden_size * text.intermediate_size
        assert sum(count for name, count in found.items() if name.endswith(last)) == tokens * one_token
        assert (
            sum(count for name, count in found.items() if name.endswith("language_model.layers.0.mlp"))
            == labels.numel() * one_token
        )
