# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy on a server, as the robot's or the benchmark's side calls it. Needs neither torch nor transformers."""

import contextlib
import itertools
import random
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import websockets
from websockets.sync.client import ClientConnection, connect

from ..simulation.environment import Observation
from .message_codec import MAX_MESSAGE_BYTES, decode_message, encode_message

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
# For the farewell to a server that may not answer.
CLOSE_SECONDS = 1.0


class PolicyServerError(RuntimeError):
    """The server refused a request, in its words, or is not the one that it was."""


class PolicyTimeoutError(TimeoutError):
    """The server did not answer in time."""


class PolicyClient:
    r"""
    A policy behind `nora15 serve`.

    A lost connection is opened again, with growing pauses, within the time of the call that needs it. The noise of a chunk is
    a function of the episode's seed and of the number of the prediction, which the client counts, so that an episode goes on
    as if nothing had happened, also with a server that was started again with the same policy; another one is refused. A reply that comes too late is never used, and after
    a call that failed neither is what was left of the last chunk.

    Args:
        url (`str`): `ws://host:port` or `wss://host:port`.
        api_key (`str`, *optional*): The server's.
        timeout (`float`, *optional*, defaults to 30): Seconds of a call, with all attempts to connect.
        n_action_steps (`int`, *optional*): Actions of a chunk that `select_action` returns before it asks again; default: all.
        seed (`int`, *optional*): Of the noise in every episode that is given none; default: another one for each.
        num_steps (`int`, *optional*): Solver steps; the server's default otherwise.
        dataset_key (`str`, *optional*): Whose units states and actions are in; the server's default otherwise.

    Attributes:
        metadata (`dict[str, Any]`): What the server tells about itself and the policy; see docs/serving.md.

    Raises:
        ConnectionError: Nobody listens there within `timeout`.
        PermissionError: The key is wrong or missing.
        ValueError: Somebody else than `nora15 serve` listens there, or `n_action_steps` is not between 1 and the chunk size.

    Example:

    ```python
    >>> with PolicyClient("ws://127.0.0.1:8000", n_action_steps=5) as client:
    ...     client.reset(seed=0)
    ...     action = client.select_action({"images": {"top": image}, "instruction": "open the faucet"})
    ```
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        n_action_steps: int | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        dataset_key: str | None = None,
    ):
        self.url, self.timeout, self.seed = url, timeout, seed
        self._headers = None if api_key is None else {"Authorization": f"Api-Key {api_key}"}
        self._options: dict[str, Any] = {} if dataset_key is None else {"dataset_key": dataset_key}
        if num_steps is not None:
            self._options["sampling_params"] = {"num_inference_steps": num_steps}
        self._connection: ClientConnection | None = None
        self._request_ids = itertools.count()
        self.metadata: dict[str, Any] = {}
        with self._within_time() as deadline:
            self._connect(deadline)
        horizon = self.metadata["action_horizon"]
        self.n_action_steps = horizon if n_action_steps is None else n_action_steps
        if not 1 <= self.n_action_steps <= horizon:
            self.close()
            raise ValueError(
                f"n_action_steps={n_action_steps} must lie between 1 and the server's chunk of {horizon}."
            )
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """
        Begins an episode: planned actions are dropped and the noise starts again. Nothing is sent.

        Args:
            seed (`int`, *optional*): Of this episode's noise; default: the constructor's.
        """
        seed = self.seed if seed is None else seed
        if seed is not None and seed < 0:
            raise ValueError(f"seed={seed} must not be negative.")
        self._episode_seed = secrets.randbits(63) if seed is None else seed
        self._predictions = 0
        self._planned: deque[np.ndarray] = deque()

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """
        The action of the present control step; the server is only asked when a chunk is due.

        Args:
            observation (`Mapping`): See `predict_chunk`.

        Returns:
            `np.ndarray` of shape `(A,)`, float32, physical units.
        """
        if not self._planned:
            self._planned.extend(self.predict_chunk(observation)[: self.n_action_steps])
        return self._planned.popleft()

    def predict_chunk(self, observation: Mapping[str, Any]) -> np.ndarray:
        """
        A whole chunk. What `select_action` has planned is dropped.

        Args:
            observation (`Mapping`):
                `"instruction"` (`str`) and `"image"` (of a single camera) or `"images"`, by the names of the policy's cameras:
                uint8 or float in [0, 1], `(height, width, 3)`; `"state"`, numbers `(S,)` in physical units, for a policy that
                needs it.

        Returns:
            `np.ndarray` of shape `(H, A)`, float32, physical units.

        Raises:
            PolicyServerError: The server refuses the observation, or has no finite actions.
            PolicyTimeoutError, ConnectionError: It does not answer in time, or is gone.
        """
        self._planned.clear()
        key = (self._episode_seed, self._predictions)
        self._predictions += 1
        images = observation["images"] if "images" in observation else {"image": observation["image"]}
        request = self._request(images, observation.get("state"), observation["instruction"], key)
        return self._ask(request)["actions"].copy()

    def predict_chunks(self, observations: Sequence[Observation], noise_keys: Sequence[tuple[int, ...]]) -> np.ndarray:
        """
        Chunks for several observations, which the server predicts together.

        Args:
            observations (`Sequence[Observation]`): With the policy's cameras, and others that are left out.
            noise_keys (`Sequence[tuple[int, ...]]`): One each, as `(episode seed, number of the prediction)`.

        Returns:
            `np.ndarray` of shape `(B, H, A)`, float32, physical units.

        Raises:
            PolicyServerError, PolicyTimeoutError, ConnectionError: As for `predict_chunk`.
        """
        batch = [
            self._request(observation.images, observation.state, observation.instruction, key)
            for observation, key in zip(observations, noise_keys, strict=True)
        ]
        return self._ask({"batch": batch})["actions"].copy()

    def __call__(self, observations: Sequence[Observation], noise_keys: Sequence[tuple[int, ...]]) -> np.ndarray:
        """`predict_chunks`: what closed-loop evaluation calls a policy."""
        return self.predict_chunks(observations, noise_keys)

    def close(self) -> None:
        """Closes the connection; the next call would open it again."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _request(
        self, images: Mapping[str, np.ndarray], state: np.ndarray | None, instruction: str, key: tuple[int, ...]
    ) -> dict[str, Any]:
        cameras = self.metadata["cameras"]
        # Of a policy's only camera the picture may have any name.
        if set(images) == {"image"} and len(cameras) == 1:
            images = dict.fromkeys(cameras, images["image"])
        if missing := cameras.keys() - images.keys():
            raise ValueError(
                f"The observation has the cameras {list(images)}; the policy also needs {sorted(missing)}, as it was trained on "
                f"{list(cameras)}."
            )
        request = {
            "images": {name: images[name] for name in cameras or images},
            "prompt": instruction,
            "noise_key": list(key),
        }
        if state is not None and self.metadata["needs_state"]:
            request["state"] = np.asarray(state)
        return request | self._options

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request, which is sent again when the connection is lost on the way."""
        request["request_id"] = next(self._request_ids)
        message = encode_message(request)
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"The request has {len(message)} bytes; a server takes at most {MAX_MESSAGE_BYTES}. Send fewer observations at "
                "once, or smaller images."
            )
        pauses = _pauses()
        with self._within_time() as deadline:
            while True:
                connection = self._connect(deadline)
                try:
                    connection.send(message)
                    reply = connection.recv(timeout=max(deadline - time.monotonic(), 0.0))
                    break
                except websockets.ConnectionClosed as error:
                    self.close()
                    self._pause(next(pauses), deadline, error)
        if isinstance(reply, str):
            raise PolicyServerError(reply)
        reply = decode_message(reply)
        if reply.get("request_id") != request["request_id"]:
            self.close()
            raise PolicyServerError("The server answered a different request from the one that was sent.")
        return reply

    @contextlib.contextmanager
    def _within_time(self) -> Iterator[float]:
        """Until when a call may take. Whatever interrupts it ends the connection, on which a late reply could still come."""
        try:
            yield time.monotonic() + self.timeout
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise PolicyTimeoutError(f"{self.url} did not answer within {self.timeout:g} s.") from error
            raise

    def _connect(self, deadline: float) -> ClientConnection:
        """The connection, which is opened if there is none."""
        pauses = _pauses()
        while self._connection is None:
            try:
                self._open(deadline)
            except websockets.InvalidStatus as error:
                if error.response.status_code == 401:
                    raise PermissionError(f"{self.url} requires an api_key, or another one.") from error
                self._pause(next(pauses), deadline, error)
            except (OSError, websockets.InvalidHandshake, websockets.ConnectionClosed) as error:
                self._pause(next(pauses), deadline, error)
        return self._connection

    def _open(self, deadline: float) -> None:
        seconds = max(deadline - time.monotonic(), 0.001)
        connection = connect(
            self.url,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            additional_headers=self._headers,
            open_timeout=seconds,
            close_timeout=CLOSE_SECONDS,
        )
        try:
            metadata = decode_message(connection.recv(timeout=seconds))
            if not isinstance(metadata, dict) or metadata.get("server") != "nora15_hf":
                raise ValueError(f"{self.url} is not served by `nora15 serve`.")
            changed = [key for key in self.metadata | metadata if self.metadata.get(key) != metadata.get(key)]
            if self.metadata and changed:
                raise PolicyServerError(
                    f"{self.url} was started again with another policy or other options: {', '.join(changed)} differ. Make a "
                    "new PolicyClient to go on with it."
                )
        except BaseException:
            connection.close()
            raise
        self._connection, self.metadata = connection, metadata

    def _pause(self, seconds: float, deadline: float, error: Exception) -> None:
        # Not all clients of a server that comes back at the same moment.
        seconds *= random.uniform(0.5, 1.0)
        if time.monotonic() + seconds >= deadline:
            raise ConnectionError(f"{self.url} cannot be reached within {self.timeout:g} s: {error}") from error
        time.sleep(seconds)


def _pauses() -> Iterator[float]:
    """Seconds before each further attempt to connect."""
    seconds = FIRST_BACKOFF_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, MAX_BACKOFF_SECONDS)


__all__ = ["PolicyClient", "PolicyServerError", "PolicyTimeoutError"]
