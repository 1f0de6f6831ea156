# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""GR00T's protocol over ZeroMQ: endpoints `ping`, `get_action`, `reset` and `get_modality_config`, arrays in both its dialects."""

import asyncio
import hmac
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zmq
import zmq.asyncio

from .message_codec import MAX_MESSAGE_BYTES, ArrayDialect, decode_message, encode_message
from .policy_service import PolicyService
from .robots import RobotKeys
from .served_policy import ServedPolicy
from .serving_error import ServingError, shown

logger = logging.getLogger(__name__)

LANGUAGE = "annotation.human.task_description"
MAX_EXCHANGES = 256
MAX_ROWS = 256
HEARTBEAT_MS = 20_000
LINGER_MS = 2_000


def own_robot_keys(policy: ServedPolicy) -> RobotKeys:
    """
    The keys of a robot that calls everything as the policy does, its whole action `action` and its whole state `state`.

    Raises:
        ValueError: The policy's repo does not name its cameras.
    """
    contract = policy.contract(policy.dataset_key)
    if not contract.cameras:
        raise ValueError(
            "The policy's repo does not name its cameras, which GR00T's clients use as keys of their images. Pass --robot, or complete "
            "processor.embodiments and save it again."
        )
    return RobotKeys(
        cameras={f"video/{name}": name for name in contract.cameras}, state=("state/state",), instruction="language"
    )


class GrootProtocol:
    """
    Serves a policy in GR00T's protocol. Clients are told apart by their sockets; each has a session.

    Args:
        service ([`PolicyService`]): Who answers, with a robot whose keys are `video/NAME`, `state/NAME` and `language`.
        host (`str`), port (`int`): Where to listen; port 0 is any free one.
        api_key (`str`, *optional*): Requests need it as `api_token`.

    Attributes:
        url (`str`): Where clients connect to.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, service: PolicyService, host: str, port: int, *, api_key: str | None = None):
        self._service = service
        self._api_key = None if api_key is None else api_key.encode()
        self._actions = dict(service.robot.actions) or {"action": (0, service.metadata["action_dim"])}
        self._context = zmq.asyncio.Context()
        # REQ clients speak to a ROUTER as to a REP, but it takes the next request before the last one is answered.
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.IPV6, ":" in host)
        try:
            self._socket.bind(f"tcp://{f'[{host}]' if ':' in host else host}:{port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise OSError(
                f"The server cannot listen on {host}:{port} ({error}). Choose another --port, or another --host."
            ) from error
        self.url = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._exchanges: set[asyncio.Task] = set()
        self._receiving: asyncio.Task | None = None

    async def start(self) -> None:
        """Begins to take requests."""
        self._receiving = asyncio.create_task(self._receive())

    async def close(self) -> None:
        """Sends the replies that are ready. The protocol has no closing message."""
        self._receiving.cancel()
        if self._exchanges:
            await asyncio.wait(self._exchanges)
        self._socket.close()
        # Waits until the replies have been taken, at most as long as the socket lingers.
        await asyncio.get_running_loop().run_in_executor(None, self._context.term)

    async def _receive(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            # Whoever sends something else is no REQ client and could not read a reply.
            if len(frames) != 3 or frames[1]:
                continue
            if len(self._exchanges) >= MAX_EXCHANGES:
                await self._send(
                    frames[0], {"error": "The server is busy. Ask again later."}, ArrayDialect.MSGPACK_NUMPY
                )
                continue
            exchange = asyncio.create_task(self._exchange(frames[0], frames[2]))
            self._exchanges.add(exchange)
            exchange.add_done_callback(self._exchanges.discard)

    async def _send(self, client: bytes, reply: Any, dialect: ArrayDialect) -> None:
        await self._socket.send_multipart([client, b"", encode_message(reply, dialect)])

    async def _exchange(self, client: bytes, message: bytes) -> None:
        """One request and its reply, whose arrays are written as those of the request."""
        dialects = {ArrayDialect.MSGPACK_NUMPY: None}
        try:
            request = decode_message(message, lambda dialect: dialects.__setitem__(dialect, None))
            reply = await self._reply(client, request)
        except ServingError as error:
            reply = {"error": str(error)}
        except Exception:
            logger.exception("A request failed, which is a fault of the server.")
            reply = {"error": "The server failed to answer; its log tells why."}
        await self._send(client, reply, list(dialects)[-1])

    async def _reply(self, client: bytes, request: Any) -> Any:
        if not isinstance(request, Mapping):
            raise ServingError(f"The message holds a {type(request).__name__}, expected a map with an endpoint.")
        if self._api_key is not None:
            token = request.get("api_token")
            if not hmac.compare_digest(token.encode() if isinstance(token, str) else b"", self._api_key):
                raise ServingError("Unauthorized: Invalid API token")
        endpoint = request.get("endpoint", "get_action")
        data = _map(request, "data")
        options = _map(data, "options")
        match endpoint if isinstance(endpoint, str) else None:
            case "ping":
                return {"status": "ok", "message": "Server is running"}
            case "get_modality_config":
                return self._modality_config()
            case "reset":
                self._service.begin_episode(client, options)
                return {}
            case "get_action":
                return await self._get_action(client, data.get("observation"), options)
        raise ServingError(
            f"'endpoint' is {shown(endpoint)}, expected 'ping', 'get_action', 'reset' or 'get_modality_config'."
        )

    def _modality_config(self) -> dict[str, Any]:
        robot = self._service.robot
        keys = {
            "video": [
                key.removeprefix("video/") for key in self._service.metadata["observation_keys"]["images"].values()
            ],
            "state": [key.removeprefix("state/") for key in robot.state],
            "action": list(self._actions),
            "language": [LANGUAGE],
        }
        return {
            modality: {
                # Clients of either dialect look for their own marker and leave the other alone.
                "__ModalityConfig_class__": True,
                "__ModalityConfig__": True,
                "as_json": {
                    "delta_indices": list(range(self._service.horizon)) if modality == "action" else [0],
                    "modality_keys": names,
                    "sin_cos_embedding_keys": None,
                    "mean_std_embedding_keys": None,
                    "action_configs": None,
                },
            }
            for modality, names in keys.items()
        }

    async def _get_action(self, client: bytes, observation: Any, options: Mapping[str, Any]) -> list[Any]:
        if not isinstance(observation, Mapping):
            raise ServingError("'observation' is missing or is not a map.")
        shared = {name: options[name] for name in ("dataset_key", "sampling_params") if name in options}
        requests = [self._service.read_request({**row, **shared}) for row in _rows(observation)]
        seed, prediction = self._service.next_key(client, options)
        for row, request in enumerate(requests):
            request.noise_key = (seed + row, prediction)
        chunks, timing = await self._service.chunks(client, requests)
        is_flat = not any(isinstance(value, Mapping) for value in observation.values())
        actions = {
            f"{'action.' if is_flat else ''}{name}": chunks[..., first:stop]
            for name, (first, stop) in self._actions.items()
        }
        return [actions, {"server_timing": timing}]


def _map(message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The map under a key; an empty one where there is nothing."""
    value = message.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ServingError(f"{key!r} is {shown(value)}, expected a map.")
    return value or {}


def _entries(observation: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Modality, name and value of everything in an observation, nested or in the flat form of the simulation's wrapper."""
    for key, value in observation.items():
        if isinstance(value, Mapping):
            yield from ((key, name, inside) for name, inside in value.items())
        else:
            modality, _, name = key.partition(".")
            yield (modality, name, value) if modality in ("video", "state") else ("language", key, value)


def _rows(observation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each row of a batched observation, with its images, states and instruction under the keys of [`RobotKeys`]."""
    columns: dict[str, list[Any]] = {}
    for modality, name, value in _entries(observation):
        key = "language" if modality == "language" else f"{modality}/{name}"
        if modality == "language":
            column = (
                [text[0] if isinstance(text, list) and text else text for text in value]
                if isinstance(value, list)
                else []
            )
        else:
            axes = 5 if modality == "video" else 3
            if not isinstance(value, np.ndarray) or value.ndim != axes or value.shape[1] != 1:
                found = f"shape {value.shape}" if isinstance(value, np.ndarray) else f"type {type(value).__name__}"
                raise ServingError(
                    f"{key!r} has {found}, expected an array (batch, 1, {'height, width, 3' if axes == 5 else 'dimensions'})."
                )
            column = list(value[:, 0])
        columns[key] = column
    lengths = {key: len(column) for key, column in columns.items()}
    if not lengths or len(set(lengths.values())) != 1 or not 1 <= next(iter(lengths.values())) <= MAX_ROWS:
        raise ServingError(
            f"'observation' has rows {lengths}; expected the same number, from 1 to {MAX_ROWS}, of each."
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


__all__ = ["GrootProtocol", "own_robot_keys"]
