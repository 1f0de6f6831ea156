# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The protocol of `nora15 serve` without a policy: each action is a number that its request determines."""

import threading

import msgpack
import numpy as np
from websockets.sync.server import ServerConnection, serve

from lerobot_policy_nora15.server_connection import _pack_array, _unpack

CHUNK_SIZE, ACTION_DIM, STATE_DIM = 5, 4, 3


class WireServer:
    """
    Answers every request on loopback with chunks whose numbers are `1000 * (noise seed % 1000) + 10 * prediction + step`.

    Attributes:
        metadata (`dict`): What it says first; change it before a client connects.
        requests (`list[dict]`): The rows that it was asked for.
        token (`str`, *optional*): What clients must send.
        drop_next (`bool`): Close the connection instead of answering, once.
        refusal (`str`, *optional*): Answer this instead of actions.
        answers (`Callable`, *optional*): Applied to the chunks.
    """

    def __init__(self):
        self.metadata = {
            "action_horizon": CHUNK_SIZE,
            "action_dim": ACTION_DIM,
            "action_names": ["x", "y", "z", "gripper"],
            "state_dim": None,
            "observation_keys": {
                "images": {"top": "images/top", "wrist": "images/wrist"},
                "state": ["state"],
                "prompt": "prompt",
            },
        }
        self.requests = []
        self.token = None
        self.drop_next = False
        self.refusal = None
        self.answers = lambda chunks: chunks

    def __enter__(self):
        self._server = serve(self._handle, "127.0.0.1", 0, compression=None, process_request=self._check_token)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()

    def _check_token(self, connection: ServerConnection, request):
        if self.token is not None and request.headers.get("Authorization") != f"Api-Key {self.token}":
            return connection.respond(401, "")

    def _handle(self, connection: ServerConnection) -> None:
        connection.send(msgpack.packb(self.metadata))
        for frame in connection:
            rows = _unpack(frame)["batch"]
            if self.drop_next:
                self.drop_next = False
                return
            self.requests += rows
            if self.refusal is not None:
                connection.send(self.refusal)
                continue
            chunks = np.stack([self._chunk(*row["noise_key"]) for row in rows])
            connection.send(msgpack.packb({"actions": self.answers(chunks)}, default=_pack_array))

    def _chunk(self, noise_seed: int, prediction: int) -> np.ndarray:
        steps = 1000 * (noise_seed % 1000) + 10 * prediction + np.arange(self.metadata["action_horizon"])
        return np.repeat(steps[:, None], self.metadata["action_dim"], axis=1).astype(np.float32)


__all__ = ["ACTION_DIM", "CHUNK_SIZE", "STATE_DIM", "WireServer"]
