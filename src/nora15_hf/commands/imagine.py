# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Uses a world model to imagine episodes of a dataset, by default those that were held out from its training, and writes film
strips of the nearest frames, distance against action noise and how often the demonstrated actions are ranked first: PNG
files, one self-contained index.html, and imagine.json.

    accelerate launch -m nora15_hf.commands.imagine --model outputs/world-model --dataset me/robot --output imagined
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
from . import option_types
from .execution import run_script
from .feature_arguments import FeatureArguments
from .library_defaults import library_defaults

DEFAULTS = library_defaults("imagine/imagine.py", "imagine")


@dataclass
class ImagineArguments(FeatureArguments):
    """What [`~nora15_hf.imagine.imagine`] needs."""

    model: str = field(
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "folder or repo of a world model with its clips.json",
        }
    )
    dataset: str = field(
        metadata={"parse": option_types.folder_or_hub_id, "help": "folder or repo of a LeRobot dataset"}
    )
    output: Path = field(metadata={"parse": option_types.output_folder, "help": "folder to write to"})
    episodes: list[int] | None = field(
        default=None,
        metadata={
            "parse": option_types.indices,
            "help": "comma-separated episode indices (default: those held out from training, or all episodes of another dataset)",
        },
    )
    strips: int = field(
        default=DEFAULTS["num_strips"],
        metadata={"parse": option_types.positive, "help": "episodes shown as film strips"},
    )
    steps: int = field(
        default=DEFAULTS["steps"],
        metadata={"parse": option_types.positive, "help": "frames to imagine, actions per ranked chunk"},
    )
    cases: int = field(
        default=DEFAULTS["num_cases"],
        metadata={"parse": option_types.positive, "help": "frames from which chunks are ranked"},
    )
    gallery: int = field(
        default=DEFAULTS["gallery_size"],
        metadata={
            "parse": option_types.positive,
            "help": "frames among which the nearest to an imagined one is searched",
        },
    )
    seed: int = field(
        default=DEFAULTS["seed"],
        metadata={"parse": option_types.seed, "help": "of frames, other chunks and noise"},
    )
    device: str | None = field(
        default=None, metadata={"help": "for example cpu or cuda:0 (default: a GPU if there is one)"}
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "parse": option_types.non_negative,
            "help": "processes that decode frames ahead (default: 4 for each process with a GPU, 0 on the CPU)",
        },
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("model",), "help": "branch, tag or commit of the model's repo"}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"revision_of": ("dataset",), "help": "branch, tag or commit of the dataset's repo"}
    )


ARGUMENTS = (ImagineArguments, ThreadArguments)


def run(options: ImagineArguments) -> None:
    from ..imagine import imagine
    from ..imagine.page import PAGE_FILE
    from ..runtime.shared_work import process_place

    place = process_place()
    result = imagine(
        options.model,
        options.dataset,
        options.output,
        revision=options.revision,
        dataset_revision=options.dataset_revision,
        episodes=options.episodes,
        num_strips=options.strips,
        steps=options.steps,
        gallery_size=options.gallery,
        num_cases=options.cases,
        seed=options.seed,
        device=options.device,
        place=place,
        dataloader_num_workers=options.dataloader_num_workers,
        **options.features(),
    )
    if place.is_main:
        print(result.summary())
        print(f"Look at {options.output / PAGE_FILE}")


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


__all__ = ["ARGUMENTS", "ImagineArguments", "main", "run"]

if __name__ == "__main__":
    main()
