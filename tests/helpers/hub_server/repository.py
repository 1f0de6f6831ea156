# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One repo of the test Hub: files under commits, commits under branches and tags, all in memory."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

__all__ = ["Blob", "Commit", "Repository", "RevisionNotFound"]


class RevisionNotFound(Exception):
    """No branch, tag or commit has this name."""


@dataclass(frozen=True)
class Blob:
    """A file's content; large files are known by their SHA-256, small ones by git's SHA-1."""

    content: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What the client compares with its own file, and the ETag."""
        return self.sha256 if self.is_lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A complete tree: path to blob."""

    oid: str
    parents: tuple[str, ...]
    title: str
    message: str
    author: str
    date: datetime
    files: Mapping[str, Blob]


@dataclass
class Repository:
    """A repo of type `model` or `dataset`, born with an initial commit as on the Hub."""

    repo_type: str
    repo_id: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self):
        self.branches["main"] = ""
        self.add_commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit")

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, a tag, or a commit id of at least seven characters."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and re.fullmatch("[0-9a-f]{7,40}", revision):
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        if oid is None:
            raise RevisionNotFound(revision)
        return self.commits[oid]

    def add_commit(
        self, branch: str, files: Mapping[str, Blob], title: str, message: str = "", author: str = "system"
    ) -> Commit:
        """Puts a complete new tree on top of a branch, in one step."""
        parents = (self.branches[branch],) if self.branches[branch] else ()
        tree = "".join(f"{path} {files[path].oid}\n" for path in sorted(files))
        described = f"{self.repo_type} {self.repo_id} {len(self.commits)} {parents} {title} {tree}"
        oid = hashlib.sha1(described.encode()).hexdigest()
        commit = Commit(oid, parents, title, message, author, datetime.now(UTC), dict(files))
        self.commits[oid] = commit
        self.branches[branch] = oid
        return commit

    def history(self, commit: Commit) -> list[Commit]:
        """The commit and what came before it, newest first."""
        commits = [commit]
        while commits[-1].parents:
            commits.append(self.commits[commits[-1].parents[0]])
        return commits
