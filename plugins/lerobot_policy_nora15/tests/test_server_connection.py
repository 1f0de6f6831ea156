# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What becomes of a request when the server is away, slow, of other opinion or no policy server at all."""

import socket
import threading

import pytest
from websockets.sync.server import serve

from lerobot_policy_nora15.server_connection import PolicyServerError, ServerConnection

ROW = {"prompt": "open", "noise_key": [1, 2]}


def test_a_lost_connection_is_opened_again_and_the_request_repeated(server):
    connection = ServerConnection(server.url, timeout=5)
    server.drop_next = True
    reply = connection.request({"batch": [ROW]})
    assert reply["actions"][0, :, 0].tolist() == [1020, 1021, 1022, 1023, 1024]
    assert len(server.requests) == 1


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=r"within 0.2 s.*nora15 serve POLICY.*--policy.url"):
            ServerConnection(url, timeout=0.2)


def test_a_late_answer_is_not_taken_for_the_next_request(server):
    may_answer = threading.Event()
    server.answers = lambda chunks: (may_answer.wait(10), chunks)[1]
    connection = ServerConnection(server.url, timeout=0.2)
    with pytest.raises(TimeoutError, match=r"within 0.2 s.*--policy.timeout"):
        connection.request({"batch": [ROW]})
    may_answer.set()
    connection.timeout = 10
    reply = connection.request({"batch": [{**ROW, "noise_key": [3, 0]}]})
    assert reply["actions"][0, 0, 0] == 3000


@pytest.mark.parametrize(("api_key", "message"), [(None, "wants a token"), ("wrong", "wants another token")])
def test_a_token_is_asked_for(server, api_key, message):
    server.token = "right"
    with pytest.raises(PermissionError, match=f"{message}.*--policy.api_key_file"):
        ServerConnection(server.url, api_key=api_key, timeout=5)
    assert ServerConnection(server.url, api_key="right", timeout=5).metadata["action_horizon"] == 5


def test_another_server_is_told_apart():
    def refuse(connection, request):
        return connection.respond(404, "")

    with serve(lambda connection: None, "127.0.0.1", 0, process_request=refuse) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with pytest.raises(ConnectionError, match="HTTP 404"):
                ServerConnection(f"ws://127.0.0.1:{other.socket.getsockname()[1]}", timeout=5)
        finally:
            other.shutdown()
            thread.join()


def test_values_that_cannot_be_sent_are_refused(server):
    with pytest.raises(TypeError, match="a request holds a set, which cannot be sent"[1:]):
        ServerConnection(server.url, timeout=5).request({"batch": [{1}]})


def test_another_policy_behind_the_same_address_is_refused(server):
    connection = ServerConnection(server.url, timeout=5)
    server.drop_next = True
    server.metadata = {**server.metadata, "action_names": ["z", "y", "x", "gripper"]}
    with pytest.raises(PolicyServerError, match="started again with another policy"):
        connection.request({"batch": [ROW]})
