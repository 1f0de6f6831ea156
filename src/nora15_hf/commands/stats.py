# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Computes exact quantiles, means and ranges from the rows of a dataset, without its images, prints them and writes them in the
layout of a processor's norm_stats.json.
"""

from dataclasses import dataclass, field
from pathlib import Path

from . import option_types
from .feature_arguments import VectorFeatureArguments
from .library_defaults import library_defaults
from .options_without_effect import refuse_without_effect

DEFAULTS = library_defaults("data/statistics_table.py", "dataset_statistics")


@dataclass
class StatsArguments(VectorFeatureArguments):
    """What [`~nora15_hf.data.statistics_table.dataset_statistics`] needs, whose arguments have the same names."""

    dataset: str = field(
        metadata={
            "positional": True,
            "parse": option_types.folder_or_hub_id,
            "help": "LeRobot dataset: Hub id or folder",
        }
    )
    output: Path | None = field(
        default=None,
        metadata={"parse": option_types.output_file, "metavar": "FILE", "help": "JSON file to write"},
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("dataset",), "help": "branch, tag or commit of the dataset's repo"}
    )
    dataset_key: str | None = field(
        default=None, metadata={"help": "key in the file (default: last part of the dataset's name)"}
    )
    action_mask: list[bool] | None = field(
        default=None,
        metadata={
            "parse": option_types.flags,
            "metavar": "FLAGS",
            "help": "1 for normalised dimensions, 0 for others: 1,1,1,0",
        },
    )
    delta_mask: list[bool] | None = field(
        default=None,
        metadata={
            "parse": option_types.flags,
            "metavar": "FLAGS",
            "help": "1 where actions are trained as differences from the state",
        },
    )
    angle_mask: list[bool] | None = field(
        default=None,
        metadata={
            "parse": option_types.flags,
            "metavar": "FLAGS",
            "help": "1 where such a difference is one between angles in radians",
        },
    )
    chunk_size: int = field(
        default=DEFAULTS["chunk_size"],
        metadata={"parse": option_types.positive, "help": "actions per chunk, for differences"},
    )
    range_floor: float | None = field(
        default=None,
        metadata={
            "parse": option_types.positive_number,
            "metavar": "X",
            "help": "smallest range of a normalised dimension, in the dataset's units, for dimensions that hardly vary",
        },
    )
    sample_episodes: int | None = field(
        default=None,
        metadata={
            "parse": option_types.positive,
            "metavar": "N",
            "help": "use only N episodes, drawn at random",
        },
    )
    seed: int = field(default=DEFAULTS["seed"], metadata={"parse": option_types.seed, "help": "of that draw"})
    skip_bad_episodes: bool = field(
        default=DEFAULTS["skip_bad_episodes"],
        metadata={"flag": True, "help": "leave out and count inconsistent episodes instead of stopping"},
    )

    def __post_init__(self):
        refuse_without_effect(
            self,
            {
                "chunk_size": (self.delta_mask is not None, "without --delta_mask"),
                "seed": (self.sample_episodes is not None, "without --sample_episodes"),
            },
        )


ARGUMENTS = (StatsArguments,)


def run(options: StatsArguments) -> None:
    from ..data.statistics_table import dataset_statistics

    others = {"dataset", "output", "action_key", "state_key"}
    settings = {name: value for name, value in vars(options).items() if name not in others}
    table = dataset_statistics(options.dataset, **settings, **options.features())
    print(table)
    if options.output is not None:
        table.save(options.output)
        print(f"\nwritten to {options.output}")


__all__ = ["ARGUMENTS", "StatsArguments", "run"]
