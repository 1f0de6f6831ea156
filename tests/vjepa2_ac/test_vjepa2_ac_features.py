# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What transformers' users expect of a model: attention kernels, precisions, devices, adapters, any grid and head size."""

import copy

import pytest
import torch
from accelerate import infer_auto_device_map, init_empty_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import modeling_flash_attention_utils, modeling_utils
from transformers.utils import is_flash_attn_2_available

from helpers.module_calls import ModuleCalls
from helpers.small_world_models import ENCODER, PARITY, VARIANTS, random_inputs, small_config, small_model
from nora15_hf.vjepa2_ac import VJEPA2ACModel, normalize_latents, tiny_world_model
from nora15_hf.vjepa2_ac.attention_vjepa2_ac import rotary_tables

pytestmark = pytest.mark.isa


def recomputed(model, latents, actions):
    """The rollout `(B, steps, P, D)` with the whole clip predicted anew at every step."""
    frames = latents
    for step in range(1, actions.shape[1] + 1):
        predicted = model(frames, actions[:, :step]).predicted_latents
        frames = torch.cat([frames, normalize_latents(predicted[:, -1:])], dim=1)
    return frames[:, 1:]


def test_rollout_equals_recompute_at_256_tokens_and_seven_frames():
    """Rounding grows with tokens and frames; what is cached is rounded as what is recomputed."""
    encoder = ENCODER | {"hidden_size": 96, "num_hidden_layers": 1, "crop_size": 256}
    model = VJEPA2ACModel(small_config(encoder_config=encoder, predictor_hidden_size=96)).eval()
    for batch in (1, 2):
        latents, actions, _ = random_inputs(model, batch=batch, frames=1, steps=6, candidates=1)
        with torch.no_grad():
            cached, expected = model.rollout(latents, actions[:, 0]), recomputed(model, latents, actions[:, 0])
        torch.testing.assert_close(cached, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("options", [{}, {"predictor_use_rope": False}, {"action_convention": "metric"}])
def test_layers_are_read_without_gradients_and_called_with_them(monkeypatch, options, frames):
    model = VJEPA2ACModel(small_config(**options)).eval()
    latents, actions, context = random_inputs(model, frames=frames, steps=3)
    states = torch.rand(2, frames, 7) if options.get("action_convention") == "metric" else None
    context = context if frames > 1 else None
    images = torch.randn(3, 2, 3, 64, 64)
    called = model.rollout(latents, actions, states, context).detach(), model.encode(images).detach()
    with torch.no_grad():
        read = model.rollout(latents, actions, states, context), model.encode(images)
        for found, expected in zip(read, called, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        sharper = copy.deepcopy(model)
        sharper.encoder.layer[0].attention.scaling *= 3
        with torch.enable_grad():
            expected = sharper.encode(images).detach()
        torch.testing.assert_close(sharper.encode(images), expected, rtol=0, atol=1e-6)
        assert (expected - called[1]).abs().max() > 1e-3
        # Proof that these are two ways: broken layers are only noticed where they are called.
        monkeypatch.setattr(type(model.encoder.layer[0]), "__call__", None)
        monkeypatch.setattr(type(model.predictor), "__call__", None)
        model.encode(images)
        model.rollout(latents[:, -1:], actions, states if states is None else states[:, -1:])
    with pytest.raises(TypeError):
        model.encode(images)
    with pytest.raises(TypeError):
        model.rollout(latents[:, -1:], actions, states if states is None else states[:, -1:])


@pytest.mark.parametrize("way", ["hook", "swiglu", "bfloat16", "eager", "training", "autocast"])
def test_layers_that_cannot_be_read_are_called(monkeypatch, way):
    model = VJEPA2ACModel(small_config(predictor_use_swiglu=way == "swiglu")).eval()
    latents, actions, _ = random_inputs(model, frames=1)
    calls = ModuleCalls(model.predictor, monkeypatch)
    if way == "hook":
        model.predictor.predictor_blocks[1].mlp.fc1.register_forward_hook(lambda *_: None)
    elif way == "bfloat16":
        model.to(torch.bfloat16)
    elif way == "eager":
        model.set_attn_implementation("eager")
    elif way == "training":
        model.train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        model.rollout(latents, actions)
    assert calls.count


@pytest.mark.parametrize("convention", ["normalized", "metric"])
def test_rollout_is_the_same_in_batches_of_any_size(convention):
    model = small_model(action_convention=convention)
    latents, actions, context_actions = random_inputs(model, batch=3)
    poses = torch.randn(3, 3, 7, generator=torch.Generator().manual_seed(2)) if convention == "metric" else None
    with torch.no_grad():
        expected = model.rollout(latents, actions, poses, context_actions, batch_size=1)
        for batch_size in (4, 15, None):
            found = model.rollout(latents, actions, poses, context_actions, batch_size=batch_size)
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_frames", [1, 7, 20])
def test_frames_are_predicted_from_the_past_alone(variant, num_frames):
    model = small_model(variant)
    latents, actions, _ = random_inputs(model, frames=num_frames, steps=num_frames, candidates=1)
    actions = actions[:, 0]
    camera = torch.zeros(2, num_frames, 6) if variant == "B" else None
    changed = num_frames // 2
    other_latents, other_actions = latents.clone(), actions.clone()
    other_latents[:, changed] += 1
    other_actions[:, changed] += 1
    with torch.no_grad():
        expected = model(latents, actions, extrinsics=camera).predicted_latents
        for others in ((other_latents, actions), (latents, other_actions)):
            found = model(*others, extrinsics=camera).predicted_latents
            difference = (found - expected).abs().amax((0, 2, 3))
            assert (difference[:changed] == 0).all()
            assert (difference[changed:] > 0).all()


@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (5, 1)])
def test_grids_that_are_not_square(grid):
    model = VJEPA2ACModel(small_config(grid_size=grid)).eval()
    latents, actions, _ = random_inputs(model, frames=1, candidates=1)
    with torch.no_grad():
        cached = model.rollout(latents, actions[:, 0])
        torch.testing.assert_close(cached, recomputed(model, latents, actions[:, 0]), rtol=0, atol=3e-6)
        # The grid matters: the same patches on a grid of other rows lead elsewhere.
        other = VJEPA2ACModel(small_config(grid_size=grid[::-1])).eval()
        other.load_state_dict(model.state_dict())
        assert (other.rollout(latents, actions[:, 0]) - cached).abs().max() > 1e-4


@settings(max_examples=12, deadline=None)
@given(head_dim=st.integers(3, 40).map(lambda half: 2 * half))
def test_every_even_head_size(head_dim):
    """Three axes of 2 * floor(floor(head_dim / 3) / 2) dimensions are turned, the rest is left alone."""
    config = small_config(predictor_hidden_size=2 * head_dim, predictor_num_attention_heads=2)
    cos, sin = rotary_tables(config, first_frame=1, num_frames=2, device=torch.device("cpu"))
    turned = 6 * (head_dim // 3 // 2)
    assert cos.shape == sin.shape == (36, head_dim)
    assert (cos[:, turned:] == 1).all()
    assert (sin[:, turned:] == 0).all()
    assert (sin[:, :turned].abs().amax(0) > 0).all()
    model = VJEPA2ACModel(config).eval()
    latents, actions, _ = random_inputs(model, frames=1, steps=2, candidates=1)
    with torch.no_grad():
        cached = model.rollout(latents, actions[:, 0])
        torch.testing.assert_close(cached, recomputed(model, latents, actions[:, 0]), rtol=0, atol=3e-6)


@pytest.mark.parametrize("heads", [3, 16, 48])
def test_without_rotary_positions_any_head_size(heads):
    config = small_config(predictor_use_rope=False, predictor_num_attention_heads=heads)
    model = VJEPA2ACModel(config).eval()
    latents, actions, _ = random_inputs(model, frames=1, steps=2, candidates=1)
    with torch.no_grad():
        cached = model.rollout(latents, actions[:, 0])
        torch.testing.assert_close(cached, recomputed(model, latents, actions[:, 0]), rtol=0, atol=3e-6)


def test_eager_attention_equals_sdpa():
    torch.manual_seed(0)
    model, processor = tiny_world_model()
    for parameter in model.predictor.predictor_blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = model.eval()
    frames = torch.randint(0, 256, (2, 2, 84, 84, 3), dtype=torch.uint8)
    pixel_values = processor(frames)["pixel_values"]
    _, actions, _ = random_inputs(model, frames=1)
    results = []
    for implementation in ("sdpa", "eager"):
        model.config._attn_implementation = implementation
        model.config.encoder_config._attn_implementation = implementation
        with torch.no_grad():
            latents = model.encode(pixel_values)
            predicted = model(latents, actions[:, 0, :2]).predicted_latents
            results.append((latents, predicted, model.rollout(latents[:, :1], actions)))
    for sdpa, eager in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, eager, rtol=0, atol=1e-5)


def test_gradients_do_not_depend_on_the_attention_kernel():
    gradients = []
    for implementation in ("sdpa", "eager"):
        model = small_model(attn_implementation=implementation)
        latents, actions, _ = random_inputs(model, frames=3)
        model.clip_losses(latents, actions[:, 0, :2]).loss.backward()
        gradients.append([p.grad for p in model.predictor.parameters() if p.grad is not None])
    for sdpa, eager in zip(*gradients, strict=True):
        torch.testing.assert_close(sdpa, eager, rtol=0, atol=1e-6)


class TestFlashAttention:
    """transformers' flash attention with the kernel, which needs a GPU, replaced by its arithmetic in torch."""

    @pytest.fixture
    def kernel_calls(self, monkeypatch):
        calls = []

        def kernel(query, key, value, causal, softmax_scale, **options):
            calls.append({"query": query, "causal": causal, "options": options})
            assert {query.dtype, key.dtype, value.dtype} == {torch.bfloat16}
            query, key, value = (each.transpose(1, 2) for each in (query, key, value))
            attended = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=causal, scale=softmax_scale
            )
            return attended.transpose(1, 2)

        def process(query_length, key_length, is_causal, dropout, softmax_scale, **_):
            return {"causal": is_causal, "softmax_scale": softmax_scale, "dropout_p": dropout}

        monkeypatch.setattr(
            modeling_flash_attention_utils,
            "lazy_import_flash_attention",
            lambda *_, **__: ((kernel, None, None, None, None), (process, None)),
        )
        # What is asked about the machine.
        monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: None)
        monkeypatch.setattr(VJEPA2ACModel, "_flash_attn_import_error", lambda *_, **__: None)
        monkeypatch.setattr(modeling_utils, "is_kernels_available", lambda: False)
        cpu = ((lambda: True, "cpu"),)
        for version in modeling_utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX.values():
            monkeypatch.setitem(version, "supported_devices", cpu)
        return calls

    @pytest.mark.parametrize("autocast", [True, False])
    def test_flash_equals_sdpa(self, kernel_calls, tmp_path, autocast):
        small_model().save_pretrained(tmp_path)
        dtype = torch.float32 if autocast else torch.bfloat16
        flash, sdpa = (
            VJEPA2ACModel.from_pretrained(tmp_path, attn_implementation=implementation, dtype=dtype).eval()
            for implementation in ("flash_attention_2", "sdpa")
        )
        latents, actions, _ = random_inputs(flash, frames=3)
        pixel_values = torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

        def results(model):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                encoded, imagined = model.encode(pixel_values), model.rollout(latents[:, :1], actions)
                return encoded, imagined, model.clip_losses(latents, actions[:, 0, :2]).teacher_forced_latents

        with torch.no_grad():
            expected = results(sdpa)
            assert not kernel_calls
            for found, wanted in zip(results(flash), expected, strict=True):
                torch.testing.assert_close(found, wanted, rtol=0, atol=0.05)
                assert (found - wanted).abs().mean() < 0.002
        layers = len(flash.encoder.layer), len(flash.predictor.predictor_blocks)
        # Four steps of one frame, then two frames after each other and one imagined frame.
        assert len(kernel_calls) >= layers[0] + (4 + 2 + 1) * layers[1]
        assert not any(call["causal"] or call["options"]["dropout_p"] for call in kernel_calls)
        # A frame's tokens are the third axis from the end, as flash kernels want them.
        assert {call["query"].shape[1] for call in kernel_calls} == {16, flash.config.tokens_per_frame}

    def test_gradients(self, kernel_calls):
        model = small_model(attn_implementation="flash_attention_2").train()
        latents, actions, _ = random_inputs(model, frames=3)
        with torch.autocast("cpu", torch.bfloat16):
            model.clip_losses(latents, actions[:, 0, :2]).loss.backward()
        assert kernel_calls
        flash = [p.grad.clone() for p in model.predictor.parameters() if p.grad is not None]
        model.zero_grad()
        model.set_attn_implementation("sdpa")
        with torch.autocast("cpu", torch.bfloat16):
            model.clip_losses(latents, actions[:, 0, :2]).loss.backward()
        for found, p in zip(flash, [p for p in model.predictor.parameters() if p.grad is not None], strict=True):
            assert (found - p.grad).norm() < 0.03 * p.grad.norm() + 1e-6

    def test_the_encoder_follows_a_kernel_that_replaces_the_one_asked_for(self, monkeypatch):
        monkeypatch.setattr(
            VJEPA2ACModel, "_check_and_adjust_attn_implementation", lambda *_, **__: "kernels-community/flash-attn2"
        )
        config = VJEPA2ACModel(small_config(attn_implementation="flash_attention_2")).config
        assert config.encoder_config._attn_implementation == "kernels-community/flash-attn2"
        config = small_config(attn_implementation={"": "flash_attention_2", "encoder_config": "sdpa"})
        assert VJEPA2ACModel(config).config.encoder_config._attn_implementation == "sdpa"

    def test_what_is_missing_is_named(self):
        if is_flash_attn_2_available():
            pytest.skip("flash_attn is installed here: nothing is missing")
        with pytest.raises(ImportError, match=r"FlashAttention2 .* doesn't seem to be installed"):
            small_model(attn_implementation="flash_attention_2")
        with pytest.raises(ValueError, match="flex_attention"):
            small_model(attn_implementation="flex_attention")
        with pytest.raises(ValueError, match=r"eager.*flash_attention_2.*sdpa"):
            small_model(attn_implementation="flash")


class TestPrecision:
    def test_rotary_tables_stay_float32(self):
        """Angles in bfloat16 would be off by half a radian at frame 100."""
        config = small_model().to(torch.bfloat16).config
        cos, sin = rotary_tables(config, first_frame=100, num_frames=1, device=torch.device("cpu"))
        assert cos.dtype == sin.dtype == torch.float32
        assert sin[0, 0] == torch.tensor(100.0).sin()
        with torch.autocast("cpu", torch.bfloat16):
            under_autocast = rotary_tables(config, first_frame=100, num_frames=1, device=torch.device("cpu"))
        assert torch.equal(under_autocast[0], cos)
        assert torch.equal(under_autocast[1], sin)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_half_precision_encoder_and_losses(self, dtype, attention):
        model = small_model(attn_implementation=attention)
        half = copy.deepcopy(model).to(dtype)
        pixel_values = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        _, actions, _ = random_inputs(model, frames=1)
        with torch.no_grad():
            exact, rounded = model.encode(pixel_values), half.encode(pixel_values)
            assert rounded.dtype == torch.float32
            assert (exact - rounded).abs().mean() < 0.02 * exact.abs().mean()
            losses = [each.clip_losses(exact, actions[:, 0, :2]).loss for each in (model, half)]
        assert losses[1].dtype == torch.float32
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.01)

    @pytest.mark.parametrize("autocast", [True, False])
    def test_bfloat16_changes_neither_dtype_nor_ranking(self, autocast):
        model = small_model()
        latents, actions, _ = random_inputs(model, frames=1)
        goal = random_inputs(model, frames=1, batch=2)[0].roll(1, dims=0)
        with torch.no_grad():
            exact = model.rollout(latents, actions)
            energy = model.goal_energy(exact, goal)
            if autocast:
                with torch.autocast("cpu", torch.bfloat16):
                    rounded = model.rollout(latents, actions)
            else:
                rounded = copy.deepcopy(model).to(torch.bfloat16).rollout(latents, actions)
            rounded_energy = model.goal_energy(rounded, goal)
        assert rounded.dtype == rounded_energy.dtype == torch.float32
        # A bfloat16 number has 8 bits: its relative error is below 0.4 %, which four steps of three layers enlarge.
        assert (exact - rounded).abs().mean() < 0.02 * exact.abs().mean()
        assert (energy - rounded_energy).abs().max() < 0.005 * energy.mean()

    def test_training_under_autocast_keeps_float32_weights(self):
        model = small_model().train()
        latents, actions, _ = random_inputs(model, frames=3)
        exact = model.clip_losses(latents, actions[:, 0, :2]).loss
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.clip_losses(latents, actions[:, 0, :2]).loss
        rounded.backward()
        assert rounded.item() == pytest.approx(exact.item(), rel=0.01)
        assert {p.grad.dtype for p in model.predictor.parameters() if p.grad is not None} == {torch.float32}


class TestDevices:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("model")
        small_model().save_pretrained(folder)
        return folder

    @pytest.mark.parametrize(
        "device_map", ["cpu", "auto", {"": "cpu"}, {"encoder": "cpu", "predictor": "disk"}], ids=str
    )
    def test_device_map(self, folder, tmp_path, device_map):
        model = VJEPA2ACModel.from_pretrained(folder, device_map=device_map, offload_folder=tmp_path)
        plain = VJEPA2ACModel.from_pretrained(folder)
        latents, actions, _ = random_inputs(plain, frames=1)
        with torch.no_grad():
            assert torch.equal(model.rollout(latents, actions), plain.rollout(latents, actions))

    def test_blocks_are_not_split(self):
        with init_empty_weights():
            model = VJEPA2ACModel(small_config(predictor_num_hidden_layers=6))
        size = sum(p.numel() * 4 for p in model.parameters())
        # Wherever the memory of the first device ends.
        for percent in range(40, 96, 5):
            limits = {"cpu": size * percent // 100, "disk": 2 * size}
            placed = infer_auto_device_map(model, max_memory=limits, no_split_module_classes=model._no_split_modules)
            assert {"cpu", "disk"} == set(placed.values())
            for prefix in ("encoder.layer.", "predictor.predictor_blocks."):
                assert all(name.removeprefix(prefix).isdigit() for name in placed if name.startswith(prefix))


class TestAdapters:
    LORA = LoraConfig(target_modules=r"predictor\.predictor_blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])", r=2)

    def test_lora_on_the_predictor(self, tmp_path):
        base = small_model()
        latents, actions, _ = random_inputs(base, frames=3)
        with torch.no_grad():
            expected = base.rollout(latents[:, :1], actions)
        model = get_peft_model(copy.deepcopy(base), self.LORA)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained
        assert all(".predictor_blocks." in name and "lora_" in name for name in trained)
        torch.testing.assert_close(model.rollout(latents[:, :1], actions), expected, **PARITY)

        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(latents, actions[:, 0, :2], auto_steps=2).loss
            loss.backward()
            optimizer.step()
        assert all(p.grad.abs().max() > 0 for name, p in model.named_parameters() if name in trained)
        with torch.no_grad():
            tuned = model.rollout(latents[:, :1], actions)
            assert (tuned - expected).abs().max() > 1e-3
            with model.disable_adapter():
                torch.testing.assert_close(model.rollout(latents[:, :1], actions), expected, **PARITY)
            model.save_pretrained(tmp_path)
            again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
            assert torch.equal(again.rollout(latents[:, :1], actions), tuned)
            torch.testing.assert_close(
                again.merge_and_unload().rollout(latents[:, :1], actions), tuned, rtol=0, atol=1e-5
            )
