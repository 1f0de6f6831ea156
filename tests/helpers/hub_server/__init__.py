# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A Hub-protocol server on loopback for tests of everything that talks to the Hugging Face Hub."""

from .faults import ROUTES, Fault
from .server import HubServer

__all__ = ["ROUTES", "Fault", "HubServer"]
