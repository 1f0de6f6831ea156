# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings of the whole test run; the environment must be set before the libraries are imported."""

import os
import tempfile

# Rows that an earlier run cached must not answer for this one's datasets.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="nora15-datasets-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest
import torch
from huggingface_hub.utils import close_session

from hub_server import HubServer

# The tests' models are so small that a second thread costs more than it gives.
torch.set_num_threads(1)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh, empty Hub on loopback that the test's own process is logged in to, with an empty cache."""
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "hf-home", token=server.token)
        yield server
        close_session()
