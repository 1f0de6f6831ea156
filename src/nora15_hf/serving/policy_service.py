# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What is the same in all protocols: requests are read, wait for their batch and are answered, session by session."""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..actions.keyed_noise import NoiseKey
from .observation_reader import ObservationReader
from .request_queue import RequestQueue
from .robots import RobotKeys
from .served_policy import ChunkRequest, ServedPolicy
from .serving_error import ServingError, shown
from .sessions import Session, SessionTable

SERVER_NAME = "nora15_hf"
MAX_SOLVER_STEPS = 100
MAX_NAME_LENGTH = 256
MAX_KEY_LENGTH = 8
MAX_SEED = 2**64 - 1


class PolicyService:
    """
    A policy with its line of requests and the sessions of its clients.

    Args:
        policy ([`ServedPolicy`]): Who answers.
        call (`Callable`): See [`RequestQueue`].
        robot ([`RobotKeys`], *optional*): How robots call what they send; the policy's own names by default.
        default_prompt (`str`, *optional*): Instruction of observations without one.
        max_batch (`int`), max_waiting (`int`): See [`RequestQueue`].

    Raises:
        ValueError: The robot does not fit the policy.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        call: Callable[..., asyncio.Future],
        *,
        robot: RobotKeys | None = None,
        default_prompt: str | None = None,
        max_batch: int = 16,
        max_waiting: int = 256,
    ):
        self.policy = policy
        self.queue = RequestQueue(policy.predict, call=call, max_batch=max_batch, max_waiting=max_waiting)
        self.sessions = SessionTable(policy.new_seed)
        self._robot, self._default_prompt = robot, default_prompt
        self._readers: dict[str, ObservationReader] = {}
        reader = self.reader(policy.dataset_key)
        self.robot = reader.robot
        contract = reader.contract
        self.horizon = self.robot.horizon or contract.chunk_size
        deltas = set(contract.delta_actions or ())
        self.metadata: dict[str, Any] = {
            **policy.metadata,
            "server": SERVER_NAME,
            "action_horizon": self.horizon,
            "max_action_horizon": self.horizon,
            "action_names": None if contract.action_names is None else list(contract.action_names),
            "action_keys": list(contract.action_names or ()),
            "action_space": "unknown"
            if not deltas
            else "mixed"
            if len(deltas) == 2
            else "delta"
            if True in deltas
            else "absolute",
            "delta_actions": None if contract.delta_actions is None else list(contract.delta_actions),
            "gripper": contract.gripper,
            "cameras": contract.to_dict().get("cameras", {}),
            "image_size": contract.image_size,
            "state_dim": contract.state_dim if policy.needs_state else None,
            "state_names": None if contract.state_names is None else list(contract.state_names),
            "control_rate": contract.control_rate,
            "observation_keys": {
                "images": reader.picture_keys,
                "state": list(self.robot.state),
                "prompt": self.robot.instruction,
            },
        }

    def reader(self, dataset_key: str) -> ObservationReader:
        """Who reads the observations for one of the policy's datasets."""
        if dataset_key not in self._readers:
            self._readers[dataset_key] = ObservationReader(
                self.policy.contract(dataset_key),
                needs_state=self.policy.needs_state,
                robot=self._robot,
                default_prompt=self._default_prompt,
            )
        return self._readers[dataset_key]

    def begin_episode(self, client: Hashable, message: Mapping[str, Any]) -> None:
        """Begins an episode of the message's session, with its `seed` if it has one."""
        seed = _read_seed(message)
        self._session(client, message).begin(seed)

    def read_request(self, message: Mapping[str, Any]) -> ChunkRequest:
        """
        A request for a chunk. Its noise key is the message's own, or empty: then it needs [`~PolicyService.next_key`], which is
        drawn when all of a client's requests have been read, since a session counts nothing else.

        Args:
            message (`Mapping`):
                The observation, and any of `noise_key`, `seed`, `session_id`, `dataset_key` and `sampling_params` with
                `num_inference_steps`.

        Raises:
            ServingError: One of these is not what it should be; the key is named.
        """
        key = message.get("dataset_key")
        if key is not None and (not isinstance(key, str) or key not in self.policy.dataset_keys):
            raise ServingError(f"'dataset_key' is {shown(key)}; the policy has {', '.join(self.policy.dataset_keys)}.")
        try:
            reader = self.reader(key or self.policy.dataset_key)
        except ValueError as error:
            raise ServingError(f"'dataset_key' {key!r} does not fit this server's robot: {error}") from error
        num_steps = _read_num_steps(message)
        noise_key = _read_noise_key(message)
        _read_seed(message)
        _read_session_id(message)
        observation = reader.read({name: value for name, value in message.items() if name not in CONTROL_KEYS})
        return ChunkRequest(observation, noise_key, num_steps, key)

    def next_key(self, client: Hashable, message: Mapping[str, Any]) -> NoiseKey:
        """The next noise key of the message's session. A `seed` that is not the episode's begins an episode."""
        seed, session = _read_seed(message), self._session(client, message)
        if seed is not None and seed != session.seed:
            session.begin(seed)
        return session.next_key()

    def forget(self, client: Hashable) -> None:
        """Gives up what a client waits for that has gone, and forgets its session."""
        self.queue.forget(client)
        self.sessions.forget(client)

    def _session(self, client: Hashable, message: Mapping[str, Any]) -> Session:
        """That of the message's `session_id`, otherwise its client's."""
        return self.sessions.get(_read_session_id(message) or client)

    async def chunks(self, client: Hashable, requests: Sequence[ChunkRequest]) -> tuple[np.ndarray, dict[str, float]]:
        """
        The chunks of a client's requests.

        Returns:
            `tuple[np.ndarray, dict[str, float]]`: float32 `(requests, H, A)` in physical units, H as many as the robot takes, and
            what it took: `infer_ms`, `queue_ms` and `batch_size`, of the slowest.

        Raises:
            ServingError: See [`RequestQueue.submit`].
        """
        answers = await self.queue.submit(client, requests)
        timing = {
            "infer_ms": 1e3 * max(answer.infer_seconds for answer in answers),
            "queue_ms": 1e3 * max(answer.queue_seconds for answer in answers),
            "batch_size": max(answer.batch_size for answer in answers),
        }
        return np.stack([answer.chunk[: self.horizon] for answer in answers]), timing


CONTROL_KEYS = {
    "endpoint", "session_id", "seed", "noise_key", "dataset_key", "sampling_params", "request_id", "batch"
}  # fmt: skip
"""Keys of a message that are not part of the observation."""


def _read_seed(message: Mapping[str, Any]) -> int | None:
    """The `seed` of a message, if it has one."""
    seed = message.get("seed")
    if seed is not None and not _is_whole(seed, 0, MAX_SEED):
        raise ServingError(f"'seed' is {shown(seed)}, expected an integer from 0 to 2**64 - 1.")
    return seed


def _read_session_id(message: Mapping[str, Any]) -> str | None:
    name = message.get("session_id")
    if name is not None and (not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_LENGTH):
        raise ServingError(f"'session_id' must be a text of 1 to {MAX_NAME_LENGTH} characters.")
    return name


def _read_noise_key(message: Mapping[str, Any]) -> NoiseKey:
    key = message.get("noise_key")
    if key is None:
        return ()
    if (
        not isinstance(key, list)
        or not 1 <= len(key) <= MAX_KEY_LENGTH
        or not all(_is_whole(each, 0, MAX_SEED) for each in key)
    ):
        raise ServingError(
            f"'noise_key' is {shown(key)}, expected a list of 1 to {MAX_KEY_LENGTH} integers from 0 on, for example "
            "[seed, number of the prediction]."
        )
    return tuple(key)


def _read_num_steps(message: Mapping[str, Any]) -> int | None:
    parameters = message.get("sampling_params")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ServingError(f"'sampling_params' is a {type(parameters).__name__}, expected a map.")
    steps = (parameters or {}).get("num_inference_steps")
    if steps is not None and not _is_whole(steps, 1, MAX_SOLVER_STEPS):
        raise ServingError(
            f"'num_inference_steps' in 'sampling_params' is {shown(steps)}, expected an integer from 1 to "
            f"{MAX_SOLVER_STEPS}."
        )
    return steps


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


__all__ = ["PolicyService"]
