# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time to load a policy: `from_pretrained`, with its checks of names, shapes and values, against reading the file.

    python benchmarks/load.py --threads 2 --output outputs/benchmarks/load.json

The reference copies the safetensors file into memory and builds nothing; `from_pretrained` maps the file and reads every
value once, in search of NaN. Files come from the page cache of the operating system.
"""

import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from safetensors.torch import load_file

from harness import add_speed_arguments, compare, save_results, set_threads, time_contestants
from nora15_hf import Nora15ForActionPrediction
from random_policy import random_policy


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_speed_arguments(parser, rounds=5)
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    with tempfile.TemporaryDirectory() as folder:
        model = random_policy(options.size)
        model.save_pretrained(folder)
        size = (Path(folder) / "model.safetensors").stat().st_size

        def read_file() -> dict[str, torch.Tensor]:
            # A mapped file is read when it is copied.
            return {name: tensor.clone() for name, tensor in load_file(Path(folder) / "model.safetensors").items()}

        def from_pretrained() -> Nora15ForActionPrediction:
            return Nora15ForActionPrediction.from_pretrained(folder)

        found = from_pretrained().state_dict()
        if not all(torch.equal(found[name], tensor) for name, tensor in read_file().items()):
            raise RuntimeError("from_pretrained did not give the tensors of the file.")
        timings = time_contestants({"reading the file": read_file, "ours": from_pretrained}, options.rounds)
    results = compare(timings, "ours")
    print(f"\n{size / 1e6:.0f} MB, {torch.get_num_threads()} threads.")
    outcome = {"size": options.size, "bytes": size, "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
