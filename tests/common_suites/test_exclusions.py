# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The list of excluded tests stays short, and every entry has its reason."""

import importlib
import os

import pytest

from common_suites.exclusions import EXCLUSIONS
from helpers.transformers_suites import SUITES_FOLDER

FILES = {
    "TestPolicy": "test_common_policy",
    "TestWorldModel": "test_common_world_model",
    "TestPolicyProcessor": "test_common_processors",
    "TestWorldModelProcessor": "test_common_processors",
}


def test_at_most_twelve_each_with_its_reason():
    assert len(EXCLUSIONS) <= 12
    assert all(reason.endswith(".") and len(reason.split()) >= 8 for reason in EXCLUSIONS.values())


@pytest.mark.skipif(SUITES_FOLDER not in os.environ, reason="needs transformers' source distribution")
@pytest.mark.parametrize("excluded", EXCLUSIONS)
def test_excluded_tests_exist(excluded):
    class_name, test = excluded.split("::")
    suite = getattr(importlib.import_module(f"common_suites.{FILES[class_name]}"), class_name)
    assert callable(getattr(suite, test))
