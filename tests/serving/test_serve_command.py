# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 serve`: what it refuses before anything is loaded, and how it starts and ends."""

import inspect
import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from websockets.sync.client import connect

from helpers.counting_dataset import write_counting_dataset
from helpers.recording_policy import H, observation
from nora15_hf.commands import main
from nora15_hf.commands.library_defaults import library_choices, library_defaults
from nora15_hf.embodiment import Camera
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving import PolicyClient
from nora15_hf.serving.message_codec import encode_message
from nora15_hf.serving.server import DEFAULT_PORTS, PolicyServer

SEEN = {**observation(), "instruction": "go"}


@pytest.fixture
def default_handlers():
    """Those of a process in the foreground; one in the background may ignore SIGINT."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield defaults
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_running_request(policy, default_handlers, number):
    server = PolicyServer(policy, port=0)
    chunks = []

    def ask():
        with PolicyClient(server.url, timeout=30) as client:
            chunks.append(client.predict_chunk(SEEN))

    def interrupt():
        asking = threading.Thread(target=ask)
        asking.start()
        assert policy.entered.acquire(timeout=30)
        signal.raise_signal(number)
        policy.go.set()
        asking.join()

    policy.go.clear()
    interrupting = threading.Thread(target=interrupt)
    server.run(interrupting.start)
    interrupting.join()
    assert chunks[0].shape == (H, 3)
    # A second signal would have done what it always does.
    assert {each: signal.getsignal(each) for each in default_handlers} == default_handlers


def test_a_second_signal_ends_it_at_once(policy, default_handlers):
    server = PolicyServer(policy, port=0)

    def interrupt_twice():
        with connect(server.url, compression=None, close_timeout=0) as connection:
            connection.send(encode_message(observation()))
            assert policy.entered.acquire(timeout=30)
            for _ in range(2):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                while not server._stop.is_set():
                    pass

    policy.go.clear()
    interrupting = threading.Thread(target=interrupt_twice)
    # The policy has not returned, nor would it.
    with pytest.raises(KeyboardInterrupt):
        server.run(interrupting.start)
    interrupting.join()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    (tmp_path / "key").write_text("secret\n")
    return tmp_path


def test_what_is_refused_before_a_policy_is_loaded(folder, capsys):
    (folder / "empty").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            ("policy", f"--port={port}"): f"Port {port} of 127.0.0.1 is in use. Choose another one with --port.",
            ("policy", "--port=0", "--robot=hexapod"): "robot 'hexapod' is neither a YAML file nor one of the robots",
            (
                "policy",
                "--port=0",
                "--api-key-file=empty",
            ): "empty is empty: write the key that clients must send into it",
        }
        for arguments, said in cases.items():
            assert main(["serve", *arguments]) == 2
            assert said in capsys.readouterr().err
    cases = {
        (): "Name either a policy or --replay DATASET.",
        ("policy", "--replay", "policy"): "Name either a policy or --replay DATASET.",
        (
            "policy",
            "--protocol=vla-eval",
            "--api-key-file=key",
        ): "--api-key-file would have no effect: it is not part of vla-eval's protocol. Leave it out.",
        ("--replay=policy", "--compile"): "--compile would have no effect: a dataset is replayed without a model",
        (
            "--replay=policy",
            "--temperature=0",
        ): "--temperature would have no effect: a dataset is replayed without a model",
        ("policy", "--chunk-size=5"): "--chunk-size would have no effect: it belongs to --replay",
        (
            "policy",
            "--n-action-steps=5",
        ): "--n-action-steps would have no effect: clients of this protocol get whole chunks",
        ("policy", "--protocol=vla-eval", "--robot=droid"): "--robot droid is not a known benchmark of vla-eval",
    }
    for arguments, said in cases.items():
        with pytest.raises(SystemExit):
            main(["serve", *arguments])
        assert said in capsys.readouterr().err


def test_options_reach_the_server(folder, monkeypatch, capsys):
    served = []

    def run(server, on_ready):
        served.append(server)
        on_ready()

    monkeypatch.setattr(PolicyServer, "run", run)
    model, processor = tiny_policy(chunk_size=2)
    model.save_pretrained("policy")
    processor.save_pretrained("policy")
    (folder / "robot.yaml").write_text("cameras: {eye: image}\n")
    options = [
        "--port=0",
        "--num-steps=3",
        "--temperature=0.3",
        "--device=cpu",
        "--api-key-file=key",
        "--default-prompt=go",
        "--robot=robot.yaml",
    ]
    assert main(["serve", "policy", "--threads=1", *options]) == 0
    (server,) = served
    assert capsys.readouterr().out.startswith("Serving policy (default: chunks of 2 x 4, cameras not named) at ")
    assert (server.service.metadata["num_steps"], server.service.metadata["temperature"]) == (3, 0.3)
    assert (server._api_key, list(server.service.robot.cameras)) == ("secret", ["eye"])

    write_counting_dataset(folder / "data", (4,))
    assert main(["serve", "--replay", "data", "--port=0", "--chunk-size=3", "--n-action-steps=1"]) == 0
    replay = served[-1].policy
    assert (replay.dataset.chunk_size, replay.n_action_steps) == (3, 1)
    assert replay.contract("data").cameras == {"image": Camera(height=8, width=8)}


@pytest.mark.slow
def test_the_command_serves_a_replay_until_it_is_told_to_stop(tmp_path):
    write_counting_dataset(tmp_path / "data", (4,))
    command = [
        sys.executable,
        "-m",
        "nora15_hf.commands",
        "serve",
        "--replay",
        "data",
        "--port",
        "0",
        "--chunk-size",
        "2",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as serving:
        try:
            lines = (re.search(r"ws://\S+(?=\. Ctrl-C)", line) for line in serving.stdout)
            url = next(found[0] for found in lines if found)
            picture = {"image": np.zeros((8, 8, 3), dtype=np.uint8), "instruction": "push"}
            with PolicyClient(url, seed=0) as client:
                assert [client.predict_chunk(picture)[:, 0].tolist() for _ in range(3)] == [[0, 1], [2, 3], [3, 3]]
                serving.send_signal(signal.SIGTERM)
                assert serving.wait(30) == 0
        finally:
            serving.kill()


def test_defaults_and_choices_are_those_of_the_server():
    parameters = inspect.signature(PolicyServer).parameters
    defaults = library_defaults("serving/server.py", "PolicyServer")
    assert defaults == {name: parameters[name].default for name in defaults}
    assert defaults.keys() == parameters.keys() - {"policy"}
    assert library_choices("serving/server.py", "DEFAULT_PORTS") == list(DEFAULT_PORTS)
