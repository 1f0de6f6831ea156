# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' ModelTesterMixin and ConfigTester on the policy."""

import unittest

import torch

from helpers.transformers_suites import load_suite
from nora15_hf import Nora15ActionExpertConfig, Nora15Config, Nora15ForActionPrediction

modeling = load_suite("test_modeling_common")
generation = load_suite("generation.test_utils")
configuration = load_suite("test_configuration_common")

VOCABULARY, IMAGE_TOKEN, FIRST_ACTION_TOKEN = 99, 60, 64


class PolicyTester:
    """A policy of two layers and a batch for it, in the attributes that the suite reads."""

    # The suite's own number of rows in its comparison of attention implementations, so that it makes up none.
    batch_size = 7
    chunk_size = 3
    action_dim = 4
    num_hidden_layers = 2
    # Of the expert, whose hidden states and attentions the model returns.
    hidden_size = 32
    num_attention_heads = 4
    encoder_seq_length = chunk_size
    key_length = 10 + chunk_size
    num_hidden_states_types = 2
    seq_length = 10
    image_size, patch_size = 56, 14
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> Nora15Config:
        return Nora15Config(
            vlm_config={
                "text_config": {
                    "vocab_size": VOCABULARY,
                    "hidden_size": 32,
                    "intermediate_size": 48,
                    "num_hidden_layers": self.num_hidden_layers,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 64,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
                    "bos_token_id": None,
                    "eos_token_id": 1,
                    "pad_token_id": 0,
                },
                "vision_config": {
                    "depth": 2,
                    "hidden_size": 32,
                    "intermediate_size": 48,
                    "num_heads": 4,
                    "out_hidden_size": 32,
                    "patch_size": self.patch_size,
                    "fullatt_block_indexes": [0, 1],
                },
                "image_token_id": IMAGE_TOKEN,
                "video_token_id": 61,
                "vision_start_token_id": 62,
                "vision_end_token_id": 63,
                "tie_word_embeddings": True,
            },
            action_expert_config={"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4},
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            num_action_tokens=8,
            action_token_start_id=FIRST_ACTION_TOKEN,
        )

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        input_ids = torch.randint(2, 60, (self.batch_size, self.seq_length), generator=generator)
        # A picture of 2 x 2 tokens, behind the tokens that the suite masks, and an answer of three FAST tokens.
        input_ids[:, 2:6] = IMAGE_TOKEN
        input_ids[:, -3:] = FIRST_ACTION_TOKEN + torch.arange(3)
        labels = torch.full_like(input_ids, -100)
        labels[:, -3:] = input_ids[:, -3:]
        shape = (self.batch_size, self.chunk_size, self.action_dim)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": torch.randn(self.batch_size * 16, 3 * 2 * 14 * 14, generator=generator),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * self.batch_size),
            "labels": labels,
            "actions": torch.rand(shape, generator=generator),
            "noise": torch.randn(shape, generator=generator),
            "timestep": torch.rand(self.batch_size, generator=generator),
        }
        return self.get_config(), inputs


class TestPolicy(modeling.ModelTesterMixin, generation.GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (Nora15ForActionPrediction,)
    _is_composite = True

    def setUp(self):
        self.model_tester = PolicyTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Where the suite picks single arguments, and takes noise for that of masked autoencoders: all that belong together."""
        if "input_ids" in inputs_dict:
            _, complete = self.model_tester.prepare_config_and_inputs_for_common()
            inputs_dict = {**complete, **inputs_dict, "noise": complete["noise"]}
        return super()._prepare_for_class(inputs_dict, model_class, return_labels)

    def test_config(self):
        configuration.ConfigTester(self, config_class=Nora15Config, has_text_modality=False).run_common_tests()

    def test_action_expert_config(self):
        configuration.ConfigTester(
            self,
            config_class=Nora15ActionExpertConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_attention_heads"],
        ).run_common_tests()
