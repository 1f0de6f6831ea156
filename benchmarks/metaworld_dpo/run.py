# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Trains and evaluates arms of the preference-tuning study on Meta-World, and compares them with both controls.

    python benchmarks/metaworld_dpo/run.py --seeds 7 --arms dpo-equal-say

The base of a training seed (policy, world model, candidates and their scores) is made first, then the arms, on `--jobs`
processes of one thread each. What is finished is kept: the same command continues. Raw results, one parquet file per seed and
arm, lie in `results` of the output folder; `report.py --results` makes tables and plots of them.
"""

import os
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from analysis import paired_difference
from base import make_base, recorded_demonstrations
from nora15_hf.runtime.cpu_threads import choose_threads
from nora15_hf.runtime.progress import PlainProgress
from raw_results import RawResults
from study import CONTROLS, STUDIES, Study
from train_arm import run_arm


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--study", choices=sorted(STUDIES), default="final", help="whose arms and episodes (default final)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="training seeds; default: those of the study")
    parser.add_argument("--arms", nargs="+", help="default: all of the study; both controls always run")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes of one thread each (default: one per core)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/metaworld-dpo"), help="folder (default %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, help="folder of the raw results; default: results in the output folder"
    )
    options = parser.parse_args(arguments)
    study = STUDIES[options.study]
    seeds = options.seeds or list(study.seeds)
    unknown = sorted(set(options.arms or ()) - set(study.arms))
    if unknown:
        parser.error(f"--arms names {', '.join(unknown)}; the arms of {options.study!r} are {', '.join(study.arms)}.")
    controls = [arm for arm in CONTROLS if arm in study.arms]
    arms = list(dict.fromkeys([*controls, *(options.arms or study.arms)]))
    results = RawResults(options.results or options.output / "results")

    print(f"{len(arms)} arms on {len(seeds)} training seeds, {options.jobs} processes of one thread", flush=True)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), _begin_worker, (options.output,)) as executor:
        executor.submit(recorded_demonstrations, study.base, options.output / study.name).result()
        states = {study.arms[arm].needed_states for arm in arms} - {None}
        bases = {f"base of seed {seed}": (make_base, study, seed, states, options.output, results) for seed in seeds}
        _run_all(executor, bases)
        jobs = {
            f"seed {seed} {arm}": (run_arm, study, seed, arm, options.output, results)
            for arm in arms
            for seed in seeds
        }
        _run_all(executor, jobs)
    _print_differences(study, results, arms, controls, seeds)


def _begin_worker(output: Path) -> None:
    """One thread, and messages into a file of their own."""
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    sys.stdout = sys.stderr = PlainProgress((logs / f"{os.getpid()}.txt").open("a", buffering=1))
    choose_threads(1)


def _run_all(executor: ProcessPoolExecutor, jobs: dict[str, tuple]) -> None:
    """Runs jobs side by side, and tells of each that ends; the first failure ends all."""
    began = time.monotonic()
    names: dict[Future, str] = {executor.submit(*job): name for name, job in jobs.items()}
    for done, (name, outcome) in enumerate(_as_they_end(names), 1):
        minutes = (time.monotonic() - began) / 60
        print(f"[{done}/{len(jobs)}, {minutes:.1f} min] {name}: {outcome}", flush=True)


def _as_they_end(names: dict[Future, str]) -> Iterator[tuple[str, str]]:
    pending = set(names)
    while pending:
        ended, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in ended:
            if future.exception() is not None:
                for each in pending:
                    each.cancel()
            yield names[future], future.result()


def _print_differences(
    study: Study, results: RawResults, arms: Sequence[str], controls: Sequence[str], seeds: Sequence[int]
) -> None:
    episodes = results.read_episodes(study.name)
    for arm in arms:
        for control in controls:
            if arm not in controls:
                print(f"{arm} against {control}: {paired_difference(episodes, arm, control, seeds=seeds).text()}")


if __name__ == "__main__":
    main()
