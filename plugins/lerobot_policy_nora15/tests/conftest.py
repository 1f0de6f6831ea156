# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The plugin's tests run with lerobot where it is installed, and with stand-ins of its interfaces elsewhere."""

import importlib.util

import pytest

import lerobot_interfaces

if importlib.util.find_spec("lerobot") is None:
    lerobot_interfaces.install()


@pytest.fixture
def server():
    """A server that speaks the protocol of `nora15 serve` and keeps what it was asked."""
    # The plugin imports lerobot.
    from wire_server import WireServer

    with WireServer() as server:
        yield server
