# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' ModelTesterMixin and ConfigTester on the world model."""

import unittest

import torch

from helpers.transformers_suites import load_suite
from nora15_hf import VJEPA2ACConfig, VJEPA2ACModel

modeling = load_suite("test_modeling_common")
configuration = load_suite("test_configuration_common")


class WorldModelTester:
    """A world model of two layers and a batch for it, in the attributes that the suite reads."""

    # The suite's own number of rows in its comparison of attention implementations, so that it makes up none.
    batch_size = 7
    num_frames = 2
    num_patches = 4
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 2
    # Of each frame: its patches, its action and its state.
    seq_length = num_frames * (num_patches + 2)
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> VJEPA2ACConfig:
        return VJEPA2ACConfig(
            encoder_config={
                "hidden_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "mlp_ratio": 2.0,
                "crop_size": 28,
                "patch_size": 14,
                "tubelet_size": 1,
                "frames_per_clip": 1,
            },
            predictor_hidden_size=self.hidden_size,
            predictor_num_hidden_layers=self.num_hidden_layers,
            predictor_num_attention_heads=self.num_attention_heads,
            predictor_mlp_ratio=2.0,
            action_dim=4,
            state_dim=4,
        )

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, self.num_frames)
        inputs = {
            "latents": torch.randn(*shape, self.num_patches, 24, generator=generator),
            "actions": torch.randn(*shape, 4, generator=generator),
        }
        return self.get_config(), inputs


class TestWorldModel(modeling.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (VJEPA2ACModel,)
    test_resize_embeddings = False
    _is_composite = True

    def setUp(self):
        self.model_tester = WorldModelTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """
        Where the suite picks single arguments: all that belong together. With labels, those of a clip's losses, from pixels,
        so that all parameters take part.
        """
        _, complete = self.model_tester.prepare_config_and_inputs_for_common()
        inputs_dict = super()._prepare_for_class({**complete, **inputs_dict}, model_class)
        if return_labels:
            del inputs_dict["latents"]
            pixel_values = torch.randn(
                self.model_tester.batch_size, 2, 3, 28, 28, generator=torch.Generator().manual_seed(1)
            )
            inputs_dict.update(pixel_values=pixel_values, actions=inputs_dict["actions"][:, :-1], auto_steps=1)
        return inputs_dict

    def test_config(self):
        configuration.ConfigTester(self, config_class=VJEPA2ACConfig, has_text_modality=False).run_common_tests()
