# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the test Hub knows: users with their tokens, repos, stored objects, the requests it got."""

import secrets
import threading
from dataclasses import dataclass, field
from http import HTTPStatus

from .faults import FaultPlan
from .repository import Repository, RevisionNotFound

__all__ = ["HubError", "HubState", "Request", "User"]


class HubError(Exception):
    """An answer other than success, with the headers by which the client tells the cases apart."""

    def __init__(self, status: HTTPStatus, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({} if code is None else {"X-Error-Code": code}) | headers


@dataclass(frozen=True)
class User:
    """Who a token belongs to; the name is also the namespace that the user may write to."""

    name: str
    can_write: bool


@dataclass(frozen=True)
class Request:
    """A request as the server saw it; status 0 when it hung up without an answer."""

    method: str
    route: str
    path: str
    status: int
    user: str | None
    with_authorization: bool
    byte_range: str | None


@dataclass
class HubState:
    """Shared by all connections; `lock` is held while anything is changed."""

    users: dict[str, User] = field(default_factory=dict)
    repos: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: FaultPlan = field(default_factory=FaultPlan)
    requests: list[Request] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_user(self, name: str, can_write: bool = True) -> str:
        """Makes a token."""
        token = f"hf_{secrets.token_hex(17)}"
        self.users[token] = User(name, can_write)
        return token

    def user_of(self, authorization: str | None) -> User | None:
        """The user of an `Authorization` header; `None` without one."""
        if authorization is None:
            return None
        user = self.users.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise HubError(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return user

    def readable(self, repo_type: str, repo_id: str, user: User | None) -> Repository:
        """A repo that the user may see; a private repo of someone else does not exist for them."""
        repo = self.repos.get((repo_type, repo_id))
        if repo is not None and (not repo.private or (user is not None and user.name == repo_id.split("/")[0])):
            return repo
        status = HTTPStatus.UNAUTHORIZED if user is None else HTTPStatus.NOT_FOUND
        raise HubError(status, "Repository not found", "RepoNotFound")

    def writable(self, repo_type: str, repo_id: str, user: User | None) -> Repository:
        """A repo that the user may change."""
        repo = self.readable(repo_type, repo_id, user)
        self.require_write(user, repo_id)
        return repo

    @staticmethod
    def require_write(user: User | None, repo_id: str) -> None:
        """Refuses whoever may not write to the namespace of `repo_id`."""
        if user is None:
            raise HubError(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        if not user.can_write or user.name != repo_id.split("/")[0]:
            raise HubError(HTTPStatus.FORBIDDEN, f"You don't have the rights to write to the namespace of {repo_id!r}")

    @staticmethod
    def commit_at(repo: Repository, revision: str):
        """[`Repository.resolve`] with the Hub's error."""
        try:
            return repo.resolve(revision)
        except RevisionNotFound:
            raise HubError(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound") from None
