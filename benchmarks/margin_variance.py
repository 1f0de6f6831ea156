# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How much the margin of a pair depends on the luck of its draws of noise and time.

    python benchmarks/margin_variance.py --policy outputs/quickstart/policy-dpo --reference outputs/quickstart/policy-sft \\
        --preferences outputs/quickstart/preferences --figure margins.png

For each pair the margin is computed again and again under new draws; what is reported is the standard deviation over the
draws, its mean over the pairs. "Independent" draws for chosen and rejected are the released code's, "shared" ones this
library's default. Without a policy the tiny preset is compared with itself after a small random change.
"""

import copy
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from matplotlib.figure import Figure

from dpo_step import BETA, load_rows
from harness import add_threads_argument, save_results, set_threads, table
from nora15_hf import Nora15ForActionPrediction
from nora15_hf.nora15.flow_matching import draw_flow_samples
from nora15_hf.trainers.flow_dpo.preference_collator import ROW_INDEX, PreferenceCollator
from observed_policy import load_policy

# Sets of draws per pair, and whether they are antithetic.
KINDS = {"independent": (2, False), "shared": (1, False), "shared, antithetic": (1, True)}


def load_pair(options):
    """The policy, the reference it is compared with, and the processor."""
    policy, processor = load_policy(options)
    if options.reference is not None:
        return (
            policy,
            Nora15ForActionPrediction.from_pretrained(options.reference, dtype=torch.float32).eval(),
            processor,
        )
    reference = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.action_expert.parameters():
            parameter.add_(0.02 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return policy, reference, processor


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="folder of a trained policy; default: the tiny preset")
    parser.add_argument("--reference", type=Path, help="folder of the policy that it is compared with")
    parser.add_argument("--preferences", type=Path, help="folder of a preference set; default: random pairs")
    parser.add_argument("--pairs", type=int, default=32, help="pairs (default 32)")
    parser.add_argument("--draws", type=int, nargs="+", default=[2, 4, 8], help="draws per pair, even (default 2 4 8)")
    parser.add_argument("--repeats", type=int, default=50, help="times each margin is computed (default 50)")
    parser.add_argument("--figure", type=Path, help="PNG file for a plot")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    add_threads_argument(parser)
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    if (options.policy is None) != (options.reference is None):
        parser.error("--policy and --reference belong together")

    policy, reference, processor = load_pair(options)
    rows = load_rows(options, policy, processor)
    batch = PreferenceCollator(processor, policy.config)(list(rows.add_column(ROW_INDEX, list(range(len(rows))))))
    chunks = torch.stack([batch["chosen"], batch["rejected"]], dim=1)
    prompt = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")}
    results = []
    with torch.no_grad():
        prefixes = [model.encode_prefix(**prompt) for model in (policy, reference)]
        for num_draws in options.draws:
            for kind, (num_chunks, antithetic) in KINDS.items():
                margins = []
                for repeat in range(options.repeats):
                    draws = draw_flow_samples(
                        policy.config,
                        [(repeat, row) for row in range(len(rows))],
                        (num_chunks, num_draws),
                        stratified=True,
                        antithetic=antithetic,
                    )
                    error, reference_error = (
                        model(prefix=prefix, actions=chunks, **draws._asdict(), loss_reduction="chunk_mean").flow_loss
                        for model, prefix in zip((policy, reference), prefixes, strict=True)
                    )
                    gain = reference_error - error
                    margins.append(BETA * (gain[:, 0] - gain[:, 1]))
                deviation = torch.stack(margins).std(0).mean().item()
                results.append({"draws": num_draws, "kind": kind, "standard_deviation": deviation})

    found = {(row["draws"], row["kind"]): row["standard_deviation"] for row in results}
    print(
        table(
            ["draws", *KINDS],
            [[str(count), *(f"{found[count, kind]:.3g}" for kind in KINDS)] for count in options.draws],
        )
    )
    if options.figure is not None:
        draw(found, options.draws, options.figure)
    outcome = {
        "policy": "tiny preset, random weights" if options.policy is None else options.policy.name,
        "reference": "before a random change" if options.reference is None else options.reference.name,
        "pairs": options.pairs,
        "repeats": options.repeats,
        "beta": BETA,
        "results": results,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


def draw(found: dict[tuple[int, str], float], counts: list[int], file: Path) -> None:
    """Standard deviation against the number of draws, one line per kind."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axis = figure.subplots()
    for kind in KINDS:
        axis.plot(counts, [found[count, kind] for count in counts], marker="o", label=kind)
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("draws of noise and time per pair")
    axis.set_ylabel("standard deviation of the margin")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
