# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Closed-loop success with fewer velocity evaluations: every solver on the same Meta-World episodes as 10 Euler steps.

    python benchmarks/solver_success.py --policy outputs/quickstart/policy-sft --output outputs/benchmarks/success.json

Episodes are paired: the noise of a chunk depends on the episode's seed and the number of the replan alone. Printed are
Wilson 95 % intervals and McNemar's exact test against the first arm. `solvers.py` tells how far the actions are apart.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch

from harness import add_threads_argument, save_results, set_threads, table
from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.evaluation.evaluate import evaluate_policy
from nora15_hf.evaluation.success import SuccessTable, compare_paired
from nora15_hf.quickstart.config import DEFAULT_TASKS
from nora15_hf.simulation.simulation_pool import SimulationPool
from solvers import SOLVERS

ARMS = ("Euler:10", "Euler:5", "Euler:3", "Euler:2", "DPM-Solver++:5", "DPM-Solver++:3", "UniPC:5", "UniPC:3")


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="folder of a policy trained on the tasks")
    parser.add_argument("--tasks", nargs="+", default=list(DEFAULT_TASKS), help="Meta-World tasks")
    parser.add_argument("--episodes", type=int, default=50, help="episodes per task (default 50)")
    parser.add_argument("--first-seed", type=int, default=20_000, help="of the episodes (default 20000)")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="solver:steps; the first is compared with")
    parser.add_argument("--workers", type=int, help="simulator processes; default: one per core")
    add_threads_argument(parser)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    model = Nora15ForActionPrediction.from_pretrained(options.policy, dtype=torch.float32)
    processor = Nora15Processor.from_pretrained(options.policy)
    outcomes = {}
    with SimulationPool(
        "metaworld", num_workers=options.workers, image_size=processor.image_size, renderer="raycast"
    ) as pool:
        for task in options.tasks:
            pool.spec.task(task)
        for arm in options.arms:
            solver, _, steps = arm.partition(":")
            if solver not in SOLVERS or not steps.isdigit():
                raise ValueError(f"--arms {arm!r} is not solver:steps with a solver of {list(SOLVERS)}.")
            model.scheduler = SOLVERS[solver]
            model.config.num_inference_steps = int(steps)
            outcomes[arm] = evaluate_policy(
                Nora15ChunkPolicy(model, processor),
                options.tasks,
                pool,
                episodes_per_task=options.episodes,
                first_seed=options.first_seed,
            )
    rows, results = [], {}
    reference = outcomes[options.arms[0]]
    for arm, episodes in outcomes.items():
        count, paired = SuccessTable.from_results(episodes).total, compare_paired(reference, episodes)
        low, high = count.interval
        results[arm] = {**SuccessTable.from_results(episodes).to_dict(), "paired": paired.to_dict()}
        rows.append(
            [
                arm,
                f"{count.successes}/{count.n}",
                f"{low:.1%} to {high:.1%}",
                f"{paired.only_first} / {paired.only_second}",
                f"{paired.p_value:.2f}",
            ]
        )
    print(table(["solver:steps", "success", "95 % interval", "lost / won", "McNemar p"], rows))
    outcome = {"policy": options.policy.name, "first_seed": options.first_seed, "results": results}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
