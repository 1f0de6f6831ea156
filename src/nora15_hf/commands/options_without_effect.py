# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Options that have no effect because of another option."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def refuse_without_effect(options: Any, uses: Mapping[str, tuple[bool, str]]) -> None:
    """
    Refuse options that would be accepted and not used.

    Args:
        options: An instance of a dataclass.
        uses (`Mapping[str, tuple[bool, str]]`): By name, whether the option is used, and when it is not.

    Raises:
        ValueError: One that is not used has another value than its default.
    """
    for field in dataclasses.fields(options):
        used, where = uses.get(field.name, (True, ""))
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if not used and getattr(options, field.name) != default:
            raise ValueError(f"--{field.name} has no effect {where}. Omit it.")


def hub_only(source: str | None) -> tuple[bool, str]:
    """Whether a revision of `source` is used (only a repo on the Hub has revisions), and when it is not."""
    if source is None:
        return False, "without the repo that it belongs to"
    return not Path(source).is_dir(), f"on the local folder {source}"


__all__ = ["hub_only", "refuse_without_effect"]
