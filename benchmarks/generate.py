# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time to a chunk of FAST tokens: this package's decoding against transformers' `generate` on the stock backbone.

    python benchmarks/generate.py --threads 2 --output outputs/benchmarks/generate.json

The reference scores the whole vocabulary and concatenates its cache at every token, one observation at a time. `warmed up` is
`generate_actions` after `warm_up`, which compiles it. All decode greedily and must give the same tokens.
"""

import copy
from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch

from harness import add_speed_arguments, compare, peak_memory, save_results, set_threads, time_contestants
from plain_policy import PlainPolicy
from random_policy import random_policy, random_prompt


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_speed_arguments(parser, rounds=5)
    parser.add_argument("--batch", type=int, default=4, help="observations of the second comparison (default 4)")
    parser.add_argument("--tokens", type=int, default=16, help="longest answer (default 16)")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    model = random_policy(options.size)
    plain = PlainPolicy(model)
    results, lengths = {}, {}
    for batch in (1, options.batch):
        inputs = random_prompt(model, batch)
        compiled = copy.deepcopy(model)
        compiled.warm_up(**inputs, decoder="fast", max_new_tokens=options.tokens)
        contestants = {
            "reference": lambda inputs=inputs: plain.generate_actions(inputs, options.tokens),
            "ours": lambda inputs=inputs: model.generate_actions(**inputs, max_new_tokens=options.tokens),
            "warmed up": lambda inputs=inputs, compiled=compiled: compiled.generate_actions(
                **inputs, max_new_tokens=options.tokens
            ),
        }
        rows = {name: run() for name, run in contestants.items()}
        if not rows["ours"] == rows["warmed up"] == rows["reference"]:
            raise RuntimeError("The ways give different tokens: their times cannot be compared.")
        lengths[batch] = [len(row) for row in rows["ours"]]
        print(f"\n{batch} observation(s), answers of {lengths[batch]} tokens, the same from all\n")
        results[f"batch {batch}"] = compare(
            time_contestants(contestants, options.rounds), "warmed up", peak_memory(contestants)
        )
    print(f"\n{torch.get_num_threads()} threads, float32, {options.rounds} rounds.")
    outcome = {"size": options.size, "answer_lengths": lengths, "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
