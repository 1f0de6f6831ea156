# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Loads a policy and reports versions, weights, conventions, action statistics (compared with a dataset's), the range of its actions,
latency, and whether it uses its image and its instruction. The exit code is 1 if there are errors and 0 otherwise, even
with warnings.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
from . import option_types
from .feature_arguments import FeatureArguments
from .library_defaults import library_defaults
from .options_without_effect import refuse_without_effect

DEFAULTS = library_defaults("doctor/doctor.py", "examine_policy")


@dataclass
class DoctorArguments(FeatureArguments):
    """What [`~nora15_hf.doctor.examine_policy`] needs, and where its report goes."""

    repo: str = field(
        metadata={
            "positional": True,
            "parse": option_types.folder_or_hub_id,
            "help": "the policy: Hub id or folder",
        }
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "LeRobot dataset to compare with and to take observations from",
        },
    )
    device: str | None = field(
        default=None, metadata={"help": "for example cpu or cuda:0 (default: a GPU if there is one)"}
    )
    dataset_key: str | None = field(
        default=None, metadata={"help": "which of the checkpoint's statistics; needed when there are several"}
    )
    samples: int = field(
        default=DEFAULTS["samples"],
        metadata={"parse": option_types.positive, "help": "observations to try the policy on"},
    )
    num_steps: int | None = field(
        default=None, metadata={"parse": option_types.positive, "help": "solver steps (default: the policy's)"}
    )
    revision: str | None = field(
        default=None, metadata={"revision_of": ("repo",), "help": "branch, tag or commit of the policy's repo"}
    )
    json: Path | None = field(
        default=None,
        metadata={"parse": option_types.output_file, "metavar": "FILE", "help": "also write the report as JSON"},
    )

    def __post_init__(self):
        used = self.dataset is not None, "without --dataset"
        refuse_without_effect(self, dict.fromkeys((each.name for each in fields(FeatureArguments)), used))


ARGUMENTS = (DoctorArguments, ThreadArguments)


def run(options: DoctorArguments) -> int:
    from ..doctor import examine_policy

    report = examine_policy(
        options.repo,
        options.dataset,
        device=options.device,
        dataset_key=options.dataset_key,
        samples=options.samples,
        num_steps=options.num_steps,
        revision=options.revision,
        **options.features(),
    )
    print(report.to_text())
    if options.json is not None:
        report.write_json(options.json)
    return 1 if report.errors else 0


__all__ = ["ARGUMENTS", "DoctorArguments", "run"]
