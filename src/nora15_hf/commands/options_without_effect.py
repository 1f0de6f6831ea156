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


def refuse_revisions_of_folders(options: Any) -> None:
    """
    Refuse revisions of what has none: only a repo on the Hub has revisions, and a folder would be read as it is.

    Args:
        options:
            An instance of a dataclass. `revision_of` in a field's metadata names the fields that hold the repo, of which one is
            given; of several repos the field holds a revision each, where an empty one stands for none.

    Raises:
        ValueError: The repo is a local folder, or there is none.
    """
    for field in dataclasses.fields(options):
        names = field.metadata.get("revision_of")
        value = getattr(options, field.name)
        if names is None or value is None:
            continue
        source = next(filter(None, (getattr(options, name) for name in names)), None)
        if source is None:
            raise ValueError(f"--{field.name} has no effect without --{' or --'.join(names)}. Omit it.")
        several = isinstance(value, list)
        for revision, repo in zip(value, source, strict=True) if several else [(value, source)]:
            if revision and Path(repo).is_dir():
                raise ValueError(
                    f"--{field.name} {revision} has no effect on the local folder {repo}, which has no revisions. "
                    + ("Pass '' for it" if several else "Omit it")
                    + ", or name a repo on the Hub."
                )


__all__ = ["refuse_revisions_of_folders", "refuse_without_effect"]
