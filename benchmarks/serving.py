# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
What a server of openpi's protocol adds to the policy's own time, against openpi's own server around the same function.

    pip install --no-deps openpi-client==0.1.2 openpi-server==0.1.0 dm-tree
    python benchmarks/serving.py

Servers run in processes of their own; every request has two pictures. Three things are measured:

- overhead: from the client's call to its return, without the time that the function itself took, which it tells in its reply.
  openpi's own client asks both servers in turn, in several rounds, and the medians of a round are compared. Without openpi's
  packages it is left out;
- clients: requests per second of one client and of several at once, to a policy with random weights;
- growth: memory and file descriptors of the server between the first tenth of many requests and the last, with a new
  connection every hundred requests.
"""

import itertools
import multiprocessing
import operator
import statistics
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from harness import add_threads_argument, save_results, set_threads, table
from latency import percentile
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving import PolicyClient
from nora15_hf.serving.served_policy import ModelPolicy
from nora15_hf.serving.server import PolicyServer

CAMERAS = ("image", "wrist_image")
CHUNK, ACTION_DIM = 5, 7
OPENPI, OURS = "openpi's server", "ours"


def fixed_time_actions(seconds: float) -> np.ndarray:
    """The function behind both servers: it takes a time, and its first number says how long it really took."""
    began = time.perf_counter()
    time.sleep(seconds)
    actions = np.zeros((CHUNK, ACTION_DIM), dtype=np.float32)
    actions[0, 0] = time.perf_counter() - began
    return actions


def embodiment() -> Embodiment:
    return Embodiment(cameras={name: Camera() for name in CAMERAS}, action_dim=ACTION_DIM, chunk_size=CHUNK)


class FixedTimePolicy:
    """[`fixed_time_actions`] as our server asks it."""

    needs_state = False
    dataset_key, dataset_keys = "fixed", ["fixed"]

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.metadata = {"policy": "fixed", "dataset_key": "fixed", "needs_state": False, "action_dim": ACTION_DIM}

    def contract(self, dataset_key: str) -> Embodiment:
        return embodiment()

    def new_seed(self) -> int:
        return 0

    def predict(self, requests):
        return [fixed_time_actions(self.seconds) for _ in requests]

    def warm_up(self) -> None:
        pass


def serve_policy(ready: Connection, make_policy: Callable[..., Any], *arguments: Any) -> None:
    """Our server, in a process of its own, until the other end of `ready` is closed."""
    with PolicyServer(make_policy(*arguments), port=0) as server:
        ready.send(server.url)
        ready.poll(None)


def make_model_policy(threads: int | None) -> ModelPolicy:
    set_threads(threads)
    model, processor = tiny_policy(
        chunk_size=CHUNK, action_dim=ACTION_DIM, embodiments={"default": embodiment()}, seed=0
    )
    return ModelPolicy(model, processor)


def serve_openpi(ready: Connection, seconds: float) -> None:
    """openpi's own server around the same function."""
    import socket

    from openpi_server.websocket_policy_server import WebsocketPolicyServer

    class Policy:
        def infer(self, observation: dict) -> dict:
            return {"actions": fixed_time_actions(seconds)}

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = threading.Thread(target=WebsocketPolicyServer(Policy(), "127.0.0.1", port).serve_forever, daemon=True)
    server.start()
    ready.send(f"ws://127.0.0.1:{port}")
    ready.poll(None)


@contextmanager
def server_process(serve: Callable[..., None], *arguments: Any) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server and its process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv(), psutil.Process(process.pid)
    finally:
        here.close()
        process.join(10)
        process.kill()


def pictures(pixels: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8) for name in CAMERAS}


def measure_overhead(rounds: int, requests: int, pixels: int, seconds: float) -> dict[str, dict[str, float]] | None:
    """
    Milliseconds beyond the function's own, `p50` and `p95` by server, and `times_openpi`: the median of the rounds' ratios.
    `None` without openpi's packages.
    """
    try:
        import openpi_server  # noqa: F401
        from openpi_client.websocket_client_policy import WebsocketClientPolicy
    except ModuleNotFoundError as error:
        print(f"overhead: left out, since {error.name} is not installed; see --help.")
        return None
    observation = {f"images/{name}": picture for name, picture in pictures(pixels).items()} | {"prompt": "go"}
    milliseconds: dict[str, list[list[float]]] = {name: [[] for _ in range(rounds)] for name in (OPENPI, OURS)}
    with (
        server_process(serve_openpi, seconds) as (theirs, _),
        server_process(serve_policy, FixedTimePolicy, seconds) as (ours, _),
    ):
        while True:
            try:
                clients = dict(
                    zip(milliseconds, (WebsocketClientPolicy(theirs), WebsocketClientPolicy(ours)), strict=True)
                )
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        for number, name in itertools.product(range(-20, rounds * requests), milliseconds):
            began = time.perf_counter()
            actions = clients[name].infer(observation)["actions"]
            took = time.perf_counter() - began - float(actions[0, 0])
            if number >= 0:
                milliseconds[name][number // requests].append(1e3 * took)
    results = {}
    for name, of_rounds in milliseconds.items():
        every = sorted(itertools.chain(*of_rounds))
        ratios = map(operator.truediv, map(statistics.median, of_rounds), map(statistics.median, milliseconds[OPENPI]))
        results[name] = {
            "p50": percentile(every, 50),
            "p95": percentile(every, 95),
            "times_openpi": statistics.median(ratios),
        }
    rows = [
        [name, f"{each['p50']:.2f}", f"{each['p95']:.2f}", f"{each['times_openpi']:.2f}x"]
        for name, each in results.items()
    ]
    print(table([f"overhead, ms, {len(CAMERAS)} x {pixels} px", "p50", "p95", "p50, of openpi's"], rows))
    return results


def measure_clients(
    requests: int, pixels: int, counts: tuple[int, ...], threads: int | None
) -> dict[str, dict[str, float]]:
    """Requests per second of one client and of several at once, and the median size of their batches."""
    results = {}
    with server_process(serve_policy, make_model_policy, threads) as (url, _):
        for count in counts:
            clients = [PolicyClient(url) for _ in range(count)]
            observation = {"images": pictures(pixels), "instruction": "open the faucet"}
            clients[0].predict_chunk(observation)

            def ask(client: PolicyClient, observation=observation) -> None:
                for _ in range(requests):
                    client.predict_chunk(observation)

            running = [threading.Thread(target=ask, args=(client,)) for client in clients]
            began = time.perf_counter()
            for each in running:
                each.start()
            for each in running:
                each.join()
            results[str(count)] = {"requests_per_second": count * requests / (time.perf_counter() - began)}
            for client in clients:
                client.close()
    one = results[str(counts[0])]["requests_per_second"]
    for each in results.values():
        each["times_one"] = each["requests_per_second"] / one
    rows = [
        [name, f"{each['requests_per_second']:.1f}", f"{each['times_one']:.2f}x"] for name, each in results.items()
    ]
    print(table(["clients at once", "requests per second", "of one client's"], rows))
    return results


def measure_growth(requests: int, pixels: int) -> dict[str, float]:
    """Resident MiB and descriptors of the server, early and late."""
    observation = {"images": pictures(pixels), "instruction": "open the faucet"}
    found = []
    with server_process(serve_policy, FixedTimePolicy, 0.0) as (url, process):
        for number in range(requests):
            if number % 100 == 0:
                client = PolicyClient(url)
            client.predict_chunk(observation)
            if number % 100 == 99:
                client.close()
            found.append((process.memory_info().rss / 2**20, process.num_fds()))
    tenth = max(len(found) // 10, 1)
    early, late = (
        [statistics.median(column) for column in zip(*part, strict=True)] for part in (found[:tenth], found[-tenth:])
    )
    results = {"early_mib": early[0], "late_mib": late[0], "early_descriptors": early[1], "late_descriptors": late[1]}
    rows = [["MiB", f"{early[0]:.1f}", f"{late[0]:.1f}"], ["descriptors", f"{early[1]:.0f}", f"{late[1]:.0f}"]]
    print(table([f"{requests} requests", "first tenth", "last tenth"], rows))
    return results


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_threads_argument(parser)
    parser.add_argument("--rounds", type=int, default=5, help="of the overhead's measurement (default 5)")
    parser.add_argument("--requests", type=int, default=300, help="per server and round, or per client (default 300)")
    parser.add_argument(
        "--long", type=int, default=10_000, help="requests that growth is looked for in (default 10000)"
    )
    parser.add_argument("--pixels", type=int, default=224, help="side of a picture (default 224)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8], help="at once (default 1 2 4 8)")
    parser.add_argument("--milliseconds", type=float, default=5.0, help="of the function (default 5)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    outcome = {
        "overhead_ms": measure_overhead(options.rounds, options.requests, options.pixels, options.milliseconds / 1e3),
        "clients": measure_clients(options.requests, options.pixels, tuple(options.clients), options.threads),
        "growth": measure_growth(options.long, options.pixels),
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
