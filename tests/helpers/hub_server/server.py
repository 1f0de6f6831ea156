# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The test Hub on loopback, and how clients are pointed at it."""

import os
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from .faults import Fault
from .handlers import HubHandler, StorageHandler
from .state import HubState, Request

__all__ = ["HubServer"]


class HubServer:
    """
    A Hub on two loopback ports (the Hub and, as on the real one, a storage of another origin), all in memory.

    `with HubServer() as hub:` serves until the end of the block. The real clients talk to it unmodified: in a fresh
    process with `env=hub.environment(cache)`, or in the test's own with `hub.connect(monkeypatch, cache)`.

    Attributes:
        url (`str`): The endpoint.
        namespace (`str`): Of the user whose token is `token`; repos are made under it.
        token (`str`): May read and write `namespace`.
        read_token (`str`): Same user, may not write.
        other_token (`str`): Another user, who sees public repos only.
    """

    namespace = "robots"

    def __init__(self):
        self.state = HubState()
        self.token = self.state.add_user(self.namespace)
        self.read_token = self.state.add_user(self.namespace, can_write=False)
        self.other_token = self.state.add_user("stranger")
        # The classes are made per server, since handlers are made per connection and get no arguments.
        storage_handler = type("StorageHandler", (StorageHandler,), {"state": self.state})
        self._storage = ThreadingHTTPServer(("127.0.0.1", 0), storage_handler)
        hub_handler = type("HubHandler", (HubHandler,), {"state": self.state, "storage_url": _url(self._storage)})
        self._hub = ThreadingHTTPServer(("127.0.0.1", 0), hub_handler)
        self.url = hub_handler.url = _url(self._hub)
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            for server in (self._storage, self._hub)
        ]

    def __enter__(self) -> "HubServer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server, thread in zip((self._storage, self._hub), self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order of the answers."""
        return self.state.requests

    def fail(self, route: str, **fault) -> Fault:
        """Lets something go wrong on a route, see [`Fault`]; its `hits` tell how often it did."""
        return self.state.faults.add(Fault(route, **fault))

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Path to content at a revision, read from the server's memory."""
        commit = self.state.repos[repo_type, repo_id].resolve(revision)
        return {path: blob.content for path, blob in commit.files.items()}

    def commit_titles(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> list[str]:
        """Titles of the commits of a branch, oldest first."""
        repo = self.state.repos[repo_type, repo_id]
        return [commit.title for commit in reversed(repo.history(repo.resolve(revision)))]

    def environment(self, cache: str | Path, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """
        The environment of a fresh process that knows only this Hub.

        Args:
            cache (`str` or `Path`): `HF_HOME`; an empty folder for an empty cache.
            token (`str`, *optional*): What the user is logged in with; by default nobody is.
            offline (`bool`): `HF_HUB_OFFLINE`.
        """
        foreign = ("HF_", "HUGGING", "TRANSFORMERS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
        environment |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            # The Hub without Xet: files go through LFS, whose protocol is documented.
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
            # Otherwise `datasets` counts downloads at an address outside the endpoint.
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "OMP_NUM_THREADS": "1",
        }
        return environment if token is None else environment | {"HF_TOKEN": token}

    def connect(self, monkeypatch: pytest.MonkeyPatch, cache: str | Path, token: str | None = None) -> None:
        """
        Points `huggingface_hub` and `transformers` of the running process at this Hub, for the rest of a test.

        Much faster than a process of its own; `datasets` fixes its endpoint when it is imported and needs one.
        """
        cache = Path(cache)
        settings = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_TOKEN_PATH": str(cache / "token"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        # The module's functions (`create_repo`, `hf_hub_download` ...) are methods of this object.
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", self.url)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        close_session()


def _url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"
