# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
How often the tests that the study could have used report an effect in simulated studies, where there is none and where there is one.

    python benchmarks/metaworld_dpo/simulated_studies.py

Prints the tables of the analysis plan in docs/evidence.md.
"""

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import ttest_1samp
from tqdm.auto import trange

from analysis import OutcomeCells, PairedDifference

TASKS = 8
CHANGED = 0.3
"""Share of the episodes that end differently with the arm than with the control."""
LEVEL = 0.05
DEVIATIONS = (0.0, 0.02, 0.05, 0.1)
"""Standard deviations between training seeds of studies without an effect."""
DEVIATION, EFFECTS, DESIGNS = 0.03, (0.05, 0.08), ((5, 50), (10, 25))
"""Of studies with an effect: deviation, effects, and pairs of training seeds and episodes per task."""


def simulated_study(
    generator: np.random.Generator, *, effect: float, between: float, seeds: int, episodes: int, tasks: int = TASKS
) -> OutcomeCells:
    """
    Differences of an arm to a control on the same episodes.

    Args:
        generator (`np.random.Generator`): Of the study.
        effect (`float`), between (`float`): Mean and standard deviation over training seeds of the true difference, in [0, 1].
        seeds (`int`), episodes (`int`): Training seeds, and episodes of each task.
        tasks (`int`, *optional*, defaults to 8): How many.
    """
    of_seed = effect + between * generator.standard_normal(seeds)[:, None]
    changed = generator.binomial(episodes, np.full((seeds, tasks), CHANGED))
    won = generator.binomial(changed, np.clip((1 + of_seed / CHANGED) / 2, 0, 1))
    names = [f"task {number}" for number in range(tasks)]
    return OutcomeCells(list(range(seeds)), names, won, changed - won, np.full((seeds, tasks), episodes))


def primary(cells: OutcomeCells) -> bool:
    """Whether the study's own test reports an effect."""
    return PairedDifference.of("arm", "control", cells, resamples=1).p_value < LEVEL


def bootstrap(cells: OutcomeCells) -> bool:
    """Whether the percentile interval of the hierarchical bootstrap excludes zero."""
    low, high = PairedDifference.of("arm", "control", cells, resamples=1000).bootstrap_interval
    return low > 0 or high < 0


def over_cells(cells: OutcomeCells) -> bool:
    """Whether Student's *t* over seed x task cells reports an effect."""
    return ttest_1samp(cells.means.ravel(), 0).pvalue < LEVEL


def share_found(test: Callable[[OutcomeCells], bool], studies: int, **study: float) -> float:
    """Share of simulated studies in which a test reports an effect."""
    generator = np.random.default_rng(0)
    told = ", ".join(f"{name} {value:g}" for name, value in study.items())
    numbers = trange(studies, desc=f"{test.__name__}: {told}", leave=False)
    return sum(test(simulated_study(generator, **study)) for _ in numbers) / studies


def main(arguments: Sequence[str] | None = None) -> None:
    def positive(text: str) -> int:
        if int(text) < 1:
            raise ArgumentTypeError(f"{text} must be at least 1.")
        return int(text)

    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=positive, default=20_000, help="of the primary test (default %(default)s)")
    parser.add_argument(
        "--other-studies", type=positive, default=2_000, help="of the other tests (default %(default)s)"
    )
    options = parser.parse_args(arguments)

    print("| test, no effect | " + " | ".join(f"{100 * each:g} points" for each in DEVIATIONS) + " |")
    print("| --- |" + " --- |" * len(DEVIATIONS))
    for test, studies in (
        (primary, options.studies),
        (bootstrap, options.other_studies),
        (over_cells, options.other_studies),
    ):
        shares = [share_found(test, studies, effect=0, between=each, seeds=5, episodes=50) for each in DEVIATIONS]
        print(f"| {test.__name__} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True)
    print(f"\n| primary test, {100 * DEVIATION:g} points between seeds | ", end="")
    print(" | ".join(f"effect of {100 * each:g} points" for each in EFFECTS) + " |")
    print("| --- |" + " --- |" * len(EFFECTS))
    for seeds, episodes in DESIGNS:
        shares = [
            share_found(primary, options.studies, effect=each, between=DEVIATION, seeds=seeds, episodes=episodes)
            for each in EFFECTS
        ]
        print(
            f"| {seeds} seeds of {TASKS * episodes} episodes | " + " | ".join(f"{each:.0%}" for each in shares) + " |"
        )


if __name__ == "__main__":
    main()
