# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""openpi's protocol as a plain WebSocket client sees it, and what the server does with clients that do not behave."""

import asyncio
import contextlib
import logging
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import msgpack
import numpy as np
import pytest
import websockets
from websockets.sync.client import ClientConnection, connect

from helpers.recording_policy import A, H, observation
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.serving import openpi_protocol
from nora15_hf.serving.message_codec import decode_message, encode_message
from nora15_hf.serving.robots import load_robot
from nora15_hf.serving.server import PolicyServer


@contextlib.contextmanager
def connected(server: PolicyServer, **options):
    with connect(server.url, compression=None, **options) as connection:
        connection.metadata = decode_message(connection.recv())
        yield connection


def asked(connection: ClientConnection, message: dict | bytes | str) -> dict | str:
    connection.send(encode_message(message) if isinstance(message, dict) else message)
    reply = connection.recv(timeout=30)
    return reply if isinstance(reply, str) else decode_message(reply)


def noise_key(reply: dict) -> tuple[int, int]:
    """The first and the last number of the noise key that a chunk was predicted with."""
    return tuple(reply["actions"][0, :2].astype(int).tolist())


def health(server: PolicyServer) -> bytes:
    with urllib.request.urlopen(f"http{server.url.removeprefix('ws')}/healthz", timeout=30) as response:
        return response.read()


def test_metadata_and_reply(server):
    with connected(server) as connection:
        expected = {
            "protocol": "openpi", "server": "nora15_hf", "policy": "recording", "chunk_size": H, "action_horizon": H,
            "max_action_horizon": H, "action_dim": A, "action_names": ["dx", "dy", "gripper"],
            "action_keys": ["dx", "dy", "gripper"], "action_space": "mixed", "delta_actions": [True, True, False],
            "gripper": None, "cameras": {"top": {"height": 8, "width": 8, "role": "external"}, "wrist": {"role": "wrist"}},
            "image_size": 56, "state_dim": 2, "state_names": ["x", "y"], "control_rate": 10.0, "dataset_key": "arm",
            "dataset_keys": ["arm", "other"],
            "observation_keys": {"images": {"top": "images/top", "wrist": "images/wrist"}, "state": ["state"], "prompt": "prompt"},
        }  # fmt: skip
        assert {key: connection.metadata[key] for key in expected} == expected
        first = asked(connection, observation(level=30) | {"request_id": 7})
        assert first["actions"].shape == (H, A)
        assert first["actions"].dtype == np.float32
        assert first["actions"][0, 2] == 30
        assert first["request_id"] == 7
        assert first["policy_timing"].keys() == {"infer_ms"}
        assert first["server_timing"].keys() == {"infer_ms", "queue_ms", "batch_size"}
        assert "prev_total_ms" in asked(connection, observation())["server_timing"]


def test_noise_follows_episodes_seeds_and_sessions(server):
    with connected(server) as connection:
        keys = [noise_key(asked(connection, observation())) for _ in range(2)]
        assert keys == [(900, 0), (900, 1)]
        assert asked(connection, {"endpoint": "reset", "seed": 7}) == {"status": "reset successful"}
        assert [noise_key(asked(connection, observation())) for _ in range(3)] == [(7, 0), (7, 1), (7, 2)]
        # A seed with an observation: the episode's own goes on, another one begins an episode.
        seeds = [7, 7, 8, 8, 7]
        keys = [noise_key(asked(connection, observation() | {"seed": seed})) for seed in seeds]
        assert keys == [(7, 3), (7, 4), (8, 0), (8, 1), (7, 0)]
        asked(connection, {"endpoint": "reset"})
        assert noise_key(asked(connection, observation())) == (901, 0)
        # What the client counts itself leaves the session alone.
        assert noise_key(asked(connection, observation() | {"noise_key": [5, 1, 6]})) == (5, 6)
        assert noise_key(asked(connection, observation())) == (901, 1)
        asked(connection, {"endpoint": "reset", "session_id": "s", "seed": 3})
        assert noise_key(asked(connection, observation() | {"session_id": "s"})) == (3, 0)
    with connected(server) as connection:
        # Another connection is another episode; a named session outlives its connection.
        # Episodes without a seed get the next one, and those with a seed take none.
        asked(connection, {"endpoint": "reset"})
        assert noise_key(asked(connection, observation())) == (902, 0)
        assert noise_key(asked(connection, observation() | {"session_id": "s"})) == (3, 1)


def test_options_and_batches(server, policy):
    with connected(server) as connection:
        options = {"sampling_params": {"num_inference_steps": 3}, "dataset_key": "other"}
        batch = [observation(level) | options | {"noise_key": [level, 2]} for level in (10, 20, 30)]
        reply = asked(connection, {"batch": batch, "request_id": "b"})
        assert reply["actions"].shape == (3, H, A)
        assert reply["actions"][:, 0].tolist() == [[10, 2, 10], [20, 2, 20], [30, 2, 30]]
        assert (reply["server_timing"]["batch_size"], reply["request_id"], policy.batches) == (3, "b", [3])
        assert {(request.num_steps, request.dataset_key) for request in policy.requests} == {(3, "other")}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("text", "The message is text, expected a binary message"),
        (b"\xc1", "The message is not valid msgpack"),
        (msgpack.packb([1]), "The message holds a list, expected a map with an observation"),
        ({}, "The observation lacks 'images/top', 'images/wrist'"),
        ({"endpoint": "kill"}, "'endpoint' is 'kill', expected 'infer', 'reset', 'metadata'"),
        ({"endpoint": np.zeros(2)}, "'endpoint' is"),
        ({"endpoint": "reset", "seed": -1}, "'seed' is -1, expected an integer from 0 to 2**64 - 1"),
        (observation() | {"seed": 1.5}, "'seed' is 1.5"),
        (observation() | {"seed": True}, "'seed' is True"),
        (observation() | {"session_id": 5}, "'session_id' must be a text"),
        (observation() | {"session_id": "x" * 300}, "'session_id' must be a text of 1 to 256"),
        (observation() | {"noise_key": []}, "'noise_key' is a list, expected a list of 1 to 8 integers"),
        (observation() | {"noise_key": [-1]}, "'noise_key' is a list"),
        (observation() | {"dataset_key": "x"}, "'dataset_key' is 'x'; the policy has arm, other"),
        (observation() | {"dataset_key": np.zeros(2)}, "'dataset_key' is"),
        (observation() | {"sampling_params": 3}, "'sampling_params' is a int, expected a map"),
        (observation() | {"sampling_params": {"num_inference_steps": 0}}, "'num_inference_steps' in 'sampling_params' is 0"),
        (observation() | {"request_id": [1]}, "'request_id' must be a number or a text"),
        ({"batch": []}, "'batch' must be a list of 1 to 256 maps"),
        ({"batch": [observation(), 3]}, "'batch' must be a list of 1 to 256 maps"),
        ({"batch": [observation(), observation() | {"state": np.zeros(9)}]}, "batch[1]: 'state' hold 9 number(s), expected 2"),
    ],
)  # fmt: skip
def test_bad_requests_are_told_and_the_next_good_one_is_answered(server, policy, message, said):
    with connected(server) as connection:
        reply = asked(connection, message)
        assert isinstance(reply, str)
        assert said in reply
        assert not policy.requests
        assert noise_key(asked(connection, observation())) == (900, 0)


@pytest.mark.slow
def test_random_and_mutated_frames(server, policy, caplog):
    """5,000 of them on one connection: each is answered, and the server lives."""
    caplog.set_level(logging.CRITICAL)
    random = np.random.default_rng(0)
    good = np.frombuffer(encode_message(observation() | {"noise_key": [1, 2], "seed": 3}), dtype=np.uint8)
    with connected(server) as connection:
        for number in range(5_000):
            frame = good.copy()
            kind = number % 4
            if kind == 0:
                frame = random.integers(0, 256, random.integers(0, 200), dtype=np.uint8)
            elif kind == 1:
                frame = frame[: random.integers(len(good))]
            else:
                # Where the structure is; a changed pixel changes nothing.
                places = random.integers(0, len(good), 3) if kind == 2 else random.integers(0, 60, 2)
                frame[places] = random.integers(0, 256, len(places))
            reply = asked(connection, frame.tobytes())
            assert isinstance(reply, str) or reply.keys() >= {"actions"} or reply["status"] == "reset successful"
            assert "its log tells why" not in reply
        assert noise_key(asked(connection, observation() | {"noise_key": [1, 2]})) == (1, 2)


def test_oversized_messages_end_their_connection_only(server, monkeypatch):
    with connected(server) as other:
        with connected(server, max_size=None) as connection:
            connection.send(bytes(openpi_protocol.MAX_MESSAGE_BYTES + 1))
            with pytest.raises(websockets.ConnectionClosedError) as error:
                connection.recv(timeout=30)
            assert error.value.rcvd.code == 1009
        assert asked(other, observation())["actions"].shape == (H, A)


def test_the_key_is_needed_before_anything_else(policy):
    with PolicyServer(policy, port=0, api_key="secret") as server:
        for headers in (
            {},
            {"Authorization": "Api-Key secre"},
            {"Authorization": "secret"},
            {"Authorization": "Basic ü"},
        ):
            with pytest.raises(websockets.InvalidStatus) as error:
                connect(server.url, additional_headers=headers)
            assert error.value.response.status_code == 401
            assert b"Authorization: Api-Key KEY" in error.value.response.body
        assert health(server) == b"OK\n"
        for scheme in ("Api-Key", "Bearer"):
            with connected(server, additional_headers={"Authorization": f"{scheme} secret"}) as connection:
                assert "actions" in asked(connection, observation())


def test_connections_live_while_the_policy_works(server, policy):
    policy.go.clear()
    with ThreadPoolExecutor(1) as pool, connected(server) as busy, connected(server) as other:
        reply = pool.submit(asked, busy, observation())
        assert policy.entered.acquire(timeout=30)
        assert health(server) == b"OK\n"
        assert other.ping().wait(30)
        assert asked(other, {"endpoint": "metadata"})["server"] == "nora15_hf"
        assert not reply.done()
        policy.go.set()
        assert "actions" in reply.result()


def test_waiting_clients_share_a_batch(server, policy):
    policy.go.clear()
    with ThreadPoolExecutor(5) as pool, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(5)]
        replies = [pool.submit(asked, connections[0], observation())]
        assert policy.entered.acquire(timeout=30)
        replies += [pool.submit(asked, connection, observation()) for connection in connections[1:]]
        while server.service.queue.num_waiting < 4:
            health(server)
        policy.go.set()
        assert [reply.result()["server_timing"]["batch_size"] for reply in replies] == [1, 4, 4, 4, 4]
    assert policy.batches == [1, 4]
    # Each had a session of its own.
    assert {request.noise_key for request in policy.requests} == {(900 + number, 0) for number in range(5)}


def test_a_client_that_has_gone_is_not_computed_for(server, policy):
    policy.go.clear()
    with connected(server) as connection, ThreadPoolExecutor(1) as pool:
        running = pool.submit(asked, connection, observation())
        assert policy.entered.acquire(timeout=30)
        with connected(server) as gone:
            gone.send(encode_message(observation()))
            while not server.service.queue.num_waiting:
                health(server)
            gone.socket.shutdown(socket.SHUT_RDWR)
        while len(server.service.sessions) > 1:
            health(server)
        policy.go.set()
        running.result()
        asked(connection, observation())
    assert policy.batches == [1, 1]


def test_stopping_finishes_what_runs_and_says_why(policy, monkeypatch):
    policy.go.clear()
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        with PolicyServer(policy, port=0) as server:
            queue = server.service.queue
            close_queue = queue.close

            async def close_and_let_go():
                closing = asyncio.ensure_future(close_queue())
                await asyncio.sleep(0)
                policy.go.set()
                await closing

            monkeypatch.setattr(queue, "close", close_and_let_go)
            busy, waiting, idle = (stack.enter_context(connected(server)) for _ in range(3))
            running = pool.submit(asked, busy, observation())
            assert policy.entered.acquire(timeout=30)
            waiting.send(encode_message(observation()))
            while not queue.num_waiting:
                health(server)
        assert running.result()["actions"].shape == (H, A)
        for connection in (waiting, idle, busy):
            with pytest.raises(websockets.ConnectionClosedOK) as error:
                connection.recv(timeout=30)
            assert (error.value.rcvd.code, error.value.rcvd.reason) == (1001, "The server is shutting down.")
    assert policy.batches == [1]


def test_a_client_that_asks_nothing_is_disconnected(policy, monkeypatch):
    monkeypatch.setattr(openpi_protocol, "IDLE_SECONDS", 0.05)
    with PolicyServer(policy, port=0) as server, connected(server) as connection:
        with pytest.raises(websockets.ConnectionClosedOK) as error:
            connection.recv(timeout=30)
        assert error.value.rcvd.reason == "No request came within 0.05 s."


def test_a_client_that_reads_nothing_is_disconnected(policy, monkeypatch):
    monkeypatch.setattr(openpi_protocol, "SEND_SECONDS", 0.05)
    # Replies of 4 MB, until the buffers on the way are full.
    policy.chunk = lambda request: np.zeros((1_000_000, 1), dtype=np.float32)
    with PolicyServer(policy, port=0) as server:
        server.service.horizon = None
        with connected(server, max_queue=1) as connection:

            def ask_on():
                for _ in range(100):
                    connection.send(encode_message(observation()))
                    policy.entered.acquire(timeout=0.3)

            with pytest.raises(websockets.ConnectionClosed):
                ask_on()
        assert health(server) == b"OK\n"


def test_too_many_clients_are_sent_away(server, monkeypatch):
    monkeypatch.setattr(openpi_protocol, "MAX_CLIENTS", 1)
    with connected(server):
        with pytest.raises(websockets.InvalidStatus) as error:
            connect(server.url)
        assert error.value.response.status_code == 503
        assert health(server) == b"OK\n"


def test_a_fault_of_the_server_is_not_told_in_detail(server, policy, caplog):
    caplog.set_level(logging.ERROR)
    policy.chunk = lambda request: 1 / 0
    with connected(server) as connection:
        assert asked(connection, observation()) == "The server failed to answer; its log tells why."
        del policy.chunk
        assert "actions" in asked(connection, observation())
    assert "ZeroDivisionError" in caplog.text


def test_robots_take_as_many_actions_as_they_want(policy):
    policy.contract = lambda key: Embodiment(
        cameras={"side": Camera(role="external"), "hand": Camera(role="wrist")}, action_dim=8, chunk_size=12
    )
    policy.chunk = lambda request: np.arange(96, dtype=np.float32).reshape(12, 8)
    with PolicyServer(policy, port=0, robot=load_robot("droid")) as server, connected(server) as connection:
        assert connection.metadata["action_horizon"] == 10
        message = {
            "observation/exterior_image_1_left": np.zeros((4, 4, 3), dtype=np.uint8),
            "observation/wrist_image_left": np.zeros((4, 4, 3), dtype=np.uint8),
            "observation/joint_position": np.arange(7.0),
            "observation/gripper_position": np.array([0.5]),
            "prompt": "go",
        }
        np.testing.assert_array_equal(asked(connection, message)["actions"], policy.chunk(None)[:10])
        assert policy.requests[0].observation.state.tolist() == [0, 1, 2, 3, 4, 5, 6, 0.5]


def test_a_busy_port_and_an_unknown_host(server, policy):
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match=rf"Port {port} of 127\.0\.0\.1 is in use\. Choose another one with --port"):
        PolicyServer(policy, port=port).__enter__()
    with pytest.raises(OSError, match=r"cannot listen on .* with --host"):
        PolicyServer(policy, host="203.0.113.1", port=0).__enter__()


def test_listening_to_others_without_a_key_is_warned_about(policy, caplog):
    PolicyServer(policy, host="0.0.0.0", api_key="secret")
    PolicyServer(policy, host="localhost")
    assert not caplog.records
    PolicyServer(policy, host="0.0.0.0")
    assert "listens on 0.0.0.0 without a key" in caplog.text
