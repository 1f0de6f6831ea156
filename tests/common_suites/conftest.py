# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The suites are collected by `make test-transformers` only."""

import os

import pytest

from common_suites.exclusions import EXCLUSIONS
from helpers.transformers_suites import SUITES_FOLDER

if SUITES_FOLDER not in os.environ:
    collect_ignore_glob = ["test_common_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    for name in (
        "accelerate_tests",
        "flash_attn_test",
        "flash_attn_3_test",
        "flash_attn_4_test",
        "torch_compile_test",
    ):
        config.addinivalue_line("markers", f"{name}: of transformers' suites")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = EXCLUSIONS.get("::".join(item.nodeid.split("::")[-2:]))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
