# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How often an environment's scripted experts succeed, task by task, and in how many steps: what demonstrations and a policy
that imitates them can reach.

    python benchmarks/expert_success.py --suite MT50 --episodes 100 --settings '{"max_steps": 500, "image_size": 16}'
"""

import json
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np

from harness import save_results, table
from nora15_hf.evaluation.success import SuccessCount
from nora15_hf.simulation.environment import FIRST_EVALUATION_SEED
from nora15_hf.simulation.environment_table import ENVIRONMENTS, find_environment
from nora15_hf.simulation.simulation_pool import SimulationPool


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--environment", choices=list(ENVIRONMENTS), default="metaworld")
    parser.add_argument("--suite", nargs="*", default=[], help="suites of tasks; default: all tasks")
    parser.add_argument("--tasks", nargs="*", default=[], help="single tasks")
    parser.add_argument("--episodes", type=int, default=20, help="per task (default 20)")
    parser.add_argument("--workers", type=int, help="simulator processes; default: one per core")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the environment, as JSON")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    rows, results = [], {}
    tasks = find_environment(options.environment).select_tasks(options.tasks, options.suite)
    workers = {"num_workers": options.workers, "num_slots": options.workers or os.cpu_count()}
    with SimulationPool(options.environment, **workers, **options.settings) as pool:
        for task in tasks:
            episodes = []
            for first in range(0, options.episodes, pool.num_slots):
                slots = range(min(pool.num_slots, options.episodes - first))
                pool.start([(slot, task, FIRST_EVALUATION_SEED + first + slot) for slot in slots])
                episodes += pool.finish_with_expert(slots)
            steps = [num_steps for success, num_steps in episodes if success] or [0]
            count = SuccessCount(sum(success for success, _ in episodes), len(episodes))
            low, high = count.interval
            results[task] = count.to_dict() | {"mean_steps": np.mean(steps), "max_steps": max(steps)}
            rows.append(
                [
                    task,
                    pool.spec.task(task).instruction,
                    f"{count.rate:.0%} ({low:.0%} to {high:.0%})",
                    f"{np.mean(steps):.0f}",
                    f"{max(steps)}",
                ]
            )
    print(table(["task", "instruction", "expert (95 % interval)", "steps, mean", "most"], rows))
    if options.output is not None:
        save_results(options.output, results)
    return results


if __name__ == "__main__":
    main()
