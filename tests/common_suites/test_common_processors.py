# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' ProcessorTesterMixin on both processors."""

import unittest

from helpers.transformers_suites import load_suite
from nora15_hf import Nora15Processor, VJEPA2ACProcessor
from nora15_hf.nora15.presets import tiny_policy

processing = load_suite("test_processing_common")


class WithoutReplacement(processing.ProcessorTesterMixin):
    """Neither processor has transformers' methods that put image tokens into a text."""

    @staticmethod
    def does_processor_return_mm_offsets(processor_class, method_name):
        # The suite's own compares with the next class in the line of inheritance, here a mixin that has nothing to compare.
        return False


class TestPolicyProcessor(WithoutReplacement, unittest.TestCase):
    processor_class = Nora15Processor

    @classmethod
    def _setup_from_components(cls):
        return tiny_policy(image_size=56)[1]

    @staticmethod
    def prepare_processor_dict():
        return {"image_size": 56, "action_dim": 4, "normalization_mode": "min_max"}


class TestWorldModelProcessor(WithoutReplacement, unittest.TestCase):
    processor_class = VJEPA2ACProcessor

    @staticmethod
    def prepare_processor_dict():
        return {"size": 56, "max_aspect_ratio": 1.35}
