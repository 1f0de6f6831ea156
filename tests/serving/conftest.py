# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy that tells what it was asked for, behind a server of openpi's protocol."""

from collections.abc import Iterator

import pytest

from helpers.recording_policy import RecordingPolicy
from nora15_hf.serving.server import PolicyServer


@pytest.fixture
def policy() -> RecordingPolicy:
    return RecordingPolicy()


@pytest.fixture
def server(policy) -> Iterator[PolicyServer]:
    with PolicyServer(policy, port=0) as server:
        yield server
        # Whatever a test has left unanswered would keep the server from ending.
        policy.go.set()
