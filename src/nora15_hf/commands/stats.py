# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Computes exact quantiles, means and ranges from the dataset's rows, without its images, prints them and writes them in the
layout of a processor's norm_stats.json.
"""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .library_defaults import library_defaults

DEFAULTS = library_defaults("data/statistics_table.py", "dataset_statistics")


def _flags(text: str) -> list[bool]:
    flags = [part.strip() for part in text.split(",")]
    if set(flags) - {"0", "1"}:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of 0 and 1, for example 1,1,1,0")
    return [flag == "1" for flag in flags]


@dataclass
class StatsArguments:
    """What [`~nora15_hf.data.statistics_table.dataset_statistics`] needs, whose arguments have the same names."""

    dataset: str = field(metadata={"positional": True, "help": "LeRobot dataset: Hub id or folder"})
    output: Path | None = field(default=None, metadata={"metavar": "FILE", "help": "JSON file to write"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of the dataset's repo"})
    action_key: str | None = field(default=None, metadata={"help": "feature that holds the action (default: action)"})
    state_key: str | None = field(
        default=None, metadata={"help": "feature that holds the state (default: observation.state)"}
    )
    dataset_key: str | None = field(
        default=None, metadata={"help": "key in the file (default: last part of the dataset's name)"}
    )
    action_mask: list[bool] | None = field(
        default=None,
        metadata={
            "parse": _flags,
            "metavar": "FLAGS",
            "help": "1 for normalised dimensions, 0 for others: 1,1,1,0",
        },
    )
    delta_mask: list[bool] | None = field(
        default=None,
        metadata={
            "parse": _flags,
            "metavar": "FLAGS",
            "help": "1 where actions are trained as differences from the state",
        },
    )
    angle_mask: list[bool] | None = field(
        default=None,
        metadata={
            "parse": _flags,
            "metavar": "FLAGS",
            "help": "1 where such a difference is one of angles in radians",
        },
    )
    chunk_size: int = field(default=DEFAULTS["chunk_size"], metadata={"help": "actions per chunk, for differences"})
    range_floor: float | None = field(
        default=None,
        metadata={
            "metavar": "X",
            "help": "least range of a normalised dimension, in the dataset's units, for those that hardly vary",
        },
    )
    sample_episodes: int | None = field(
        default=None, metadata={"metavar": "N", "help": "use only N episodes, drawn at random"}
    )
    seed: int = field(default=DEFAULTS["seed"], metadata={"help": "of that draw"})
    skip_bad_episodes: bool = field(
        default=DEFAULTS["skip_bad_episodes"],
        metadata={"flag": True, "help": "leave out and count inconsistent episodes instead of stopping"},
    )


ARGUMENTS = (StatsArguments,)


def run(options: StatsArguments) -> None:
    from ..data.statistics_table import dataset_statistics

    settings = {name: value for name, value in asdict(options).items() if name != "state_key" or value is not None}
    print(dataset_statistics(settings.pop("dataset"), settings.pop("output"), **settings))


__all__ = ["ARGUMENTS", "StatsArguments", "run"]
