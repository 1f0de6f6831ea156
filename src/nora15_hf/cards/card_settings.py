# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Values in the tables of cards and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["Setting", "setting_text"]

Setting = str | int | float | bool | None | Sequence | Mapping
"""Anything JSON can hold."""


def setting_text(value: Setting) -> str:
    """
    A setting as people read it.

    Args:
        value (`Setting`): the setting.

    Returns:
        `str`: floats without trailing zeros, yes or no, lists and mappings on one line.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting_text(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(setting_text, value))
    return str(value)
