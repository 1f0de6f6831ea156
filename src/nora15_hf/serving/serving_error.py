# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What is wrong with a request, in words that its sender is meant to read."""

from typing import Any


class ServingError(ValueError):
    """A request that cannot be answered. The message names the key, and is sent to the client."""


class ShuttingDownError(ServingError):
    """A request that is not answered because the server stops. Its connection is closed, so that the client may come again."""

    def __init__(self):
        super().__init__("The server is shutting down.")


def shown(value: Any) -> str:
    """A value of a request as an error shows it: short, however large it is."""
    if isinstance(value, str):
        return repr(value[:40])
    return repr(value) if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


__all__ = ["ServingError", "ShuttingDownError", "shown"]
