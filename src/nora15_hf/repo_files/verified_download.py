# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Downloads are compared with their checksums when they arrive: the Hub's client itself compares sizes only."""

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import httpx
from huggingface_hub.utils.sha import git_hash, sha_fileobj

logger = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")

# Files with the right content, and their inodes: `load_verified` inside of itself reads them once.
_intact: set[tuple[str, int]] = set()


def load_verified(
    load: Callable[[], Loaded],
    repo_or_folder: str | os.PathLike | None,
    *,
    repo_type: str = "model",
    cache_dir: str | os.PathLike | None = None,
) -> Loaded:
    """
    Loads something from a repo and compares every file that came into the cache meanwhile with its checksum.

    The cache calls a file by the checksum that the Hub announced for it. A file with another content is removed and
    everything is loaded once more, whether or not the damage had been noticed. Files that were there before cost
    nothing: they were compared when they arrived. Not compared are caches without symlinks, whose files are not called
    so, and files shared between repos, whose content Xet has compared.

    Args:
        load (`Callable[[], Loaded]`): Called once, or twice after damage.
        repo_or_folder (`str` or `os.PathLike`, *optional*):
            What it loads from; nothing is done about a local folder, or about None.
        repo_type (`str`, *optional*, defaults to `"model"`): Or `"dataset"`.
        cache_dir (`str` or `os.PathLike`, *optional*): The cache it downloads to. Default: the client's.

    Returns:
        What `load` returns.

    Raises:
        ConnectionError: The connection was lost, and the client had not tried again by itself.
        OSError: Files arrived damaged twice; they are not in the cache.
    """
    # None: transformers' way to load from memory.
    if repo_or_folder is None or os.path.isdir(repo_or_folder):
        return load()
    repo = os.fspath(repo_or_folder)
    cache = Path(cache_dir or constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=repo_type))
    for _ in range(2):
        before = _files(cache)
        try:
            loaded = load()
        except BaseException as error:
            # Of an interrupted download, too, some files have arrived.
            damaged = _remove_damaged(cache, before)
            if not damaged and isinstance(error, httpx.TransportError):
                # Tells neither what was being loaded nor that it is a matter of the connection.
                raise ConnectionError(f"{repo!r} could not be loaded: {error} Load it again.") from error
            if not damaged or not isinstance(error, Exception):
                raise
        else:
            damaged = _remove_damaged(cache, before)
            if not damaged:
                return loaded
            del loaded
        logger.warning("Files of %r arrived damaged and were removed: %s.", repo, damaged)
    raise OSError(
        f"Files of {repo!r} arrived damaged twice: {damaged} have the right size, but not the content that the Hub has a "
        "checksum of. They were removed from the cache. Check what is between this machine and the Hub (a proxy, a "
        "mirror, memory, the disk), then load again."
    )


def verified(from_pretrained: Callable[..., Loaded]) -> Callable[..., Loaded]:
    """Decorates a class-level `from_pretrained(cls, repo_or_folder, ...)`, which then loads as [`load_verified`] does."""
    signature = inspect.signature(from_pretrained)

    @functools.wraps(from_pretrained)
    def from_pretrained_verified(*args, **kwargs):
        _, repo_or_folder = list(signature.bind(*args, **kwargs).arguments.values())[:2]
        load = functools.partial(from_pretrained, *args, **kwargs)
        return load_verified(load, repo_or_folder, cache_dir=kwargs.get("cache_dir"))

    return from_pretrained_verified


def _files(cache: Path) -> dict[str, int]:
    """The files of a repo's cache, by inode: a forced download replaces a file under its name."""
    try:
        with os.scandir(cache / "blobs") as entries:
            return {entry.path: entry.inode() for entry in entries if entry.is_file(follow_symlinks=False)}
    except FileNotFoundError:
        return {}


def _remove_damaged(cache: Path, before: dict[str, int]) -> list[str]:
    """Removes from the cache what has arrived damaged since `before`; the files' paths in the repo."""
    arrived = _files(cache).items() - before.items() - _intact
    damaged = {(path, inode) for path, inode in arrived if _is_damaged(Path(path), inode)}
    _intact.update(arrived - damaged)
    if not damaged:
        return []
    blobs = {Path(path).name for path, _ in damaged}
    names = set()
    for path, _ in damaged:
        Path(path).unlink(missing_ok=True)
    for pointer in (cache / "snapshots").rglob("*"):
        if pointer.is_symlink() and Path(os.readlink(pointer)).name in blobs:
            pointer.unlink(missing_ok=True)
            names.add("/".join(pointer.relative_to(cache / "snapshots").parts[1:]))
    return sorted(names or blobs)


def _is_damaged(blob: Path, inode: int) -> bool:
    try:
        with open(blob, "rb") as file:
            if re.fullmatch("[0-9a-f]{64}", blob.name):
                checksums = {sha_fileobj(file).hex()}
            elif re.fullmatch("[0-9a-f]{40}", blob.name):
                content = file.read()
                # git's for files outside of LFS; mirrors of companies announce the plain one.
                checksums = {git_hash(content), sha1(content, usedforsecurity=False).hexdigest()}
            else:
                # Not yet complete, or of a mirror that announces no checksum.
                return False
        # Another process may have found the damage first and have replaced the file.
        return blob.name not in checksums and blob.stat().st_ino == inode
    except FileNotFoundError:
        return False


__all__ = ["load_verified", "verified"]
