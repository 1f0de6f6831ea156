# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The places that weights are loaded from: sub-folders, variants, and memory."""

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.repo_files.one_commit import push_model_folder
from nora15_hf.vjepa2_ac.presets import tiny_world_model


@pytest.fixture(params=["policy", "world model"])
def pair(request):
    if request.param == "world model":
        return tiny_world_model(image_size=28)
    model, processor = tiny_policy(image_size=56)
    model.scheduler = FlowMatchHeunDiscreteScheduler(shift=1.0)
    return model, processor


def assert_same(found, expected):
    assert type(found) is type(expected)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    if hasattr(expected, "scheduler"):
        assert isinstance(found.scheduler, type(expected.scheduler))


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "300KB"}], ids=["whole", "shards"])
def test_subfolder_and_variant(pair, tmp_path, shards):
    model, processor = pair
    model.save_pretrained(tmp_path / "runs" / "checkpoint-500", variant="bf16", **shards)
    processor.save_pretrained(tmp_path / "runs" / "checkpoint-500")
    where = {"subfolder": "runs/checkpoint-500"}
    assert_same(AutoModel.from_pretrained(tmp_path, variant="bf16", **where), model)
    loaded = AutoProcessor.from_pretrained(tmp_path, **where)
    assert loaded.to_dict() == processor.to_dict()
    with pytest.raises(OSError, match=r"neither model\.safetensors nor"):
        AutoModel.from_pretrained(tmp_path, **where)
    with pytest.raises(OSError, match=r"neither model\.fp8\.safetensors nor model\.safetensors\.index\.fp8\.json"):
        AutoModel.from_pretrained(tmp_path, variant="fp8", **where)


def test_subfolder_of_a_repo(pair, hub, tmp_path):
    model, processor = pair
    for part in pair:
        part.save_pretrained(tmp_path / "checkpoint-500")
    push_model_folder(tmp_path, "run", commit_message="As Trainer pushes its checkpoints")
    repo = f"{hub.namespace}/run"
    assert_same(AutoModel.from_pretrained(repo, subfolder="checkpoint-500"), model)
    assert AutoProcessor.from_pretrained(repo, subfolder="checkpoint-500").to_dict() == processor.to_dict()


def test_adapters_are_called_so(pair, tmp_path):
    model = pair[0]
    model.save_pretrained(tmp_path / "base")
    base = type(model).from_pretrained(tmp_path / "base")
    target = "q_proj" if hasattr(model, "vlm") else "qkv"
    adapted = get_peft_model(base, LoraConfig(target_modules=[target], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "lora")
    with pytest.raises(OSError, match=r"these are adapters.*load_merged_policy\(base, adapters\)"):
        type(model).from_pretrained(tmp_path / "lora")
    # The Auto classes follow the path to the base that the adapters know, and put them on it.
    loaded = AutoModel.from_pretrained(tmp_path / "lora").state_dict()
    weights = {name.replace(".default", ""): tensor for name, tensor in loaded.items() if "lora_" in name}
    expected = {
        name.removeprefix("base_model.model."): tensor
        for name, tensor in load_file(tmp_path / "lora" / "adapter_model.safetensors").items()
    }
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_weights_in_memory(pair):
    model = pair[0]
    model_class, weights = type(model), model.state_dict()
    loaded = model_class.from_pretrained(None, config=model.config, state_dict=weights)
    for name, tensor in weights.items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert model_class.from_pretrained(None, config=model.config, state_dict={}).state_dict().keys() == weights.keys()
    first = next(name for name in weights if "embed" not in name)
    with pytest.raises(
        ValueError, match=f"`state_dict` are not those of {model_class.__name__}: 1 missing: .*{first}"
    ):
        model_class.from_pretrained(
            None, config=model.config, state_dict={k: v for k, v in weights.items() if k != first}
        )
    with pytest.raises(ValueError, match=r"pass both config=\.\.\. and state_dict="):
        model_class.from_pretrained(None, state_dict=weights)
