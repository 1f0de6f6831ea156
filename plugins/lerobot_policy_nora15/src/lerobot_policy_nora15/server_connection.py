# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A connection to `nora15 serve`: openpi's WebSocket protocol, one msgpack frame for a request and one for its reply."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

logger = logging.getLogger(__name__)

# Seconds between two attempts to connect: doubled each time, up to the second number.
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
# Actions are small: 1,000 chunks of 50 steps with 32 dimensions are 6.4 MB.
LARGEST_REPLY = 16 * 2**20

Answer = TypeVar("Answer")


class PolicyServerError(RuntimeError):
    """The server refused a request; the message is the server's."""


class ServerConnection:
    """
    Asks the server, and connects again when the connection is lost.

    Args:
        url (`str`): For example `"ws://127.0.0.1:8000"`.
        api_key (`str`, *optional*): The server's token.
        timeout (`float`): Seconds for one request, with all attempts to connect.

    Attributes:
        metadata (`dict`): What the server says of its policy, see `docs/serving.md` of nora15_hf.

    Raises:
        ConnectionError: There is no server, or it went away and did not come back in time.
        PermissionError: The server wants another token.
        TimeoutError: The server did not answer in time.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 30.0):
        self.url = url
        self.timeout = timeout
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._socket: ClientConnection | None = None
        self._opened = ExitStack()
        self.metadata: dict[str, Any] = {}
        self._until_answered(lambda deadline: None)

    def request(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """
        Sends a message and waits for its reply.

        A request that was lost with its connection is sent again. That is safe, since it names its own noise: the server
        gives the same answer.

        Args:
            message (`Mapping`): Plain values and NumPy arrays.

        Raises:
            PolicyServerError: The server refused it. The connection can still be used.
        """
        frame = msgpack.packb(message, default=_pack_array)

        def ask(deadline: float) -> str | bytes:
            self._socket.send(frame)
            return self._socket.recv(timeout=max(deadline - time.monotonic(), 0))

        reply = self._until_answered(ask)
        if isinstance(reply, str):
            raise PolicyServerError(f"{self.url} refused the request: {reply}")
        return _unpack(reply)

    def close(self) -> None:
        """Ends the connection; the next request opens another one."""
        self._opened.close()
        self._socket = None

    def _until_answered(self, ask: Callable[[float], Answer]) -> Answer:
        """`ask` on a connection, again on a new one if it is lost, until the time is over."""
        deadline = time.monotonic() + self.timeout
        wait = FIRST_WAIT
        while True:
            try:
                if self._socket is None:
                    self._open(deadline)
                return ask(deadline)
            except TimeoutError as error:
                # A reply that comes too late must not be taken for the next request's.
                self.close()
                raise TimeoutError(
                    f"{self.url} did not answer within {self.timeout:g} s. Is the policy being compiled, or too large for "
                    "its device? Allow more time with --policy.timeout."
                ) from error
            except InvalidStatus as error:
                raise self._status_error(error) from error
            except (OSError, ConnectionClosed, InvalidMessage) as error:
                self.close()
                if time.monotonic() + wait >= deadline:
                    raise ConnectionError(
                        f"No connection to {self.url} within {self.timeout:g} s ({error}). Start `nora15 serve POLICY` there, "
                        "or name another address with --policy.url."
                    ) from error
                if wait == FIRST_WAIT:
                    logger.warning("No connection to %s (%s); trying again.", self.url, error)
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            except InvalidHandshake as error:
                raise ConnectionError(f"{self.url} is no policy server: {error}") from error

    def _open(self, deadline: float) -> None:
        connection = connect(
            self.url,
            additional_headers=self._headers,
            compression=None,
            max_size=LARGEST_REPLY,
            open_timeout=max(deadline - time.monotonic(), 0),
        )
        self._socket = self._opened.enter_context(connection)
        # The server speaks first.
        metadata = _unpack(self._socket.recv(timeout=max(deadline - time.monotonic(), 0)))
        if self.metadata and metadata != self.metadata:
            self.close()
            raise PolicyServerError(
                f"{self.url} was started again with another policy or other options. What was planned does not belong to it: "
                "start this command again, too."
            )
        self.metadata = metadata

    def _status_error(self, error: InvalidStatus) -> OSError:
        status = error.response.status_code
        if status == 401:
            return PermissionError(
                f"{self.url} wants {'another' if self._headers else 'a'} token (HTTP 401): put it into a file and name it with "
                "--policy.api_key_file."
            )
        return ConnectionError(f"{self.url} answered HTTP {status} instead of opening a connection.")


def _pack_array(value: Any) -> dict[bytes, Any]:
    """What msgpack cannot pack by itself, in openpi's form."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"A request holds a {type(value).__name__}, which cannot be sent.")
    return {
        b"__ndarray__": True,
        b"data": value.tobytes(),
        b"dtype": value.dtype.str,
        b"shape": value.shape,
    }


def _unpack(frame: bytes) -> dict[str, Any]:
    return msgpack.unpackb(frame, object_hook=_unpack_array, strict_map_key=False)


def _unpack_array(content: dict[Any, Any]) -> Any:
    # frombuffer refuses dtypes that hold Python objects, and reshape a shape of another size.
    if b"__ndarray__" in content:
        return np.frombuffer(content[b"data"], np.dtype(content[b"dtype"])).reshape(content[b"shape"])
    return content


__all__ = ["PolicyServerError", "ServerConnection"]
