# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A tiny policy for the trainers' tests."""

import copy

import pytest

from nora15_hf.nora15.modeling_nora15 import Nora15ForActionPrediction
from nora15_hf.nora15.presets import tiny_policy


@pytest.fixture(scope="module")
def tiny():
    """Policy and processor that the tests of a file share; they must not change it."""
    return tiny_policy(("open the faucet",), image_size=56)


@pytest.fixture
def policy(tiny):
    return copy.deepcopy(tiny[0])


@pytest.fixture(scope="module")
def processor(tiny):
    return tiny[1]


@pytest.fixture
def backbone_passes(monkeypatch):
    """Batch sizes of the backbone's passes so far."""
    passes = []
    run = Nora15ForActionPrediction.run_backbone

    def counting_run(self, input_ids, *args, **kwargs):
        passes.append(len(input_ids))
        return run(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(Nora15ForActionPrediction, "run_backbone", counting_run)
    return passes
