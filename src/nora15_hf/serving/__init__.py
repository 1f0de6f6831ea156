# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
A policy that other programs call: servers of openpi's and GR00T's protocols, and a client. Needs the extra `serve`.

Servers are in [`~nora15_hf.serving.server`], and import torch; the client does without.
"""

from ..simulation.installation import extra_command

try:
    from .policy_client import PolicyClient, PolicyServerError, PolicyTimeoutError
except ModuleNotFoundError as error:
    raise ImportError(
        f"Serving and its client need the extra `serve`. Install it with {extra_command('serve')}."
    ) from error

__all__ = ["PolicyClient", "PolicyServerError", "PolicyTimeoutError"]
