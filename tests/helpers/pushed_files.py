# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What arrived in a repo of the test Hub, to be compared with a folder."""

from pathlib import Path

from .hub_server import HubServer


def pushed_files(hub: HubServer, repo: str, **options) -> dict[str, bytes]:
    """Path to content of a repo's files, without the one that the Hub makes itself."""
    return {path: content for path, content in hub.files(repo, **options).items() if path != ".gitattributes"}


def written_files(folder: Path) -> dict[str, bytes]:
    """Path to content of a folder's files."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
