# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""GR00T's protocol as its REQ clients speak it, in both dialects of arrays."""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor

import msgpack
import numpy as np
import pytest
import zmq

from helpers.recording_policy import A, H
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.serving.robots import load_robot
from nora15_hf.serving.server import PolicyServer


def npy(array: np.ndarray) -> dict:
    """As GR00T N1.5 to N1.7 write an array."""
    file = io.BytesIO()
    np.save(file, array)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def msgpack_numpy(array: np.ndarray) -> dict:
    """As msgpack-numpy writes it."""
    return {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape, b"data": array.tobytes()}


def restored(value: dict) -> object:
    if "as_npy" in value:
        return ("npy", np.load(io.BytesIO(value["as_npy"])))
    if b"nd" in value:
        return ("msgpack_numpy", np.frombuffer(value[b"data"], value[b"type"]).reshape(value[b"shape"]))
    return value


DIALECTS = {"npy": npy, "msgpack_numpy": msgpack_numpy}


@pytest.fixture
def server(policy):
    with PolicyServer(policy, protocol="gr00t", port=0) as server:
        yield server
        policy.go.set()


@contextlib.contextmanager
def client(server: PolicyServer):
    with zmq.Context() as context, context.socket(zmq.REQ) as connection:
        connection.setsockopt(zmq.RCVTIMEO, 30_000)
        connection.setsockopt(zmq.LINGER, 0)
        connection.connect(server.url)
        yield connection


def asked(connection: zmq.Socket, request: object, write=msgpack_numpy):
    connection.send(request if isinstance(request, bytes) else msgpack.packb(request, default=write))
    return msgpack.unpackb(connection.recv(), object_hook=restored)


def observation(rows: int = 1) -> dict:
    pictures = np.zeros((rows, 1, 8, 8, 3), dtype=np.uint8) + np.arange(rows, dtype=np.uint8).reshape(-1, 1, 1, 1, 1)
    return {
        "video": {"top": pictures, "wrist": pictures},
        "state": {"state": np.zeros((rows, 1, 2), dtype=np.float32)},
        "language": {"annotation.human.task_description": [["push"]] * rows},
    }


def get_action(rows: int = 1, **options) -> dict:
    return {"endpoint": "get_action", "data": {"observation": observation(rows), "options": options or None}}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_endpoint(server, dialect):
    with client(server) as connection:
        write = DIALECTS[dialect]
        assert asked(connection, {"endpoint": "ping"}) == {"status": "ok", "message": "Server is running"}
        config = asked(connection, {"endpoint": "get_modality_config"})
        assert config["video"]["as_json"]["modality_keys"] == ["top", "wrist"]
        assert config["state"]["as_json"] == {
            "delta_indices": [0], "modality_keys": ["state"], "sin_cos_embedding_keys": None,
            "mean_std_embedding_keys": None, "action_configs": None,
        }  # fmt: skip
        assert config["action"]["as_json"]["delta_indices"] == list(range(H))
        assert all(each["__ModalityConfig__"] and each["__ModalityConfig_class__"] for each in config.values())
        assert asked(connection, {"endpoint": "reset", "data": {"options": {"seed": 7}}}) == {}
        for prediction in range(2):
            action, info = asked(connection, get_action(), write)
            found, array = action["action"]
            assert (found, array.shape, array.dtype) == (dialect, (1, H, A), np.float32)
            assert array[0, 0].tolist() == [7, prediction, 0]
            assert "infer_ms" in info["server_timing"]


def test_rows_are_a_batch_with_seeds_of_their_own(server, policy):
    with client(server) as connection:
        asked(connection, {"endpoint": "reset", "data": {"options": {"seed": 7}}})
        for prediction in range(2):
            action, _ = asked(connection, get_action(rows=3))
            assert action["action"][1][:, 0].tolist() == [[7, prediction, 0], [8, prediction, 1], [9, prediction, 2]]
    assert policy.batches == [3, 3]


def test_the_flat_form_and_a_robot_with_parts(policy):
    policy.contract = lambda key: Embodiment(
        cameras={"a": Camera(role="external"), "b": Camera(role="wrist")}, action_dim=6, chunk_size=2
    )
    policy.metadata["action_dim"] = 6
    policy.chunk = lambda request: np.arange(12, dtype=np.float32).reshape(2, 6)
    with (
        PolicyServer(policy, protocol="gr00t", port=0, robot=load_robot("so101", "gr00t")) as server,
        client(server) as connection,
    ):
        flat = {
            "video.front": np.zeros((1, 1, 8, 8, 3), dtype=np.uint8),
            "video.wrist": np.zeros((1, 1, 8, 8, 3), dtype=np.uint8),
            "state.single_arm": np.arange(5, dtype=np.float32).reshape(1, 1, 5),
            "state.gripper": np.full((1, 1, 1), 9, dtype=np.float32),
            "task": ["push"],
        }
        action, _ = asked(connection, {"endpoint": "get_action", "data": {"observation": flat}})
        assert action["action.single_arm"][1].tolist() == [[[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]]
        assert action["action.gripper"][1].tolist() == [[[5], [11]]]
        assert policy.requests[0].observation.state.tolist() == [0, 1, 2, 3, 4, 9]
        assert policy.requests[0].observation.instruction == "push"


def test_clients_are_answered_together(server, policy):
    policy.go.clear()
    with ThreadPoolExecutor(3) as pool, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client(server)) for _ in range(3)]
        replies = [pool.submit(asked, connections[0], get_action())]
        assert policy.entered.acquire(timeout=30)
        replies += [pool.submit(asked, connection, get_action()) for connection in connections[1:]]
        with client(server) as other:
            while server.service.queue.num_waiting < 2:
                asked(other, {"endpoint": "ping"})
        policy.go.set()
        for reply in replies:
            reply.result()
    assert policy.batches == [1, 2]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"\xc1", "not valid msgpack"),
        (msgpack.packb([1]), "expected a map with an endpoint"),
        ({"endpoint": "kill"}, "'endpoint' is 'kill', expected 'ping'"),
        ({"endpoint": "get_action"}, "'observation' is missing"),
        ({"endpoint": "get_action", "data": [1]}, "'data' is a list, expected a map"),
        ({"endpoint": "get_action", "data": np.zeros(2)}, "'data' is a ndarray, expected a map"),
        ({"endpoint": "reset", "data": {"options": np.zeros(2)}}, "'options' is a ndarray, expected a map"),
        ({"data": {"observation": {}}}, "'observation' has rows {}"),
        ({"data": {"observation": {"video": {"top": np.zeros((8, 8, 3))}}}}, "'video/top' has shape (8, 8, 3), expected an array"),
        ({"data": {"observation": observation() | {"state": {"state": np.zeros((2, 1, 2))}}}}, "has rows {'video/top': 1"),
        ({"data": {"observation": observation() | {"state": {}}}}, "'state/state' is missing"),
        ({"data": {"observation": observation() | {"language": {}}}}, "'language' is missing"),
        (get_action(seed="x"), "'seed' is 'x'"),
        ({"endpoint": "get_action", "data": {"observation": {"video": {"x": {"__ndarray_class__": True, "as_npy": b""}}}}},
         "data/observation/video/x is not a .npy file"),
        ({"data": {"observation": {"video": {"x": {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"x"}}}}},
         "dtype '|O'"),
    ],
)  # fmt: skip
def test_bad_requests_are_told_and_the_next_good_one_is_answered(server, request_, said):
    with client(server) as connection:
        reply = asked(connection, request_)
        assert said in reply["error"]
        assert asked(connection, get_action())[0]["action"][1].shape == (1, H, A)


def test_a_token(policy):
    with PolicyServer(policy, protocol="gr00t", port=0, api_key="secret") as server, client(server) as connection:
        for token in ({}, {"api_token": "secre"}, {"api_token": 3}):
            assert asked(connection, get_action() | token) == {"error": "Unauthorized: Invalid API token"}
        assert not policy.requests
        assert asked(connection, {"endpoint": "ping", "api_token": "secret"})["status"] == "ok"


def test_who_is_no_client_is_not_answered(server):
    with zmq.Context() as context, context.socket(zmq.DEALER) as other:
        other.setsockopt(zmq.LINGER, 0)
        other.connect(server.url)
        other.send_multipart([b"a", b"b", b"c"])
        with client(server) as connection:
            assert asked(connection, {"endpoint": "ping"})["status"] == "ok"
            assert not other.poll(0)


def test_what_cannot_be_served(policy, server):
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*Choose another --port"):
        PolicyServer(policy, protocol="gr00t", port=port).__enter__()
    policy.contract = lambda key: Embodiment(action_dim=3, chunk_size=4)
    with pytest.raises(ValueError, match="does not name its cameras"):
        PolicyServer(policy, protocol="gr00t")
    with pytest.raises(ValueError, match="protocol='grpc' is unknown, expected one of openpi, gr00t"):
        PolicyServer(policy, protocol="grpc")
