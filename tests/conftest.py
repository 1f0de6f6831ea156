# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings of the whole test run; the environment must be set before the libraries are imported."""

import gc
import os
import tempfile

# Rows that an earlier run cached must not answer for this one's datasets.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="nora15-datasets-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Here and in every process that a test starts. The models are so small that a second thread gives nothing, and where tests
# share the cores, waiting for it takes most of the time: the smoke quickstart 10 times as long beside one busy process.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from huggingface_hub.utils import close_session

from helpers.hub_server import HubServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one of them at the end."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


def pytest_collection_finish() -> None:
    """What was imported stays: the collection of all garbage that every training begins with need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh, empty Hub on loopback that the test's own process is logged in to, with an empty cache."""
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hf-home", token=server.token)
        yield server
        close_session()
