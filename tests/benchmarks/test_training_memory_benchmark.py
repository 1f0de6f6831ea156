# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The memory table against real tensors of the tiny policy."""

import json

import numpy as np
import pytest
import torch

import training_memory
from nora15_hf.nora15.presets import tiny_policy

pytestmark = pytest.mark.isa


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy(image_size=112, seed=0)


def batch_of(processor, size):
    rng = np.random.default_rng(0)
    return processor(
        images=list(rng.integers(0, 256, (size, 112, 112, 3), dtype=np.uint8)),
        text=["open the faucet"] * size,
        actions=np.repeat(rng.uniform(-0.9, 0.9, (1, 5, 4)).astype(np.float32), size, axis=0),
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_layers_add_up_to_the_whole_model(tiny, batch_size, monkeypatch):
    """Against everything that autograd saves in a training pass; embeddings and projections are not in the table."""
    model, processor = tiny
    batch = batch_of(processor, batch_size)
    monkeypatch.setattr(training_memory, "PATCHES_PER_IMAGE", 64)
    length, targets = batch["input_ids"].shape[1], int((batch["labels"][0] != -100).sum())
    memories = training_memory.layer_memories(model.train(), length, targets, 1, torch.float32)
    estimate = training_memory.activation_bytes(memories, batch_size, checkpointing=False, quantized=False)
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    whole = training_memory.saved_bytes(lambda: model(**batch), parameters)
    assert 0.9 * whole < estimate < 1.03 * whole
    model.eval()


def test_checkpointing_keeps_what_the_table_says(tiny):
    """Inputs, keys and values of every layer: against the tensors that the checkpointed layers are called with."""
    model, processor = tiny
    batch = batch_of(processor, 2)
    length = batch["input_ids"].shape[1]
    memories = training_memory.layer_memories(model, length, 8, 1, torch.float32)
    kept = {"backbone layer": 0, "expert layer": 0}

    def count(name):
        def hook(module, args, output):
            outputs = output[1:] if isinstance(output, tuple) else ()
            kept[name] += sum(t.untyped_storage().nbytes() for t in (args[0], *outputs) if t is not None)

        return hook

    hooks = [layer.register_forward_hook(count("backbone layer")) for layer in model.vlm.model.language_model.layers]
    hooks += [layer.register_forward_hook(count("expert layer")) for layer in model.action_expert.layers]
    model(**batch)
    for hook in hooks:
        hook.remove()
    for name, found in kept.items():
        assert found == 2 * memories[name].count * memories[name].checkpoint, name


def test_quantised_weights(tiny, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="4-bit weights are bitsandbytes'")
    weight = torch.randn(384, 128)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=True, quant_storage=torch.uint8
    )
    tensors = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    found = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert training_memory.nf4_bytes(weight.numel()) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("bits", [8, 32])
def test_optimizer_state(bits):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="8-bit AdamW is bitsandbytes'")
    model = torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.Linear(8, 8))
    optimizer = bitsandbytes.optim.AdamW(model.parameters(), optim_bits=bits)
    model[0](torch.ones(1, 128)).sum().backward()
    model[1](torch.ones(1, 8)).sum().backward()
    optimizer.step()
    # The code books are common to all tensors.
    state = [
        tensor
        for entry in optimizer.state.values()
        for name, tensor in entry.items()
        if isinstance(tensor, torch.Tensor) and name in ("state1", "state2", "absmax1", "absmax2")
    ]
    found = sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert training_memory.optimizer_bytes(model, bits) == found


@pytest.mark.slow
def test_table(tmp_path, capsys, monkeypatch):
    config = tiny_policy(seed=0)[0].config
    monkeypatch.setattr(training_memory, "Nora15Config", lambda: config)
    training_memory.main(["--batch_size", "2", "--output", str(tmp_path / "memory.json")])
    rows = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert len(rows) == 2 * len(training_memory.METHODS)
    by_name = {(row["method"], row["checkpointing"]): row for row in rows}
    for method in training_memory.METHODS:
        plain, checkpointed = by_name[method.name, False], by_name[method.name, True]
        assert checkpointed["activations"] < plain["activations"]
        assert plain["weights"] == checkpointed["weights"]
    assert by_name["QLoRA r=16, 8-bit AdamW", True]["weights"] < by_name["LoRA r=16", True]["weights"]
    assert by_name["full", False]["optimizer"] == 2 * by_name["full", False]["gradients"]
    assert "| QLoRA r=16" in capsys.readouterr().out
