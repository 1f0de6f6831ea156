# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Time of forward and backward of a supervised batch: this package against the released way.

    python benchmarks/sft_step.py --threads 2 --output outputs/benchmarks/sft_step.json

The reference scores the whole vocabulary at every position of the prompt; this package where a token is supervised. Both
have the same weights, tokens, noise and times and must give the same loss.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch

from harness import add_speed_arguments, compare, peak_memory, save_results, set_threads, time_contestants
from plain_policy import PlainPolicy
from random_policy import random_policy, random_prompt

FAST_TOKENS = 8
TOLERANCE = 1e-4


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_speed_arguments(parser, rounds=3)
    parser.add_argument("--batch", type=int, default=4, help="samples per step (default 4)")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    model = random_policy(options.size)
    plain = PlainPolicy(model)
    config = model.config
    inputs = random_prompt(model, options.batch)
    generator = torch.Generator().manual_seed(0)
    first = config.action_token_start_id
    tokens = torch.randint(first, first + config.num_action_tokens, (options.batch, FAST_TOKENS), generator=generator)
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), tokens], dim=1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    shape = (options.batch, config.chunk_size, config.action_dim)
    actions, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    time = torch.linspace(0.1, 0.9, options.batch)

    def step(loss: torch.Tensor) -> float:
        loss.backward()
        model.zero_grad(set_to_none=True)
        plain.vlm.zero_grad(set_to_none=True)
        return loss.item()

    contestants = {
        "reference": lambda: step(plain.training_loss(inputs, labels, actions, noise, time)),
        "ours": lambda: step(model(**inputs, labels=labels, actions=actions, noise=noise, timestep=time).loss),
    }
    losses = {name: run() for name, run in contestants.items()}
    difference = abs(losses["ours"] - losses["reference"]) / abs(losses["reference"])
    if not difference <= TOLERANCE:
        raise RuntimeError(f"The losses are {losses}: times cannot be compared.")
    results = compare(time_contestants(contestants, options.rounds), "ours", peak_memory(contestants))
    print(
        f"\n{options.batch} samples, {torch.get_num_threads()} threads, float32; losses agree within {difference:.1e} of "
        "their size."
    )
    outcome = {"size": options.size, "batch": options.batch, "loss_difference": difference, "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
