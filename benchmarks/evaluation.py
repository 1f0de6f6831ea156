# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Closed-loop evaluation: episodes per minute of `nora15 evaluate`'s loop against a plain loop over one environment.

    python benchmarks/evaluation.py --policy outputs/quickstart/policy-sft

Both run the same episodes with the same noise, which end after the same number of steps but for rounding. The plain loop looks, predicts one
chunk, executes it and looks again, in one process, as evaluation scripts do; its environments are built once per task. This
package's loop has several simulator processes and one call of the policy for all episodes. They take turns, in rounds.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import torch

from harness import add_threads_argument, save_results, set_threads, table, time_contestants
from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.evaluation.episodes import Episode
from nora15_hf.evaluation.rollout import rollout
from nora15_hf.evaluation.throughput import Throughput
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.quickstart.config import DEFAULT_TASKS
from nora15_hf.simulation.environment import FIRST_EVALUATION_SEED, Environment
from nora15_hf.simulation.environment_table import find_environment, import_environment
from nora15_hf.simulation.simulation_pool import SimulationPool


def plain_loop(
    policy: Nora15ChunkPolicy, episodes: Sequence[Episode], environments: dict[str, Environment], n_action_steps: int
) -> list[int]:
    """Steps of every episode, one after the other."""
    steps = []
    for episode in episodes:
        env, look = environments[episode.task], 0
        env.reset(episode.seed)
        while not (env.success or env.done):
            [chunk] = policy([env.observation()], [(episode.seed, look)])
            for action in chunk[:n_action_steps]:
                if not (env.success or env.done):
                    env.step(action)
            look += 1
        steps.append(env.num_steps)
    return steps


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="folder of a policy; default: the tiny one with random weights")
    parser.add_argument("--tasks", nargs="+", default=list(DEFAULT_TASKS), help="Meta-World tasks")
    parser.add_argument("--episodes", type=int, default=10, help="per task and round (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default 3)")
    parser.add_argument("--workers", type=int, help="simulator processes; default: one per core")
    parser.add_argument("--slots", type=int, default=16, help="episodes side by side (default 16)")
    parser.add_argument("--max-steps", type=int, default=150, help="of an episode (default 150)")
    add_threads_argument(parser)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    set_threads(options.threads)

    settings = {"renderer": "raycast", "max_steps": options.max_steps}
    entry = find_environment("metaworld")
    if options.policy is None:
        model, processor = tiny_policy(tuple(entry.tasks[task].instruction for task in options.tasks), seed=0)
    else:
        model = Nora15ForActionPrediction.from_pretrained(options.policy, dtype=torch.float32)
        processor = Nora15Processor.from_pretrained(options.policy)
    policy = Nora15ChunkPolicy(model, processor)
    n_action_steps = model.config.chunk_size
    episodes = [
        Episode(task, FIRST_EVALUATION_SEED + number) for task in options.tasks for number in range(options.episodes)
    ]
    environments = {task: import_environment(entry.environment)(task, **settings) for task in options.tasks}
    steps: dict[str, list[int]] = {}
    throughput = Throughput()
    with SimulationPool("metaworld", num_workers=options.workers, num_slots=options.slots, **settings) as pool:

        def run_plain():
            steps["plain loop"] = plain_loop(policy, episodes, environments, n_action_steps)

        def run_ours():
            nonlocal throughput
            throughput = Throughput()
            results = rollout(
                policy, episodes, pool, n_action_steps=n_action_steps, throughput=throughput, progress=False
            )
            steps["nora15 evaluate"] = [result.num_steps for result in results]

        timings = time_contestants({"plain loop": run_plain, "nora15 evaluate": run_ours}, options.rounds)
    same = sum(one == other for one, other in zip(*steps.values(), strict=True))
    per_minute = {name: 60 * len(episodes) / timing.median for name, timing in timings.items()}
    ratio = per_minute["nora15 evaluate"] / per_minute["plain loop"]
    rows = [
        [name, f"{timings[name].median:.1f}", f"{figure:.1f}", f"{figure / per_minute['plain loop']:.2f}x"]
        for name, figure in per_minute.items()
    ]
    print(table([f"{len(episodes)} episodes", "seconds", "episodes per minute", "speed-up"], rows))
    print(f"\n{throughput.describe()}\n{same} of {len(episodes)} episodes ended after the same number of steps.")
    # A batch rounds otherwise than a single observation, and now and then that is seen.
    if same < 0.9 * len(episodes):
        raise RuntimeError("The two loops do not run the same episodes: there is nothing to compare.")
    outcome = {
        "policy": None if options.policy is None else options.policy.name,
        "episodes": len(episodes),
        "slots": options.slots,
        "simulator_processes": throughput.num_workers,
        "episodes_per_minute": per_minute,
        "speed_up": ratio,
        "policy_utilization": throughput.policy_utilization,
        "simulator_utilization": throughput.simulator_utilization,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
