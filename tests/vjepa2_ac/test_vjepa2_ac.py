# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The world model against outputs of the original implementation, and against itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

from helpers.small_world_models import (
    ENCODER,
    ENCODER_PARITY,
    PARITY,
    VARIANTS,
    fixture,
    random_inputs,
    small_config,
    small_model,
)
from nora15_hf.vjepa2_ac import (
    VJEPA2ACConfig,
    VJEPA2ACModel,
    VJEPA2ACProcessor,
    integrate_pose,
    normalize_latents,
    pose_difference,
    tiny_world_model,
)
from nora15_hf.vjepa2_ac.attention_vjepa2_ac import rotary_tables, rotate

pytestmark = pytest.mark.isa


def load_reference_encoder(model: VJEPA2ACModel) -> None:
    """Renames the original encoder's weights: fused qkv to thirds, block names to transformers'."""
    state = {}
    for key, value in fixture("encoder_weights").items():
        key = key.replace("blocks.", "layer.").replace("attn.", "attention.")
        key = key.replace("patch_embed.", "embeddings.patch_embeddings.")
        if key.startswith("norm."):
            key = key.replace("norm.", "layernorm.")
        if ".qkv." in key:
            thirds = zip(("query", "key", "value"), value.chunk(3), strict=True)
            state |= {key.replace("qkv", name): third for name, third in thirds}
        else:
            state[key] = value
    model.encoder.load_state_dict(state)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_predictor_matches_reference(variant, num_frames, attention):
    model = small_model(variant, attn_implementation=attention)
    io = fixture(f"predictor_{variant}_io")
    latents = io["z"].unflatten(1, (-1, 16))[:, :num_frames]
    extrinsics = io["extrinsics"][:, :num_frames] if variant == "B" else None
    with torch.no_grad():
        out = model(latents, io["actions"][:, :num_frames], io["states"][:, :num_frames], extrinsics)
    torch.testing.assert_close(out.predicted_latents.flatten(1, 2), io[f"out_T{num_frames}"], **PARITY)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_matches_reference(variant):
    model = small_model(variant)
    io = fixture(f"predictor_{variant}_io")
    extrinsics = io["extrinsics"][:, :2] if variant == "B" else None
    inputs = io["z"].unflatten(1, (-1, 16))[:, :2], io["actions"][:, :2], io["states"][:, :2], extrinsics
    with torch.no_grad():
        _, *outputs = model(*inputs, output_hidden_states=True).hidden_states
    assert len(outputs) == model.config.predictor_num_hidden_layers
    for layer, hidden in enumerate(outputs):
        torch.testing.assert_close(hidden, io[f"hidden_T2_layer{layer}"], **PARITY)


@pytest.mark.parametrize("variant", VARIANTS)
def test_absent_states_are_the_references_zeros(variant):
    model = small_model(variant)
    io = fixture(f"predictor_{variant}_io")
    extrinsics = io["extrinsics"] if variant == "B" else None
    with torch.no_grad():
        out = model(io["z"].unflatten(1, (-1, 16)), io["actions"], extrinsics=extrinsics)
    torch.testing.assert_close(out.predicted_latents.flatten(1, 2), io["out_T4_zero_states"], **PARITY)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_tokens_see_what_the_references_mask_allows(variant):
    """Which tokens' changes reach which: the released mask, without one being built."""
    model = small_model(variant)
    mask = fixture(f"predictor_{variant}_io")["attn_mask"]
    attention = model.predictor.predictor_blocks[0].attn
    hidden = torch.randn(1, len(mask), 48, generator=torch.Generator().manual_seed(0))
    changed = hidden.repeat(len(mask), 1, 1)
    changed[range(len(mask)), range(len(mask))] += 1
    rotary = rotary_tables(model.config, 0, 4, torch.device("cpu"))
    with torch.no_grad():
        reached = (attention(changed, rotary, None)[0] - attention(hidden, rotary, None)[0]).abs().amax(-1) > 0
    assert torch.equal(reached.T, mask)


@pytest.mark.parametrize("recorded", ["y", "y_intpos"])
def test_rotation_matches_reference(recorded):
    io = fixture("rope_primitive")
    # The original counts patches in floats and condition tokens in integers.
    positions = io["pos"] if recorded == "y" else torch.arange(5)
    angles = positions[:, None] * (1.0 / 10000 ** (torch.arange(4) / 4)).repeat(2)
    torch.testing.assert_close(rotate(io["x"], angles.cos(), angles.sin()), io[recorded], **PARITY)


def test_rotary_tables_leave_the_rest_of_a_head_alone_and_condition_tokens_in_the_corner():
    config = small_config(predictor_hidden_size=64, predictor_num_attention_heads=4, grid_size=(2, 3))
    cos, sin = rotary_tables(config, first_frame=2, num_frames=1, device=torch.device("cpu"))
    assert cos.shape == (2 + 6, 16)
    assert (cos[:, 12:] == 1).all()
    assert (sin[:, 12:] == 0).all()
    assert (sin[:2, 4:] == 0).all()
    assert (sin[:, 0] == np.float32(np.sin(2.0))).all()
    # The columns of a non-square grid are scaled by rows / columns.
    torch.testing.assert_close(sin[2:5, 8], torch.tensor([0.0, 2 / 3, 4 / 3]).sin())


def test_encoder_matches_reference():
    model = small_model()
    load_reference_encoder(model)
    model.double()
    io = fixture("encoder_io")
    clips = io["clips"].double()
    with torch.no_grad():
        latents = model.encode(clips.transpose(1, 2))
        frame = clips[:, :, 0]
        one, repeated = (
            model.encoder(clip).last_hidden_state for clip in (frame[:, None], frame[:, None].repeat(1, 2, 1, 1, 1))
        )
    torch.testing.assert_close(latents.flatten(1, 2), io["forward_target"], **ENCODER_PARITY)
    # Before the layer norm, and with the frame repeated as the original does it or left to the encoder.
    torch.testing.assert_close(repeated, io["frame0_repeated_raw"], **ENCODER_PARITY)
    torch.testing.assert_close(one, io["frame0_repeated_raw"], **ENCODER_PARITY)


@pytest.mark.parametrize(
    ("name", "case", "aspect"),
    [
        ("preprocess_64", "square", (1, 1)),
        ("preprocess_64", "square_up", (1, 1)),
        ("preprocess_64", "tall", (1, 1)),
        ("preprocess_64", "wide", (1, 1)),
        ("preprocess_train_droid", "wide", (0.75, 1.35)),
    ],
)
def test_preprocessing_is_bit_equal_to_reference(name, case, aspect):
    io = fixture(name)
    processor = VJEPA2ACProcessor(size=64, min_aspect_ratio=aspect[0], max_aspect_ratio=aspect[1])
    pixel_values = processor(io[f"{case}_in"])["pixel_values"]
    assert torch.equal(pixel_values[0].transpose(0, 1), io[f"{case}_out"])


def test_nora_rollout_and_energies_match_reference():
    """Each stage from what is recorded before it: rounding, which differs between processors, would add up."""
    model = small_model()
    load_reference_encoder(model)
    io = fixture("rollout_A")
    with torch.no_grad():
        now, goal = (model.encode(io[name].transpose(1, 2)) for name in ("cur_frame", "goal_frame"))
        rollout = model.rollout(io["curr_latent"][:, None], io["actions"][None, :, :4])
        energy = model.goal_energy(rollout, io["goal_latent"])
        whole = model.goal_energy(model.rollout(now, io["actions"][None, :, :4]), goal)
    model.double()
    with torch.no_grad():
        for frame, latent in (("cur_frame", "curr_latent"), ("goal_frame", "goal_latent")):
            encoded = model.encode(io[frame].transpose(1, 2).double())[:, 0]
            torch.testing.assert_close(encoded, io[latent], **ENCODER_PARITY)
    model.float()
    torch.testing.assert_close(rollout[0].flatten(1, 2), io["z_hat"][:, 16:], **PARITY)
    for energies in (energy, whole):
        torch.testing.assert_close(energies[0], io["goal_energy"], **PARITY)
        assert energies[0].argsort().tolist() == [1, 4, 3, 2, 0]
    # The original predicts the whole clip anew at every step.
    frames = io["z_hat"].unflatten(1, (5, 16))
    for step in range(1, 5):
        with torch.no_grad():
            predictions = normalize_latents(model(frames[:, :step], io["actions"][:, :step]).predicted_latents)
        torch.testing.assert_close(predictions.flatten(1, 2), io[f"step{step}_full_normed"], **PARITY)


@pytest.mark.parametrize("case", ["nora", "droid"])
def test_losses_and_gradients_match_reference(case):
    io = fixture(f"train_{case}_auto2_T8")
    model = small_model(action_convention="metric" if case == "droid" else "normalized")
    losses = model.clip_losses(io["h"].unflatten(1, (8, 16)), io["actions"], io["states"], auto_steps=2)
    torch.testing.assert_close(losses.teacher_forcing_loss, io["jloss"][0], **PARITY)
    torch.testing.assert_close(losses.autoregressive_loss, io["sloss"][0], **PARITY)
    torch.testing.assert_close(losses.teacher_forced_latents.flatten(1, 2), io["z_tf"], **PARITY)
    torch.testing.assert_close(losses.imagined_latents.flatten(1, 2), io["z_ar"], **PARITY)
    losses.loss.backward()
    gradients = {name: p.grad for name, p in model.predictor.named_parameters() if p.grad is not None}
    assert set(gradients) == {n for n, _ in model.predictor.named_parameters() if "extrinsics" not in n}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert norm == pytest.approx({"nora": 1.1198188, "droid": 1.1650844}[case], abs=2e-6)
    for key, value in io.items():
        if key.startswith("grad."):
            torch.testing.assert_close(gradients[key.removeprefix("grad.")], value, **PARITY)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize(("auto_steps", "exponent"), [(1, 1.0), (3, 1.0), (4, 2.0)])
def test_losses_and_gradients_equal_those_written_out(variant, auto_steps, exponent):
    """Facts of the original, with the whole clip predicted anew for every imagined frame."""
    model = small_model(variant)
    latents, actions, _ = random_inputs(model, frames=6, steps=5, candidates=1)
    actions = actions[:, 0]
    generator = torch.Generator().manual_seed(3)
    states = torch.zeros(2, 6, 7)
    extrinsics = torch.randn(2, 6, 6, generator=generator) if variant == "B" else None

    def predicted(frames):
        length = frames.shape[1]
        camera = None if extrinsics is None else extrinsics[:, :length]
        return normalize_latents(model(frames, actions[:, :length], states[:, :length], camera).predicted_latents)

    def distance(frames):
        return (frames - latents[:, 1 : 1 + frames.shape[1]]).abs().pow(exponent).mean() / exponent

    teacher_forced = predicted(latents[:, :-1])
    frames = torch.cat([latents[:, :1], teacher_forced[:, :1]], dim=1)
    for _ in range(auto_steps - 1):
        frames = torch.cat([frames, predicted(frames)[:, -1:]], dim=1)
    expected = distance(teacher_forced), distance(frames[:, 1:])
    sum(expected).backward()
    gradients = [p.grad.clone() for p in model.predictor.parameters() if p.grad is not None]
    model.zero_grad()

    seen = []
    model.predictor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    losses = model.clip_losses(latents, actions, states, extrinsics, auto_steps, exponent)
    # The teacher-forcing pass serves the imagined frames, too: one more frame for each but the first.
    assert seen == [5] + [1] * (auto_steps - 1)
    for found, wanted in zip((losses.teacher_forcing_loss, losses.autoregressive_loss), expected, strict=True):
        torch.testing.assert_close(found, wanted, **PARITY)
    losses.loss.backward()
    found = [p.grad for p in model.predictor.parameters() if p.grad is not None]
    for gradient, wanted in zip(found, gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, **PARITY)


def test_pose_integration_matches_reference():
    io = fixture("pose_ops")
    assert torch.equal(integrate_pose(io["pose"], io["action"]), io["new_pose"])
    difference = pose_difference(io["pose"][:, 0], io["new_pose"][:, 0])
    torch.testing.assert_close(difference.double(), io["diff_back"], **PARITY)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("context", [1, 3])
def test_cached_rollout_equals_recompute(variant, context):
    model = small_model(variant)
    # Four frames are predicted from, as in the original's clips: rounding grows with their number.
    latents, actions, context_actions = random_inputs(model, frames=context, steps=5 - context, candidates=1)
    camera = torch.randn(2, 6, generator=torch.Generator().manual_seed(2)) if variant == "B" else None
    every_action = torch.cat([context_actions, actions[:, 0]], dim=1)
    with torch.no_grad():
        cached = model.rollout(latents, actions[:, 0], None, context_actions if context > 1 else None, camera)
        frames = latents
        for _ in range(actions.shape[2]):
            length = frames.shape[1]
            cameras = None if camera is None else camera[:, None].expand(-1, length, -1)
            predictions = model(frames, every_action[:, :length], extrinsics=cameras).predicted_latents
            frames = torch.cat([frames, normalize_latents(predictions[:, -1:])], dim=1)
    torch.testing.assert_close(cached, frames[:, context:], rtol=0, atol=3e-6)


def test_metric_rollout_integrates_the_pose():
    model = small_model(action_convention="metric")
    latents, actions, _ = random_inputs(model, frames=1, candidates=1)
    actions, pose = 0.1 * actions[:, 0], torch.randn(2, 1, 7, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        imagined = model.rollout(latents, actions[:, :2], pose)
        poses = torch.cat([pose, integrate_pose(pose, actions[:, :1])], dim=1)
        second = model(torch.cat([latents, imagined[:, :1]], dim=1), actions[:, :2], poses).predicted_latents[:, -1]
    torch.testing.assert_close(imagined[:, 1], normalize_latents(second), rtol=0, atol=3e-6)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_last_frame_alone_is_that_of_the_whole_future(batch_size):
    model = small_model()
    latents, actions, _ = random_inputs(model, frames=1)
    with torch.no_grad():
        whole = model.rollout(latents, actions, batch_size=batch_size)
        last = model.rollout(latents, actions, batch_size=batch_size, last_only=True)
        assert torch.equal(last, whole[:, :, -1:])
        assert torch.equal(model.goal_energy(last, latents), model.goal_energy(whole, latents))
        # Nothing keeps the others in memory.
        assert last.untyped_storage().nbytes() == last.nbytes


@pytest.mark.parametrize("context", [1, 3])
def test_candidates_equal_separate_rollouts(context):
    model = small_model()
    latents, actions, context_actions = random_inputs(model, frames=context)
    context_actions = context_actions if context > 1 else None
    with torch.no_grad():
        together = model.rollout(latents, actions, context_actions=context_actions)
        energies = model.goal_energy(together, latents)
        for candidate in range(actions.shape[1]):
            alone = model.rollout(latents, actions[:, candidate], context_actions=context_actions)
            torch.testing.assert_close(together[:, candidate], alone, rtol=0, atol=3e-6)
            torch.testing.assert_close(
                energies[:, candidate], model.goal_energy(alone, latents[:, -1]), rtol=0, atol=3e-6
            )


@settings(max_examples=15, deadline=None)
@given(step=st.integers(0, 3), seed=st.integers(0, 2**16))
def test_an_action_changes_its_own_step_and_later_ones_only(step, seed):
    model = small_model()
    latents, actions, _ = random_inputs(model, frames=1, candidates=1)
    changed = actions.clone()
    changed[:, :, step] += torch.randn(7, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        difference = (model.rollout(latents, actions) - model.rollout(latents, changed)).abs().amax((0, 1, 3, 4))
    assert (difference[:step] == 0).all()
    assert (difference[step:] > 0).all()


def test_gradients_with_and_without_checkpointing_are_equal():
    model = small_model().train()
    latents, actions, _ = random_inputs(model, frames=4, steps=3, candidates=1)
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.activation_checkpointing_enable()
        model.clip_losses(latents, actions[:, 0]).loss.backward()
        gradients.append([p.grad.clone() for p in model.predictor.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-7)


def test_bfloat16_stays_close_and_keeps_latents_in_float32():
    model = small_model()
    latents, actions, _ = random_inputs(model, frames=1)
    with torch.no_grad():
        exact = model.rollout(latents, actions)
        rounded = model.to(torch.bfloat16).rollout(latents, actions)
    assert rounded.dtype == torch.float32
    # The bound seen on a reference of medium size under autocast; random float inputs need no exactness.
    assert (exact - rounded).abs().mean() < 0.05


def test_save_and_load_is_bit_equal(tmp_path):
    torch.manual_seed(0)
    model, processor = tiny_world_model()
    model.eval().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), VJEPA2ACConfig)
    again, processor_again = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is VJEPA2ACModel
    assert type(processor_again) is VJEPA2ACProcessor
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, 100, 120, 3), dtype=np.uint8)
    actions = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        first = model.rollout(model.encode(**processor(frames)), actions)
        second = again.rollout(again.encode(**processor_again(frames)), actions)
    assert torch.equal(first, second)


def test_tiny_preset_starts_by_repeating_the_frame():
    torch.manual_seed(0)
    model, _ = tiny_world_model()
    assert 900_000 < model.num_parameters() < 2_000_000
    latents, actions, _ = random_inputs(model, frames=1)
    with torch.no_grad():
        imagined = model.rollout(latents, actions)
    torch.testing.assert_close(imagined, latents[:, None].expand_as(imagined), rtol=0, atol=1e-4)


def test_identity_start_survives_a_wider_predictor():
    model = VJEPA2ACModel(small_config(predictor_hidden_size=96, predictor_identity_init=True))
    latents, actions, _ = random_inputs(model, frames=1)
    with torch.no_grad():
        imagined = model.rollout(latents, actions)
    torch.testing.assert_close(imagined, latents[:, None].expand_as(imagined), rtol=0, atol=1e-4)


def test_initial_weights_shrink_with_depth():
    torch.manual_seed(0)
    blocks = VJEPA2ACModel(small_config()).predictor.predictor_blocks
    for depth, block in enumerate(blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / np.sqrt(2 * depth), rel=0.1)
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("defect", ["missing", "unexpected", "shape"])
def test_loading_refuses_weights_that_do_not_fit(tmp_path, defect):
    small_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = "predictor.predictor_blocks.1.attn.qkv.weight"
    if defect == "missing":
        del weights[key]
    elif defect == "unexpected":
        weights["module." + key] = weights[key].clone()
    else:
        weights[key] = weights[key][:, :-1].contiguous()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"predictor_blocks\.1\.attn\.qkv"):
        VJEPA2ACModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_config": ENCODER | {"crop_size": 60}}, "crop_size=60 is not a multiple"),
        ({"predictor_hidden_size": 50}, "not a multiple of"),
        ({"predictor_num_attention_heads": 16}, "head dimension of 3"),
        ({"predictor_num_attention_heads": 12, "predictor_hidden_size": 108}, "head dimension of 9"),
        ({"grid_size": (4, 0)}, "two positive numbers"),
        ({"action_dim": 0}, "action_dim=0"),
        ({"action_convention": "metric", "action_dim": 4}, "Set both to 7"),
        ({"action_convention": "joint"}, "action_convention"),
        ({"predictor_identity_init": True, "predictor_hidden_size": 24}, "at least as wide"),
    ],
)
def test_config_refuses(changes, message):
    with pytest.raises(Exception, match=message):
        small_config(**changes)


def with_infinity(values: torch.Tensor) -> torch.Tensor:
    """A copy whose last number is infinite."""
    copy = values.clone()
    copy.view(-1)[-1] = torch.inf
    return copy


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, z, a: m.encode(torch.zeros(2, 1, 3, 60, 64)), "`pixel_values` has shape"),
        (lambda m, z, a: m(z[..., :-1], a[:, 0, :3]), "`latents` has shape"),
        (lambda m, z, a: m(z, a[:, 0, :2]), r"`actions` has shape \(2, 2, 7\), expected \(2, 3, 7\)"),
        (lambda m, z, a: m(z, a[:, 0, :3, :6]), "`actions` has shape"),
        (lambda m, z, a: m(z, a[:, 0, :3], torch.zeros(2, 2, 7)), "`states` has shape"),
        (lambda m, z, a: m(z, a[:, 0, :3], extrinsics=torch.zeros(2, 3, 6)), "`extrinsics` was given"),
        (lambda m, z, a: m.rollout(z, a), "`context_actions` must hold the 2 actions"),
        (lambda m, z, a: m.rollout(z[:, :1], a, torch.zeros(2, 1, 7)), "`states` was given"),
        (lambda m, z, a: m.rollout(z[:, :1], a[:, :, :0]), "nothing to imagine"),
        (lambda m, z, a: m.rollout(z[:, :1], a[0, 0]), "`actions` has shape"),
        (lambda m, z, a: m.rollout(z[:, :1], a[..., :6]), r"`actions` has shape \(2, 1, 6\), expected \(2, 1, 7\)"),
        (lambda m, z, a: m.rollout(z[:1, :1], a), r"`actions` has shape \(2, 1, 7\), expected \(1, 1, 7\)"),
        (lambda m, z, a: m.rollout(z[:, :, :9], a, None, a[:, 0, :2]), "Make them with this model's `encode`"),
        (lambda m, z, a: m.rollout(z[:, :1], a, batch_size=0), "`batch_size`=0"),
        (lambda m, z, a: m.rollout(z[:, :1], with_infinity(a)), r"`actions` holds NaN.*index \[1, 4, 3, 6\]"),
        (lambda m, z, a: m.rollout(with_infinity(z)[:, -1:], a), "`latents` holds NaN"),
        (lambda m, z, a: m.rollout(z, a, None, with_infinity(a[:, 0, :2])), "`context_actions` holds NaN"),
        (lambda m, z, a: m.goal_energy(z[:, :1], with_infinity(z[:, 0])), "`goal_latents` holds NaN"),
        (lambda m, z, a: m.goal_energy(z, z[:1]), "`goal_latents` has shape"),
        (lambda m, z, a: m.goal_energy(with_infinity(z), z[:, 0]), "`rollout_latents` holds NaN"),
        (lambda m, z, a: m(z[:, :0], a[:, 0, :0]), r"`latents` has shape \(2, 0, 16, 48\).*at least one frame"),
        (lambda m, z, a: m.rollout(z[:0, :1], a[:0]), r"`latents` has shape \(0, 1, 16, 48\)"),
        (lambda m, z, a: m.rollout(z, a, None, a[:, 0, :2, :6]), r"as \(batch, 2, 7\); found shape \(2, 2, 6\)"),
        (lambda m, z, a: m.rollout(z[:, :1], a, None, a[:, 0, :1]), "must hold the 0 actions"),
        (lambda m, z, a: m.clip_losses(z, a[:, 0, :2], auto_steps=3), "`auto_steps`=3"),
        (lambda m, z, a: m.clip_losses(z, a[:, 0, :3]), r"`actions` has shape \(2, 3, 7\), expected \(2, 2, 7\)"),
        (lambda m, z, a: m.clip_losses(z, a[:, 0, :2, :6]), r"`actions` has shape \(2, 2, 6\)"),
        (lambda m, z, a: m.clip_losses(z, a[:, 0, :2], torch.zeros(2, 2, 7)), r"`states` has shape \(2, 2, 7\)"),
        (lambda m, z, a: m.clip_losses(z, a[:, 0, :2], torch.zeros(2, 3, 6)), r"`states` has shape \(2, 2, 6\)"),
    ],
)
def test_model_refuses(call, message):
    model = small_model()
    latents, actions, _ = random_inputs(model)
    with pytest.raises(ValueError, match=message):
        call(model, latents, actions)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (None, "`states` is missing"),
        (torch.zeros(2, 2, 7), r"`states` has shape \(2, 2, 7\), expected \(2, 1, 7\)"),
        (torch.zeros(2, 1, 6), r"`states` has shape \(2, 1, 6\), expected \(2, 1, 7\)"),
        (torch.full((2, 1, 7), torch.nan), "`states` holds NaN"),
    ],
)
def test_metric_model_needs_the_pose_of_every_given_frame(states, message):
    model = small_model(action_convention="metric")
    latents, actions, _ = random_inputs(model, frames=1)
    with pytest.raises(ValueError, match=message):
        model.rollout(latents, actions, states)
    if states is None:
        clip = latents.expand(-1, 4, -1, -1)
        for call in (lambda: model(latents, actions[:, 0, :1]), lambda: model.clip_losses(clip, actions[:, 0, :3])):
            with pytest.raises(ValueError, match=message):
                call()


def test_model_with_camera_needs_its_pose():
    model = small_model("B")
    latents, actions, _ = random_inputs(model, frames=1)
    with pytest.raises(ValueError, match="`extrinsics` was not given"):
        model.rollout(latents, actions)
    with pytest.raises(ValueError, match=r"`extrinsics` has shape \(2, 1, 5\)"):
        model.rollout(latents, actions, extrinsics=torch.zeros(2, 5))


def test_encoding_refuses_a_grid_that_is_not_the_encoders():
    model = VJEPA2ACModel(small_config(grid_size=(4, 6)))
    with pytest.raises(ValueError, match=r"grid of \(4, 6\) patches"):
        model.encode(torch.zeros(1, 1, 3, 64, 64))
    model = VJEPA2ACModel(small_config())
    # By hand, as for other pictures: the layers go on counting the old ones' patches.
    model.config.encoder_config.crop_size, model.config.grid_size = 32, (2, 2)
    with pytest.raises(
        ValueError, match=r"crop_size=32 .* make \(2, 2\) patches, but the encoder was built for \(4, 4\)"
    ):
        model.encode(torch.zeros(1, 1, 3, 32, 32))


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), TypeError, "expected uint8"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, "channels last"),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "none of them empty"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], ValueError, "differ in size"),
    ],
)
def test_processor_refuses(frames, error, message):
    with pytest.raises(error, match=message):
        VJEPA2ACProcessor(size=8)(frames)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0},
        {"size": None},
        {"size": 8.5},
        {"size": True},
        {"min_aspect_ratio": 1.2},
        {"max_aspect_ratio": None},
        {"image_std": (1, 1, 0)},
        {"image_mean": None},
        {"image_mean": ("", 1, 1)},
        {"image_mean": (1, 1)},
    ],
)
def test_processor_refuses_settings(arguments):
    with pytest.raises(ValueError, match="`"):
        VJEPA2ACProcessor(**arguments)
