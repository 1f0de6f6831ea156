# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Runs the speed benchmarks one after the other and collects their JSON files; `make bench` calls it.

    python benchmarks/run_all.py --size cpu --threads 2 --output outputs/benchmarks
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import dataloader
import dpo_step
import evaluation
import fast_codec
import generate
import label
import latency
import load
import rollout
import sample
import sft_step
from harness import add_threads_argument, set_threads

# Module and its own arguments.
BY_SIZE = {
    "sample": (sample, []),
    "latency": (latency, []),
    "generate": (generate, []),
    "label": (label, []),
    "dpo_step": (dpo_step, []),
    "dpo_step_full": (dpo_step, ["--train", "full"]),
    "sft_step": (sft_step, []),
    "load": (load, []),
}
# These have sizes of their own.
OTHERS = {
    "rollout": (rollout, []),
    "evaluation": (evaluation, []),
    "fast_codec": (fast_codec, []),
    "dataloader": (dataloader, []),
}


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*BY_SIZE, *OTHERS], default=[*BY_SIZE, *OTHERS])
    parser.add_argument("--size", choices=("tiny", "cpu"), default="cpu", help="of the policy; default cpu, 107 M")
    add_threads_argument(parser)
    parser.add_argument("--rounds", type=int, help="timed rounds of those that take a size; default: their own")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks"), help="folder for JSON files")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    outcomes = {}
    for name in options.only:
        print(f"\n## {name}\n")
        benchmark, chosen = (BY_SIZE | OTHERS)[name]
        chosen = [*chosen, "--output", str(options.output / f"{name}.json")]
        if name in BY_SIZE:
            chosen += ["--size", options.size]
            chosen += [] if options.rounds is None else ["--rounds", str(options.rounds)]
        outcomes[name] = benchmark.main(chosen)
    return outcomes


if __name__ == "__main__":
    main()
