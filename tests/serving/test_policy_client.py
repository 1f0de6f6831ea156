# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The client: episodes as in our own evaluation, through lost connections, servers that start again and late replies."""

import contextlib
import threading

import numpy as np
import pytest
import websockets
from websockets.sync.server import serve

from helpers.recording_policy import A, H, RecordingPolicy, observation
from helpers.two_camera_arm import TASKS, TwoCameraArm, in_the_table
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.evaluation.rollout import Episode, rollout
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving import PolicyClient, PolicyServerError, PolicyTimeoutError
from nora15_hf.serving.message_codec import decode_message, encode_message
from nora15_hf.serving.served_policy import ModelPolicy
from nora15_hf.serving.server import PolicyServer
from nora15_hf.simulation.environment import Observation
from nora15_hf.simulation.simulation_pool import SimulationPool


def seen(level: int = 0) -> dict:
    message = observation(level)
    return {"images": message["images"], "state": message["state"], "instruction": message["prompt"]}


def key_of(chunk: np.ndarray) -> tuple[int, int]:
    return tuple(chunk[0, :2].astype(int).tolist())


def port_of(server: PolicyServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


def test_an_episode_in_ten_lines(server, policy):
    with PolicyClient(server.url, n_action_steps=2, num_steps=3, dataset_key="other") as client:
        assert client.metadata["cameras"].keys() == {"top", "wrist"}
        client.reset(seed=7)
        actions = [client.select_action(seen(level)) for level in range(5)]
    # Every second step the policy looks.
    assert [action.tolist() for action in actions] == [[7, 0, 0], [0, 0, 0], [7, 1, 2], [0, 0, 0], [7, 2, 4]]
    assert {(request.num_steps, request.dataset_key) for request in policy.requests} == {(3, "other")}


def test_what_is_sent(server, policy):
    with PolicyClient(server.url, seed=5) as client:
        assert client.predict_chunk(seen()).shape == (H, A)
        images = {"side": np.zeros((8, 8, 3), dtype=np.uint8), **seen()["images"]}
        chunks = client([Observation(images, np.zeros(2), "push")] * 2, [(1, 2), (3, 4)])
        assert [key_of(chunk) for chunk in chunks] == [(1, 2), (3, 4)]
        assert list(policy.requests[-1].observation.images) == ["top", "wrist"]
        with pytest.raises(ValueError, match=r"has the cameras \['top'\]; the policy also needs \['wrist'\]"):
            client.predict_chunk({"images": {"top": images["top"]}, "instruction": "push"})
        with pytest.raises(PolicyServerError, match="'state' is missing"):
            client.predict_chunk({"images": images, "instruction": "push"})
        client.reset()
        assert key_of(client.predict_chunk(seen())) == (5, 0)
        with pytest.raises(ValueError, match="seed=-1 must not be negative"):
            client.reset(seed=-1)
    with PolicyClient(server.url) as one, PolicyClient(server.url) as other:
        assert key_of(one.predict_chunk(seen())) != key_of(other.predict_chunk(seen()))


def test_an_episode_goes_on_with_a_server_that_was_started_again(policy):
    with PolicyServer(policy, port=0) as server:
        client = PolicyClient(server.url, n_action_steps=1)
        client.reset(seed=7)
        assert client.select_action(seen()).tolist() == [7, 0, 0]
    again = PolicyServer(RecordingPolicy(), port=port_of(server))
    # It comes back while the client tries.
    starting = threading.Timer(0.2, again.__enter__)
    starting.start()
    assert client.select_action(seen()).tolist() == [7, 1, 0]
    starting.join()
    client.close()
    again.__exit__()
    other = RecordingPolicy()
    other.metadata |= {"policy_fingerprint": "another", "num_steps": 5}
    with (
        PolicyServer(other, port=port_of(server)),
        pytest.raises(PolicyServerError, match="policy_fingerprint") as error,
    ):
        client.select_action(seen())
    assert "num_steps, policy_fingerprint differ. Make a new PolicyClient" in str(error.value)
    with pytest.raises(ConnectionError, match=r"cannot be reached within 0\.2 s"):
        PolicyClient(server.url, timeout=0.2)


def test_a_reply_that_comes_too_late_is_never_used(server, policy):
    with PolicyClient(server.url, timeout=30) as client:
        client.reset(seed=7)
        client.select_action(seen())
        assert len(client._planned) == H - 1
        policy.go.clear()
        client._planned.clear()
        client.timeout = 0.2
        with pytest.raises(PolicyTimeoutError, match=r"did not answer within 0\.2 s"):
            client.select_action(seen(50))
        client.timeout = 30
        policy.go.set()
        assert client.select_action(seen(60)).tolist() == [7, 2, 60]


def test_a_failed_call_drops_what_was_planned(server, policy):
    with PolicyClient(server.url) as client:
        client.reset(seed=7)
        client.select_action(seen())
        with pytest.raises(PolicyServerError):
            client.predict_chunk(seen() | {"instruction": ""})
        assert client.select_action(seen(9)).tolist() == [7, 2, 9]


@contextlib.contextmanager
def fake_server(handler):
    """A server that sends our metadata and then does as it likes."""
    metadata = {"server": "nora15_hf", "action_horizon": 2, "cameras": {}, "needs_state": False}

    def handle(connection):
        connection.send(encode_message(metadata))
        with contextlib.suppress(websockets.ConnectionClosed):
            handler(connection)

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_lost_connection_is_opened_again_and_an_answer_to_another_request_refused():
    seen_requests = []

    def handler(connection):
        request = decode_message(connection.recv())
        seen_requests.append(request["noise_key"])
        if len(seen_requests) == 2:
            return
        request_id = request["request_id"] if len(seen_requests) < 4 else 99
        connection.send(encode_message({"actions": np.full((2, 1), len(seen_requests)), "request_id": request_id}))
        if len(seen_requests) > 1:
            connection.recv()

    picture = {"image": np.zeros((4, 4, 3), dtype=np.uint8), "instruction": "go"}
    with fake_server(handler) as url, PolicyClient(url, seed=1) as client:
        assert client.predict_chunk(picture)[0, 0] == 1
        # The second request meets a closed connection, the third time it is answered; nothing of it is counted twice.
        assert client.predict_chunk(picture)[0, 0] == 3
        client.close()
        with pytest.raises(PolicyServerError, match="answered a different request"):
            client.predict_chunk(picture)
    assert seen_requests == [[1, 0], [1, 1], [1, 1], [1, 2]]


def test_who_is_no_server_of_ours(policy):
    with PolicyServer(policy, port=0, api_key="secret") as server:
        with pytest.raises(PermissionError, match="requires an api_key"):
            PolicyClient(server.url)
        with PolicyClient(server.url, api_key="secret") as client:
            assert client.predict_chunk(seen()).shape == (H, A)
        with pytest.raises(ValueError, match=r"n_action_steps=9 must lie between 1 and the server's chunk of 4"):
            PolicyClient(server.url, api_key="secret", n_action_steps=9)

    def handle(connection):
        connection.send(encode_message({"reset_pose": [0.0]}))

    with serve(handle, "127.0.0.1", 0) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        with pytest.raises(ValueError, match="is not served by `nora15 serve`"):
            PolicyClient(f"ws://127.0.0.1:{other.socket.getsockname()[1]}")
        other.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def arm_policy():
    """Random weights; reads the state, from which its actions are differences, and sees two cameras."""
    contract = Embodiment(cameras={"front": Camera(), "wrist": Camera()}, action_names=("dx", "dy", "gripper"))
    model, processor = tiny_policy(
        [task.instruction for task in TASKS.values()],
        image_size=56,
        chunk_size=2,
        action_dim=3,
        state_dim=3,
        embodiments={"default": contract},
    )
    processor.delta_action_mask = [True, True, False]
    return model, processor


@pytest.mark.slow
def test_episodes_are_those_of_our_own_evaluation(arm_policy):
    """Batched by the client as in evaluation, and one by one in sessions with seeds, as openpi's clients do."""
    episodes = [Episode(task, seed) for task in TASKS for seed in (10_000, 10_001)]
    local = Nora15ChunkPolicy(*arm_policy)
    with PolicyServer(ModelPolicy(*arm_policy), port=0) as server, PolicyClient(server.url) as client:
        asked: dict[str, list] = {"local": [], "served": []}

        def remembering(name, policy):
            def predict(observations, noise_keys):
                chunks = policy(observations, noise_keys)
                asked[name] += zip(noise_keys, observations, chunks, strict=True)
                return chunks

            return predict

        with in_the_table(), SimulationPool("arm", num_workers=1, num_slots=3, max_steps=6) as pool:
            run = {"n_action_steps": 2, "progress": False}
            expected = rollout(remembering("local", local), episodes, pool, **run)
            assert rollout(remembering("served", client), episodes, pool, **run) == expected
        for mine, theirs in zip(asked["local"], asked["served"], strict=True):
            assert mine[0] == theirs[0]
            np.testing.assert_array_equal(mine[2], theirs[2])
        # Sessions: the same observations, in the order of one episode, of which only the seed is told.
        seed = 10_000
        client.reset(seed=seed)
        env = TwoCameraArm("left")
        env.reset(seed)
        for prediction in range(3):
            look = env.observation()
            chunk = client.predict_chunk({"images": look.images, "state": look.state, "instruction": look.instruction})
            np.testing.assert_array_equal(chunk, local([look], [(seed, prediction)])[0])
            for action in chunk:
                env.step(action)
