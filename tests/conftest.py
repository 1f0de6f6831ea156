# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings of the whole test run; the environment must be set before the libraries are imported."""

import os
import tempfile

# Rows that an earlier run cached must not answer for this one's datasets.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="nora15-datasets-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch

# The tests' models are so small that a second thread costs more than it gives.
torch.set_num_threads(1)
