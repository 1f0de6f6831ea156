# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""HTTP of the test Hub: the Hub itself, and the storage on an origin of its own to which it sends clients for files."""

import hashlib
import json
import re
import socket
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from .api import API_ROUTES, Answer, Call
from .faults import Fault
from .state import HubError, HubState, Request

__all__ = ["HubHandler", "StorageHandler"]

_RESOLVE = re.compile(r"/((?:datasets/)?)([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_RESOLVE_CACHE = re.compile(r"/api/resolve-cache/(model|dataset)s/([\w.-]+/[\w.-]+)/([0-9a-f]{40})/(.+)")


class _Handler(BaseHTTPRequestHandler):
    """What both origins share: bodies, faults, answers, the log of requests."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two packets, the second of which would wait 40 ms for the client.
    disable_nagle_algorithm = True
    state: HubState
    url: str
    storage_url: str

    def route(self) -> tuple[str, list[str]]:
        """Name of the route of `self.path` for [`Fault`] and the parts of the path, unquoted."""
        raise NotImplementedError

    def serve(self, route: str, parts: list[str], body: bytes) -> None:
        """Does the work and sends the answer."""
        raise NotImplementedError

    def handle_any(self) -> None:
        self.user = None
        body = self._read_body()
        self.route_name, parts = self.route()
        self.fault = self.state.faults.take(self.route_name, self.command, unquote(self.path))
        try:
            self._serve_with_fault(self.route_name, parts, body)
        except HubError as error:
            self.send(error.status, json.dumps({"error": str(error)}).encode(), error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _serve_with_fault(self, route: str, parts: list[str], body: bytes) -> None:
        fault = self.fault
        if fault is not None:
            time.sleep(fault.delay)
            if fault.until is not None:
                fault.until.wait(60)
            if fault.lose_request:
                self._record(None)
                return self._hang_up()
            if fault.status is not None:
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                raise HubError(HTTPStatus(fault.status), "made to fail by the test", **headers)
        self.serve(route, parts, body)

    def send(self, status: HTTPStatus, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Sends an answer, unless a fault loses, cuts or corrupts it."""
        fault = self.fault or Fault("any")
        if fault.lose_answer:
            self._record(None)
            return self._hang_up()
        self._record(status)
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return None
            if fault.corrupt and content and status < HTTPStatus.BAD_REQUEST:
                content = content[:-1] + bytes([content[-1] ^ 0xFF])
            if fault.cut_after is None:
                self.wfile.write(content)
                return None
            self.wfile.write(content[: fault.cut_after])
            self.wfile.flush()
            return self._hang_up()
        except (BrokenPipeError, ConnectionResetError):
            # The client did not wait, as in the tests of timeouts.
            self.close_connection = True
            return None

    def _record(self, status: HTTPStatus | None) -> None:
        """Before the answer, so that a client that has it finds its request in the log."""
        request = Request(
            self.command,
            self.route_name,
            unquote(self.path),
            0 if status is None else int(status),
            self.user.name if self.user else None,
            "Authorization" in self.headers,
            self.headers.get("Range"),
        )
        with self.state.lock:
            self.state.requests.append(request)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args) -> None:
        """Nothing on the console: tests read `HubState.requests`."""


class HubHandler(_Handler):
    """The Hub's origin: JSON routes, and files that are small or redirect to the storage."""

    def route(self) -> tuple[str, list[str]]:
        path = urlsplit(self.path).path
        for method, pattern, name, _ in API_ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return name, [unquote(part) for part in match.groups()]
        match = _RESOLVE.fullmatch(path) or _RESOLVE_CACHE.fullmatch(path)
        return ("resolve", [unquote(part) for part in match.groups()]) if match else ("any", [])

    def serve(self, route: str, parts: list[str], body: bytes) -> None:
        self.user = self.state.user_of(self.headers.get("Authorization"))
        address = urlsplit(self.path)
        if route == "resolve":
            return self._resolve(address.path.startswith("/api/resolve-cache/"), *parts)
        for method, pattern, _, function in API_ROUTES:
            if method == self.command and re.fullmatch(pattern, address.path):
                query = {name: values[-1] for name, values in parse_qs(address.query).items()}
                answer = function(Call(self.state, self.url, self.storage_url, self.user, query, body), *parts)
                answer = answer if isinstance(answer, Answer) else Answer(answer)
                headers = {"Content-Type": "application/json"} | dict(answer.headers)
                return self.send(answer.status, json.dumps(answer.json).encode(), headers)
        raise HubError(HTTPStatus.NOT_FOUND, f"The test Hub has no route {self.command} {address.path}")

    def _resolve(self, is_cached: bool, prefix: str, repo_id: str, revision: str, path: str) -> None:
        repo_type = prefix if is_cached else ("dataset" if prefix else "model")
        repo = self.state.readable(repo_type, repo_id, self.user)
        commit = self.state.commit_at(repo, revision)
        about = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        blob = commit.files.get(path)
        if blob is None:
            raise HubError(HTTPStatus.NOT_FOUND, f"{path} does not exist on {revision!r}", "EntryNotFound", **about)
        about |= {"ETag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.oid}"'}
        if blob.is_lfs:
            location = f"{self.storage_url}/download/{blob.sha256}?signature=test"
        elif is_cached:
            return _send_range(self, blob.content, about)
        else:
            location = f"/api/resolve-cache/{repo_type}s/{repo_id}/{commit.oid}/{path}"
        return self.send(HTTPStatus.TEMPORARY_REDIRECT, headers=about | {"Location": location})


class StorageHandler(_Handler):
    """Where large files are put and fetched with signed addresses; as S3, it refuses a token on top of the signature."""

    def route(self) -> tuple[str, list[str]]:
        match = re.fullmatch(r"/(upload|download)/([0-9a-f]{64})", urlsplit(self.path).path)
        if match is None:
            return "any", []
        return ("lfs_upload" if match[1] == "upload" else "storage"), [match[2]]

    def serve(self, route: str, parts: list[str], body: bytes) -> None:
        if "Authorization" in self.headers or not parts:
            raise HubError(HTTPStatus.BAD_REQUEST, "Only one auth mechanism allowed")
        (oid,) = parts
        if route == "storage":
            content = self.state.objects[oid]
            return _send_range(self, content, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})
        if self.fault is not None and self.fault.corrupt:
            body = body[:-1] + bytes([body[-1] ^ 0xFF])
        if hashlib.sha256(body).hexdigest() != oid:
            raise HubError(HTTPStatus.BAD_REQUEST, "XAmzContentSHA256Mismatch: the content is not what was announced")
        with self.state.lock:
            self.state.objects[oid] = body
        return self.send(HTTPStatus.OK, headers={"ETag": f'"{oid}"'})


def _send_range(handler: _Handler, content: bytes, headers: dict[str, str]) -> None:
    """Sends a file or the part of it that the client asks for."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", handler.headers.get("Range", ""))
    if match is None:
        return handler.send(HTTPStatus.OK, content, headers)
    first, last = match.groups()
    start = int(first) if first else max(len(content) - int(last), 0)
    stop = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= len(content):
        headers = headers | {"Content-Range": f"bytes */{len(content)}"}
        return handler.send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", headers)
    headers = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
    return handler.send(HTTPStatus.PARTIAL_CONTENT, content[start:stop], headers)
