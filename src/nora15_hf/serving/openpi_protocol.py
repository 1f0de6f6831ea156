# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""openpi's protocol over WebSockets, with what vllm-omni adds to it: request and reply in turn, metadata first."""

import asyncio
import hmac
import http
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
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
        self._exchanges: set[asyncio.Task] = set()
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

    async def close(self) -> None:
        """Lets replies be sent that are ready, and closes all connections with a reason."""
        if self._exchanges:
            await asyncio.wait(self._exchanges, timeout=CLOSE_SECONDS)
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
        """The life of a connection. When it is lost, its request is given up."""
        closed = asyncio.create_task(connection.wait_closed())
        previous_seconds = None
        try:
            await connection.send(self._hello)
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await connection.recv()
                began = time.perf_counter()
                exchange = asyncio.create_task(self._exchange(connection, message, previous_seconds))
                self._exchanges.add(exchange)
                exchange.add_done_callback(self._exchanges.discard)
                await asyncio.wait((exchange, closed), return_when=asyncio.FIRST_COMPLETED)
                if not exchange.done():
                    exchange.cancel()
                    return
                exchange.result()
                previous_seconds = time.perf_counter() - began
        except websockets.ConnectionClosed:
            pass
        except TimeoutError:
            await connection.close(CloseCode.GOING_AWAY, f"No request came within {IDLE_SECONDS:g} s.")
        finally:
            closed.cancel()
            self._service.sessions.forget(connection.id)

    async def _exchange(
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
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await connection.send(reply)
        except TimeoutError:
            # A farewell would not be read either.
            connection.transport.abort()

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
        requests = [
            request if request.noise_key else replace(request, noise_key=self._service.next_key(client, member))
            for request, member in zip(requests, members, strict=True)
        ]
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
