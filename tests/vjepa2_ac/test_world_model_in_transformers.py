# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The world model's outputs and its processor's arguments are those of transformers' models."""

import numpy as np
import pytest
import torch
from transformers.utils import ModelOutput

from helpers.small_world_models import random_inputs, small_model
from nora15_hf.vjepa2_ac import VJEPA2ACProcessor


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attentions_and_hidden_states(implementation):
    model = small_model(attn_implementation=implementation)
    latents, actions, _ = random_inputs(model, frames=3)
    actions = actions[:, 0, :3]
    with torch.no_grad():
        plain = model(latents, actions)
        output = model(latents, actions, output_hidden_states=True, output_attentions=True)
    assert isinstance(plain, ModelOutput)
    assert list(plain) == ["predicted_latents"]
    torch.testing.assert_close(output.predicted_latents, plain.predicted_latents)
    config = model.config
    tokens = 3 * config.tokens_per_frame
    assert [state.shape for state in output.hidden_states] == [(2, tokens, config.predictor_hidden_size)] * (
        config.predictor_num_hidden_layers + 1
    )
    frame = torch.arange(tokens) // config.tokens_per_frame
    for weights in output.attentions:
        assert weights.shape == (2, config.predictor_num_attention_heads, tokens, tokens)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights[..., frame > frame[:, None]] == 0).all()
    (predicted,) = model(latents, actions, return_dict=False)
    torch.testing.assert_close(predicted, plain.predicted_latents)
    chosen = model(latents, actions[:, :2], auto_steps=2, output_hidden_states=[-1]).hidden_states
    assert [state is not None for state in chosen] == [False] * config.predictor_num_hidden_layers + [True]


def test_pixels_in_place_of_latents_reach_the_encoder():
    model = small_model()
    size = model.config.encoder_config.crop_size
    pixels = torch.randn(1, 3, 3, size, size, generator=torch.Generator().manual_seed(0))
    actions = torch.zeros(1, 2, model.config.action_dim)
    loss = model(pixel_values=pixels, actions=actions, auto_steps=1).loss
    torch.testing.assert_close(loss, model(model.encode(pixels), actions, auto_steps=1).loss)
    loss.backward()
    assert model.encoder.embeddings.patch_embeddings.proj.weight.grad.abs().sum() > 0
    for arguments in ({}, {"latents": pixels, "pixel_values": pixels}):
        with pytest.raises(ValueError, match="either `latents` or `pixel_values`"):
            model(actions=actions, **arguments)


def test_processor_takes_images_and_return_tensors():
    processor = VJEPA2ACProcessor(size=28)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    inputs = processor(images=image, return_tensors="pt")
    assert list(inputs) == processor.model_input_names
    assert torch.equal(inputs["pixel_values"], processor(image)["pixel_values"])
    with pytest.raises(ValueError, match=r"return_tensors='np': the world model takes PyTorch tensors"):
        processor(image, return_tensors="np")
