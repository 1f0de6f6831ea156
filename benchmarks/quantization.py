# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Memory of the policy and error of its actions with the backbone in 8 and 4 bits, against float32.

    python benchmarks/quantization.py --policy outputs/quickstart/policy-sft --dataset outputs/quickstart/demonstrations

Same observations, same noise, the checkpoint's own scheduler. Errors are in normalised units, in which actions span
about [-1, 1].
"""

import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch
from transformers import BitsAndBytesConfig

from harness import add_threads_argument, save_results, set_threads, table
from nora15_hf import Nora15ForActionPrediction
from observed_policy import add_policy_arguments, describe, load_policy, observe

PRECISIONS = {
    "8 bits": {"load_in_8bit": True},
    "4 bits, fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "4 bits, nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "4 bits, nf4, double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_policy_arguments(parser)
    add_threads_argument(parser)
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    model, processor = load_policy(options)
    inputs = observe(options, processor)
    shape = (options.observations, model.config.chunk_size, model.config.action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = model.sample_actions(**inputs, noise=noise)
    results = [{"backbone": "float32", "bytes": model.get_memory_footprint(), "mean_abs_error": 0, "max_abs_error": 0}]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for name, settings in PRECISIONS.items():
            quantized = Nora15ForActionPrediction.from_pretrained(
                folder, quantization_config=BitsAndBytesConfig(**settings)
            )
            size = quantized.get_memory_footprint()
            error = (quantized.sample_actions(**inputs, noise=noise) - exact).abs()
            results.append(
                {
                    "backbone": name,
                    "bytes": size,
                    "mean_abs_error": error.mean().item(),
                    "max_abs_error": error.max().item(),
                }
            )

    rows = [
        [
            result["backbone"],
            f"{result['bytes'] / 1e6:.2f}",
            f"{result['mean_abs_error']:.4f}",
            f"{result['max_abs_error']:.4f}",
        ]
        for result in results
    ]
    print(table(["backbone", "MB", "mean error", "max error"], rows))
    outcome = {**describe(options), "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
