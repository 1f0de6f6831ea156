# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""openpi's protocol over WebSockets, with what vllm-omni adds to it: request and reply in turn, metadata first."""

import asyncio
import contextlib
import hmac
import http
import logging
import math
import socket
import time
from collections.abc import Mapping
from typing import Any

import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from .message_codec import MAX_MESSAGE_BYTES, decode_message, encode_message
from .policy_service import PolicyService
from .serving_error import ServingError, ShuttingDownError, shown

logger = logging.getLogger(__name__)
# Tracebacks of every connection that ends before its handshake tell nothing that the client is not told.
connection_logger = logging.getLogger(f"{__name__}.connections")
connection_logger.setLevel(logging.CRITICAL)

HEALTH_PATH = "/healthz"
ENDPOINTS = ("infer", "reset", "metadata")
MAX_CLIENTS = 64
MAX_REQUESTS_PER_MESSAGE = 256
# A client that asks nothing for so long, or does not take its reply, is disconnected. One that is gone is noticed by pings.
IDLE_SECONDS = 1_800.0
SEND_SECONDS = 30.0
CLOSE_SECONDS = 5.0


class OpenPIProtocol:
    """
    Serves a policy in openpi's protocol.

    Args:
        service ([`PolicyService`]): Who answers.
        listener (`socket.socket`): Bound and listening; [`~OpenPIProtocol.close`] closes it.
        api_key (`str`, *optional*): Without the header `Authorization: Api-Key KEY` (or `Bearer KEY`) a client gets 401.

    Attributes:
        url (`str`): Where clients connect to.
    """

    def __init__(
        self,
        service: PolicyService,
        listener: socket.socket,
        *,
        api_key: str | None = None,
    ):
        host, port = listener.getsockname()[:2]
        self.url = f"ws://{f'[{host}]' if ':' in host else host}:{port}"
        self._service, self._listener = service, listener
        self._credentials = (
            None if api_key is None else [f"{scheme} {api_key}".encode() for scheme in ("Api-Key", "Bearer")]
        )
        self._hello = encode_message({"protocol": "openpi", **service.metadata})
        # Whose requests are being answered, and until when every client may take for what it has to do.
        self._answering: set[ServerConnection] = set()
        self._none_answering = asyncio.Event()
        self._none_answering.set()
        self._deadlines: dict[ServerConnection, float] = {}
        self._watching: asyncio.Task | None = None
        self._server: Server | None = None

    async def start(self) -> None:
        """Begins to accept connections."""
        self._server = await serve(
            self._handle,
            sock=self._listener,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            # Requests come one at a time: what a client sends on top stays in its own network buffers.
            max_queue=1,
            process_request=self._process_request,
            logger=connection_logger,
        )
        self._watching = asyncio.create_task(self._disconnect_the_slow())

    async def close(self) -> None:
        """Lets replies be sent that are ready, and closes all connections with a reason."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._none_answering.wait()
        self._watching.cancel()
        self._server.close(code=CloseCode.GOING_AWAY, reason=str(ShuttingDownError()))
        await self._server.wait_closed()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == HEALTH_PATH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._credentials is not None:
            given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            if not any(hmac.compare_digest(given, expected) for expected in self._credentials):
                return connection.respond(
                    http.HTTPStatus.UNAUTHORIZED,
                    "Send the header 'Authorization: Api-Key KEY' with the server's key.\n",
                )
        if len(self._server.connections) >= MAX_CLIENTS:
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_CLIENTS} clients are connected, which are all that may be.\n",
            )
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        """The life of a connection. Whether it takes too long is watched for all of them by one task."""
        closed = asyncio.create_task(connection.wait_closed())
        closed.add_done_callback(lambda closed: self._service.forget(connection.id))
        previous_seconds = None
        try:
            await self._send(connection, self._hello)
            while True:
                self._deadlines[connection] = time.monotonic() + IDLE_SECONDS
                message = await connection.recv()
                began = time.perf_counter()
                self._deadlines[connection] = math.inf
                self._answering.add(connection)
                self._none_answering.clear()
                try:
                    await self._answer(connection, message, previous_seconds)
                finally:
                    self._answering.discard(connection)
                    if not self._answering:
                        self._none_answering.set()
                previous_seconds = time.perf_counter() - began
        except websockets.ConnectionClosed:
            pass
        finally:
            del self._deadlines[connection]

    async def _disconnect_the_slow(self) -> None:
        closing: set[asyncio.Task] = set()
        while True:
            await asyncio.sleep(min(IDLE_SECONDS, SEND_SECONDS) / 2)
            now = time.monotonic()
            for connection in [each for each, deadline in self._deadlines.items() if deadline < now]:
                self._deadlines[connection] = math.inf
                if connection in self._answering:
                    # A farewell would not be read either.
                    connection.transport.abort()
                    continue
                task = asyncio.create_task(
                    connection.close(CloseCode.GOING_AWAY, f"No request came within {IDLE_SECONDS:g} s.")
                )
                closing.add(task)
                task.add_done_callback(closing.discard)

    async def _answer(
        self, connection: ServerConnection, message: str | bytes, previous_seconds: float | None
    ) -> None:
        """One request and its reply; an error is a text, after which the client may go on."""
        try:
            reply: str | bytes = encode_message(await self._reply(connection.id, message, previous_seconds))
        except ShuttingDownError:
            return
        except ServingError as error:
            reply = str(error)
        except Exception:
            logger.exception("A request failed, which is a fault of the server.")
            reply = "The server failed to answer; its log tells why."
        await self._send(connection, reply)

    async def _send(self, connection: ServerConnection, reply: str | bytes) -> None:
        self._deadlines[connection] = time.monotonic() + SEND_SECONDS
        await connection.send(reply)

    async def _reply(self, client: object, message: str | bytes, previous_seconds: float | None) -> dict[str, Any]:
        if isinstance(message, str):
            raise ServingError("The message is text, expected a binary message with a msgpack map.")
        request = decode_message(message)
        if not isinstance(request, Mapping):
            raise ServingError(f"The message holds a {type(request).__name__}, expected a map with an observation.")
        echo = {"request_id": _read_request_id(request)} if "request_id" in request else {}
        endpoint = request.get("endpoint", "infer")
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise ServingError(f"'endpoint' is {shown(endpoint)}, expected {', '.join(map(repr, ENDPOINTS))}.")
        if endpoint == "reset":
            self._service.begin_episode(client, request)
            return {"status": "reset successful", **echo}
        if endpoint == "metadata":
            return {**self._service.metadata, **echo}
        began = time.perf_counter()
        members = _members(request)
        requests = []
        for number, member in enumerate(members):
            try:
                requests.append(self._service.read_request(member))
            except ServingError as error:
                raise ServingError(f"{f'batch[{number}]: ' if 'batch' in request else ''}{error}") from error
        for read, member in zip(requests, members, strict=True):
            read.noise_key = read.noise_key or self._service.next_key(client, member)
        chunks, timing = await self._service.chunks(client, requests)
        server_timing = {**timing, "infer_ms": 1e3 * (time.perf_counter() - began)}
        if previous_seconds is not None:
            server_timing["prev_total_ms"] = 1e3 * previous_seconds
        return {
            "actions": chunks if "batch" in request else chunks[0],
            "policy_timing": {"infer_ms": timing["infer_ms"]},
            "server_timing": server_timing,
            **echo,
        }


def _members(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The requests of a message: itself, or those of its `batch`."""
    if "batch" not in request:
        return [request]
    batch = request["batch"]
    if (
        not isinstance(batch, list)
        or not 1 <= len(batch) <= MAX_REQUESTS_PER_MESSAGE
        or not all(isinstance(member, Mapping) for member in batch)
    ):
        raise ServingError(f"'batch' must be a list of 1 to {MAX_REQUESTS_PER_MESSAGE} maps, one per observation.")
    return batch


def _read_request_id(request: Mapping[str, Any]) -> str | int:
    value = request["request_id"]
    if type(value) not in (str, int) or len(str(value)) > 64:
        raise ServingError("'request_id' must be a number or a text of at most 64 characters.")
    return value


__all__ = ["HEALTH_PATH", "OpenPIProtocol"]
