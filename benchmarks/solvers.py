# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How far each diffusers flow solver is from the exact flow, for every number of velocity evaluations.

    python benchmarks/solvers.py --policy outputs/quickstart/policy-sft --dataset outputs/quickstart/demonstrations

All solvers start from the same noise and the same encoded prefix; the reference is Euler with 200 steps. Errors are in
normalised units, in which actions span about [-1, 1].
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from harness import add_threads_argument, save_results, set_threads, table
from nora15_hf.nora15.flow_schedulers import set_flow_timesteps
from observed_policy import add_policy_arguments, describe, load_policy, observe

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
SOLVERS = {
    "Euler": FlowMatchEulerDiscreteScheduler(shift=1.0),
    "Heun": FlowMatchHeunDiscreteScheduler(shift=1.0),
    "DPM-Solver++": DPMSolverMultistepScheduler(**FLOW),
    "UniPC": UniPCMultistepScheduler(**FLOW),
}
REFERENCE_STEPS = 200


def steps_for(name: str, evaluations: int) -> int | None:
    """Solver steps that cost exactly that many evaluations; None where there are none."""
    if name != "Heun":
        return evaluations
    # Two evaluations in every step but the last.
    return (evaluations + 1) // 2 if evaluations % 2 else None


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add_policy_arguments(parser)
    parser.add_argument(
        "--evaluations",
        type=int,
        nargs="+",
        default=[1, 2, 3, 4, 5, 7, 10, 15, 21, 31],
        help="numbers of velocity evaluations; Heun takes the odd ones",
    )
    add_threads_argument(parser)
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    model, processor = load_policy(options)
    with torch.no_grad():
        prefix = model.encode_prefix(**observe(options, processor))
    shape = (options.observations, model.config.chunk_size, model.config.action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model.scheduler = SOLVERS["Euler"]
    reference = model.sample_actions(prefix=prefix, noise=noise, num_steps=REFERENCE_STEPS)
    finer = model.sample_actions(prefix=prefix, noise=noise, num_steps=2 * REFERENCE_STEPS)
    # Euler's error halves with the step: half of it lies between the two.
    reference_error = 2 * (reference - finer).abs().mean().item()

    results = []
    for name, scheduler in SOLVERS.items():
        model.scheduler = scheduler
        for evaluations in options.evaluations:
            num_steps = steps_for(name, evaluations)
            if num_steps is None:
                continue
            spent = len(set_flow_timesteps(scheduler, num_steps))
            if spent != evaluations:
                raise RuntimeError(f"{name} spends {spent} evaluations on {num_steps} steps, not {evaluations}.")
            error = (model.sample_actions(prefix=prefix, noise=noise, num_steps=num_steps) - reference).abs()
            results.append(
                {
                    "solver": name,
                    "evaluations": evaluations,
                    "steps": num_steps,
                    "mean_abs_error": error.mean().item(),
                    "max_abs_error": error.max().item(),
                }
            )

    errors = {(result["solver"], result["evaluations"]): result["mean_abs_error"] for result in results}
    rows = [
        [str(count), *(f"{errors[name, count]:.5f}" if (name, count) in errors else "-" for name in SOLVERS)]
        for count in options.evaluations
    ]
    print(table(["evaluations", *SOLVERS], rows))
    print(f"\nMean absolute error; the reference itself is off by about {reference_error:.5f}.")
    outcome = {
        **describe(options),
        "reference_steps": REFERENCE_STEPS,
        "reference_error": reference_error,
        "results": results,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
