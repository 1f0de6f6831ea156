# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA and QLoRA: what is trained and saved, the way back through save, load and merge, and 8-bit optimizer state."""

import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from helpers.small_demonstrations import INSTRUCTIONS, write_demonstrations
from nora15_hf import Nora15ForActionPrediction
from nora15_hf.data import LeRobotDataset, PolicyCollator
from nora15_hf.trainers import (
    Nora15SFTConfig,
    Nora15SFTTrainer,
    load_merged_policy,
    load_policy_for,
    nf4_config,
    policy_lora_config,
    tiny_policy_for,
)
from nora15_hf.trainers.adapter_base import AdapterBase


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return LeRobotDataset(write_demonstrations(tmp_path_factory.mktemp("demonstrations") / "arm", lengths=(9, 4, 7)))


@pytest.fixture(scope="module")
def base(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    for part in tiny_policy_for(dataset, INSTRUCTIONS, image_size=56, state_input=True):
        part.save_pretrained(folder)
    return folder


def train(base, dataset, folder, quantized=False, **options):
    config = nf4_config(torch.float32) if quantized else None
    model, processor = load_policy_for(base, dataset, quantization_config=config)
    arguments = {"learning_rate": 1e-3, "gradient_checkpointing": True, "max_steps": 3, "save_strategy": "no"}
    trainer = Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **{**arguments, **options},
        ),
        train_dataset=dataset,
        processing_class=processor,
        peft_config=policy_lora_config(model.config, rank=4),
    )
    return trainer


def actions_of(model, processor, dataset):
    batch = PolicyCollator(processor, action_tokens=False)([dataset[0], dataset[12]])
    prompt = {key: value for key, value in batch.items() if key not in ("actions", "action_mask")}
    noise = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    return model.eval().sample_actions(**prompt, noise=noise)


@pytest.fixture(scope="module")
def trained(base, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    trainer = train(base, dataset, folder, ema_decay=0.5)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    return trainer, before, folder


def test_adapters_in_the_backbone_and_the_expert_whole(trained):
    trainer, before, _ = trained
    trainable = {
        name.removeprefix("base_model.model.") for name, p in trainer.model.named_parameters() if p.requires_grad
    }
    adapters = {name for name in trainable if ".lora_" in name}
    # 4 layers of 7 linear layers, A and B each
    assert len(adapters) == 4 * 7 * 2
    assert all(name.startswith("vlm.model.language_model.layers.") for name in adapters)
    whole = {name.replace(".modules_to_save.default", "") for name in trainable - adapters}
    policy = Nora15ForActionPrediction(trainer.policy.config)
    assert whole == {name for name, _ in policy.named_parameters() if name.startswith(("action_", "state_proj"))}
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_saved_loaded_and_merged_adapters_give_the_same_actions(trained, base, dataset, tmp_path):
    trainer, _, folder = trained
    expected = actions_of(trainer.policy, trainer.processing_class, dataset)
    untrained = actions_of(*load_policy_for(base, dataset), dataset)
    assert (expected - untrained).abs().max() > 1e-2

    adapted = PeftModel.from_pretrained(Nora15ForActionPrediction.from_pretrained(base), folder)
    saved, loaded = trainer.policy.state_dict(), adapted.get_base_model().state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    # The hooks of checkpointing stay after training: modules with hooks are called, others may be read, which rounds otherwise.
    torch.testing.assert_close(
        actions_of(adapted.get_base_model(), trainer.processing_class, dataset), expected, atol=1e-6, rtol=0
    )

    merged, processor = load_merged_policy(base, folder)
    torch.testing.assert_close(actions_of(merged, processor, dataset), expected, atol=1e-5, rtol=0)
    merged.save_pretrained(tmp_path)
    again = Nora15ForActionPrediction.from_pretrained(tmp_path)
    assert torch.equal(actions_of(again, processor, dataset), actions_of(merged, processor, dataset))
    assert "load_merged_policy" in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def other_base(dataset, tmp_path_factory):
    """Of the same shapes."""
    folder = tmp_path_factory.mktemp("other-base")
    for part in tiny_policy_for(dataset, INSTRUCTIONS, image_size=56, state_input=True, seed=1):
        part.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_adapters_are_put_on_the_base_that_they_were_trained_on(trained, base, other_base, dataset, tmp_path):
    _, _, folder = trained
    assert (
        AdapterBase.of(PeftModel.from_pretrained(Nora15ForActionPrediction.from_pretrained(base), folder)).check(
            folder
        )
        is None
    )
    another = rf"trained on '{base.name}' with other weights than .* '{other_base.name}': its matrices differ"
    with pytest.raises(ValueError, match=another):
        load_merged_policy(other_base, folder)
    first = train(base, dataset, tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    first.train()
    resumed = train(other_base, dataset, tmp_path, max_steps=2)
    with pytest.raises(ValueError, match=r"checkpoint-1 were trained on .*its matrices differ"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_model.safetensors", None, "has no adapter_model.safetensors: adapters are"),
        ("adapter_model.safetensors", b"12", "adapter_model.safetensors is truncated or corrupted"),
        ("adapter_config.json", None, "has no adapter_config.json: adapters are"),
        ("adapter_config.json", b"{", "adapter_config.json is not valid JSON"),
        ("processor_config.json", None, "holds adapters without the processor that they were trained with"),
    ],
)
def test_adapters_that_are_not_whole(trained, base, tmp_path, file, content, message):
    folder = tmp_path / "adapters"
    shutil.copytree(trained[2], folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=message):
        load_merged_policy(base, folder)


def test_the_base_is_the_same_in_another_precision_and_under_other_adapters(base):
    """The modules that are saved whole do not count, nor does a bias that LoRA trains."""
    exact = Nora15ForActionPrediction.from_pretrained(base, dtype=torch.float32)
    rounded = Nora15ForActionPrediction.from_pretrained(base, dtype=torch.bfloat16)
    config = policy_lora_config(exact.config, rank=2)
    found = [AdapterBase.of(get_peft_model(policy, config)) for policy in (exact, rounded)]
    assert found[0] == found[1]
    policy = Nora15ForActionPrediction.from_pretrained(base, dtype=torch.float32)
    policy.action_out_proj.weight.data += 1
    adapted = get_peft_model(policy, config)
    adapted.add_adapter("second", config)
    assert AdapterBase.of(adapted) == found[0]
    biased = []
    for change in (0.0, 1.0):
        policy = Nora15ForActionPrediction.from_pretrained(base, dtype=torch.float32)
        policy.vlm.model.language_model.layers[0].self_attn.q_proj.bias.data += change
        biased.append(AdapterBase.of(get_peft_model(policy, LoraConfig(target_modules=["q_proj"], bias="all"))))
    assert biased[0] == biased[1]


@pytest.mark.parametrize("objective", ["joint", "flow"])
def test_trainable_parameters_get_gradients(base, dataset, objective, tmp_path):
    trainer = train(base, dataset, tmp_path, objective=objective)
    batch = trainer.data_collator([dataset[0], dataset[12]])
    trainer.compute_loss(trainer.model.train(), batch).backward()
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.slow
def test_quantised_backbone_with_float32_adapters(base, dataset, tmp_path):
    pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer = train(base, dataset, tmp_path, quantized=True)
    layers = trainer.policy.vlm.model.language_model.layers
    assert all(type(layer.mlp.up_proj.base_layer).__name__ == "Linear4bit" for layer in layers)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    four_bit = layers[0].mlp.up_proj.base_layer.weight
    before = four_bit.detach().clone()
    trainer.train()
    assert torch.equal(four_bit, before)
    trainer.save_model()
    expected = actions_of(trainer.policy, trainer.processing_class, dataset)

    quantised, processor = load_policy_for(base, dataset, quantization_config=nf4_config(torch.float32))
    adapted = PeftModel.from_pretrained(quantised, tmp_path)
    torch.testing.assert_close(actions_of(adapted.get_base_model(), processor, dataset), expected, atol=1e-5, rtol=0)
    # Quantised matrices cannot be compared with unquantised ones; norms and biases can.
    assert AdapterBase.of(adapted).matrices is None
    # Merged into the unquantised weights: apart by the rounding to 4 bits, far from the untrained policy.
    merged, processor = load_merged_policy(base, tmp_path)
    apart = (actions_of(merged, processor, dataset) - expected).abs().mean()
    learnt = (actions_of(*load_policy_for(base, dataset), dataset) - expected).abs().mean()
    assert apart < 0.3 * learnt


@pytest.mark.slow
def test_optimizer_state_in_8_bits(base, dataset, tmp_path):
    pytest.importorskip("bitsandbytes", reason="8-bit AdamW is bitsandbytes'")
    trainer = train(base, dataset, tmp_path, optim="adamw_8bit", save_strategy="steps", save_steps=2)
    trainer.train()
    states = [state["state1"] for state in trainer.optimizer.optimizer.state.values()]
    # Tensors of fewer than 4096 elements keep 32 bits.
    assert {state.dtype for state in states if state.numel() >= 4096} == {torch.uint8}
    assert any(state.dtype == torch.uint8 for state in states)

    resumed = train(base, dataset, tmp_path, optim="adamw_8bit")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for (name, found), expected in zip(resumed.model.named_parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0, msg=name)
