# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time from an observation to a chunk of actions, against the time that reading the weights takes; and chunks per second.

    python benchmarks/latency.py --size released --device cuda --dtype bfloat16 --output outputs/benchmarks/latency.json
    python benchmarks/latency.py --size cpu --threads 2

One camera of 224 px, random weights, `sample_actions` after `warm_up`, every call waited for. A chunk cannot take less than
reading the backbone once and the expert at every step from memory, whose speed is measured in the same run. The profile says
which operators take the rest.
"""

import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from harness import add_threads_argument, save_results, set_threads, table
from nora15_hf import Nora15ForActionPrediction
from random_policy import random_policy, random_prompt


def seconds_of(function: Callable[[], object], rounds: int) -> list[float]:
    """Sorted seconds of so many calls after three others, each waited for."""
    seconds = []
    for round_number in range(rounds + 3):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if round_number >= 3:
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def read_bandwidth(device: str) -> float:
    """Bytes per second of reading memory: the sum of a tensor that no cache holds, at best."""
    size = 2**30 if device == "cuda" else 2**28
    data = torch.ones(size // 4, device=device)
    return size / seconds_of(data.sum, 7)[0]


def weight_bytes(model: Nora15ForActionPrediction) -> tuple[int, int]:
    """Bytes of what a prompt reads, the backbone's layers, and of what every step reads, the expert and its heads."""
    backbone = [model.vlm.model.visual, *model.vlm.model.language_model.layers]
    expert = [model.action_expert, model.action_in_proj, model.action_time_mlp_in, model.action_time_mlp_out]
    expert.append(model.action_out_proj)
    return tuple(
        sum(weight.numel() * weight.element_size() for module in modules for weight in module.parameters())
        for modules in (backbone, expert)
    )


def operator_times(function: Callable[[], object], device: str, count: int) -> list[dict[str, float | str]]:
    """The operators or kernels of one call that take longest by themselves, in milliseconds and parts of all."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        function()
        if device == "cuda":
            torch.cuda.synchronize()
    attribute = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    totals = {event.key: getattr(event, attribute) / 1e3 for event in profiler.key_averages()}
    whole = sum(totals.values())
    longest = sorted(totals.items(), key=lambda item: -item[1])[:count]
    return [{"operator": name, "ms": ms, "part": ms / whole} for name, ms in longest]


@torch.no_grad()
def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "cpu", "released"), default="cpu", help="default cpu, 107 M")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_threads_argument(parser)
    parser.add_argument("--steps", type=int, default=10, help="Euler steps (default 10)")
    parser.add_argument("--rounds", type=int, default=100, help="timed chunks (default 100)")
    parser.add_argument("--batch", type=int, default=16, help="observations of the throughput (default 16)")
    parser.add_argument("--no-compile", action="store_true", help="leave out warm_up()")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    model = random_policy(options.size, options.device, getattr(torch, options.dtype))
    observation, batch = random_prompt(model), random_prompt(model, options.batch)
    if not options.no_compile:
        model.warm_up(**observation)
        model.warm_up(**batch)
    prefix = model.encode_prefix(**observation)
    one = seconds_of(lambda: model.sample_actions(**observation, num_steps=options.steps), options.rounds)
    parts = {
        "prompt": seconds_of(lambda: model.encode_prefix(**observation), options.rounds),
        "denoising": seconds_of(lambda: model.sample_actions(prefix=prefix, num_steps=options.steps), options.rounds),
    }
    many = seconds_of(lambda: model.sample_actions(**batch, num_steps=options.steps), max(1, options.rounds // 10))
    bandwidth = read_bandwidth(options.device)
    backbone_bytes, expert_bytes = weight_bytes(model)
    floor = (backbone_bytes + options.steps * expert_bytes) / bandwidth
    operators = operator_times(
        lambda: model.sample_actions(**observation, num_steps=options.steps), options.device, 12
    )

    rows = [
        [name, f"{1e3 * percentile(seconds, 50):.2f}", f"{1e3 * percentile(seconds, 95):.2f}"]
        for name, seconds in {"one chunk": one, **parts}.items()
    ]
    print(table(["", "p50 ms", "p95 ms"], rows))
    print(
        f"\nReading {backbone_bytes / 1e6:.0f} MB once and {expert_bytes / 1e6:.0f} MB {options.steps} times at "
        f"{bandwidth / 1e9:.0f} GB/s takes {1e3 * floor:.2f} ms: {floor / percentile(one, 50):.0%} of the median."
    )
    print(f"{options.batch} observations at once: {options.batch / percentile(many, 50):.1f} chunks per second.\n")
    print(
        table(["operator", "ms", "part"], [[o["operator"], f"{o['ms']:.2f}", f"{o['part']:.0%}"] for o in operators])
    )
    outcome = {
        **{name: value for name, value in vars(options).items() if name != "output"},
        "p50_ms": {name: 1e3 * percentile(seconds, 50) for name, seconds in {"one chunk": one, **parts}.items()},
        "p95_ms": {name: 1e3 * percentile(seconds, 95) for name, seconds in {"one chunk": one, **parts}.items()},
        "bytes_per_second": bandwidth,
        "floor_ms": 1e3 * floor,
        "fraction_of_floor": floor / percentile(one, 50),
        "chunks_per_second": options.batch / percentile(many, 50),
        "operators": operators,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
