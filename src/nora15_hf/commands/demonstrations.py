# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Records the scripted experts of a simulator as a LeRobot v3.0 dataset, with all cameras and the state of the simulator. The
recorded action is the expert's intention; the executed action is disturbed, so that the data show how to recover.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import option_types
from .environment_arguments import EnvironmentArguments
from .library_defaults import library_defaults

DEFAULTS = library_defaults("evaluation/demonstrations.py", "record_demonstrations")


@dataclass(kw_only=True)
class DemonstrationsArguments(EnvironmentArguments):
    """What [`~nora15_hf.evaluation.demonstrations.record_demonstrations`] needs, and where it happens."""

    output: Path = field(
        metadata={"parse": option_types.new_folder, "help": "folder for the dataset, absent or empty"}
    )
    environment: str = field(
        metadata={"parse": option_types.environment, "help": "a simulator with scripted experts: metaworld, libero"}
    )
    episodes: int = field(
        default=25, metadata={"parse": option_types.positive, "help": "successful episodes of each task"}
    )
    first_seed: int = field(
        default=DEFAULTS["first_seed"],
        metadata={
            "parse": option_types.seed,
            "help": "seed of the first episode of each task; those from 10000 on are for evaluation",
        },
    )
    noise_std: float = field(
        default=DEFAULTS["noise_std"],
        metadata={
            "parse": option_types.non_negative_number,
            "help": "standard deviation of the disturbance of the hand's actions, action units",
        },
    )
    burst_probability: float = field(
        default=DEFAULTS["burst_probability"],
        metadata={
            "parse": option_types.non_negative_number,
            "help": "probability per step that a disturbance in one direction begins",
        },
    )
    workers: int | None = field(
        default=None,
        metadata={"parse": option_types.positive, "help": "simulator processes (default: one per CPU)"},
    )


ARGUMENTS = (DemonstrationsArguments,)


def run(options: DemonstrationsArguments) -> int:
    from ..data.lerobot_dataset import LeRobotDataset
    from ..evaluation.demonstrations import RECORDING, FailingExpertError, record_demonstrations
    from ..evaluation.environment_choice import environment_settings
    from ..simulation.environment_table import find_environment
    from ..simulation.simulation_pool import LostEnvironmentError, SimulationPool

    tasks = options.selected_tasks(options.environment)
    settings = environment_settings(find_environment(options.environment), tasks, options.settings(), recorded={})
    # Recording uses no slots: with one for each process, a worker keeps no more than one unused environment.
    num_workers = options.workers or os.cpu_count()
    with SimulationPool(options.environment, num_workers=num_workers, num_slots=num_workers, **settings) as pool:
        try:
            record_demonstrations(
                options.output,
                tasks or list(pool.spec.tasks),
                options.episodes,
                pool=pool,
                first_seed=options.first_seed,
                noise_std=options.noise_std,
                burst_probability=options.burst_probability,
            )
        except (FailingExpertError, LostEnvironmentError) as error:
            print(
                f"nora15 demonstrations: {error}\nThe recording in {options.output} is not complete and cannot be read; remove it "
                "before the command is called again.",
                file=sys.stderr,
            )
            return 1
    dataset = LeRobotDataset(options.output, chunk_size=1)
    print(f"{dataset.num_episodes} episodes, {len(dataset)} frames in {options.output}")
    for task, seeds in dataset.conventions[RECORDING]["failed_seeds"].items():
        if seeds:
            print(
                f"{task}: the expert failed {len(seeds)} times (seeds {', '.join(map(str, seeds))}), which are not included"
            )
    return 0


__all__ = ["ARGUMENTS", "DemonstrationsArguments", "run"]
