# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings of a run as plain JSON values in nested objects: as one table, and what two of them differ in."""

import json
from collections.abc import Mapping
from typing import Any


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from a file, to be compared with those: tuples become lists."""
    return json.loads(json.dumps(settings))


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with the names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name to both values, of the settings that differ; what one side lacks is `None` there."""
    one, other = flat_settings(first), flat_settings(second)
    return {
        name: (one.get(name), other.get(name))
        for name in one | other
        if name not in one or one[name] != other.get(name)
    }


__all__ = ["as_json", "differing_settings", "flat_settings"]
