# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Results of an evaluation with every setting that affects them: as files, as text, for a card, and compared with others."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..cards.card_info import Evaluation
from ..cards.card_settings import setting_text
from ..repo_files.fingerprint import digest
from ..repo_files.json_files import write_json
from ..repo_files.settings import differing_settings, flat_settings
from ..repo_files.written_whole import written_whole
from .episodes import EpisodeResult, Failure
from .success import PairedComparison, SuccessTable, compare_paired

RESULTS_FILE = "results.json"
EPISODES_FILE = "episodes.parquet"
COMPARISON_FILE = "comparison.json"
SETTINGS_KEY = b"nora15_hf.evaluation"

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("seed", pa.int64()),
        ("instruction", pa.string()),
        ("success", pa.bool_()),
        ("num_steps", pa.int32()),
        ("num_looks", pa.int32()),
        ("failure", pa.string()),
        ("settings", pa.string()),
    ]
)


@dataclass(frozen=True)
class EvaluationResults:
    """
    Episodes of a policy in an environment.

    Attributes:
        settings (`Mapping[str, Any]`): everything that moves the numbers, as plain JSON values: `policy` (see
            [`policy_metadata`]), `environment` (name, title, conventions, packages) and `evaluation` (seeds, executed steps,
            slots, control).
        episodes (`list[EpisodeResult]`): task by task, without pictures where they were read from a file.
    """

    settings: Mapping[str, Any]
    episodes: Sequence[EpisodeResult]

    @cached_property
    def counted(self) -> list[EpisodeResult]:
        """Without those whose environment was lost."""
        return [episode for episode in self.episodes if episode.counts]

    @cached_property
    def lost(self) -> list[EpisodeResult]:
        """Episodes that could not be run."""
        return [episode for episode in self.episodes if not episode.counts]

    @cached_property
    def success(self) -> SuccessTable:
        """
        Raises:
            ValueError: no episode could be run.
        """
        return SuccessTable.from_results(self.counted)

    def to_dict(self) -> dict[str, Any]:
        """What `results.json` holds: settings, success with intervals, failures by reason, and the lost episodes."""
        failures: dict[str, Counter] = {}
        for episode in self.episodes:
            if episode.failure is not None:
                failures.setdefault(episode.task, Counter())[episode.failure.value] += 1
        return {
            "settings": dict(self.settings),
            "success": self.success.to_dict() if self.counted else None,
            "failures": {task: dict(reasons) for task, reasons in failures.items()},
            "lost": [{"task": episode.task, "seed": episode.seed} for episode in self.lost],
        }

    def save(self, folder: str | Path) -> None:
        """Writes `results.json`, and `episodes.parquet` with a row per episode and the settings in its metadata."""
        settings = json.dumps(self.settings, sort_keys=True)
        fingerprint = digest([settings.encode()], num_bytes=8)
        rows = [
            {name: vars(episode)[name] for name in ("task", "seed", "instruction", "num_steps", "num_looks")}
            | {
                "success": episode.success if episode.counts else None,
                "failure": None if episode.failure is None else episode.failure.value,
                "settings": fingerprint,
            }
            for episode in self.episodes
        ]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({SETTINGS_KEY: settings.encode()}))
        with written_whole(Path(folder) / EPISODES_FILE) as part:
            pq.write_table(table, part)
        write_json(Path(folder) / RESULTS_FILE, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "EvaluationResults":
        """
        Reads what [`~EvaluationResults.save`] wrote.

        Args:
            path (`str` or `Path`): The folder, or one of the two files.

        Raises:
            FileNotFoundError: There is no `episodes.parquet`.
            ValueError: It was not written by an evaluation.
        """
        path = Path(path)
        file = (path if path.is_dir() else path.parent) / EPISODES_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{path} holds no results of nora15 evaluate: {file} is missing.")
        try:
            table = pq.read_table(file)
            settings = json.loads(table.schema.metadata[SETTINGS_KEY])
            episodes = [
                EpisodeResult(
                    **{name: row[name] for name in ("task", "seed", "instruction", "num_steps", "num_looks")},
                    success=bool(row["success"]),
                    failure=None if row["failure"] is None else Failure(row["failure"]),
                )
                for row in table.to_pylist()
            ]
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} was not written by nora15 evaluate ({error}).") from error
        return cls(settings, episodes)

    def card_evaluation(self) -> Evaluation:
        """For the policy's card."""
        environment = self.settings["environment"]
        policy = self.settings["policy"]
        sampler = {name: policy[name] for name in ("decoder", "num_steps")}
        if policy["temperature"] is not None:
            sampler["temperature"] = policy["temperature"]
        conventions = flat_settings(environment["conventions"]) | flat_settings(self.settings["evaluation"])
        return Evaluation(
            environment=f"{environment['title']} {next(iter(environment['packages'].values()))}",
            environment_id=environment["name"],
            results={task: (count.successes, count.n) for task, count in self.success.tasks.items()},
            conventions=conventions | sampler,
        )

    def describe(self) -> str:
        """The table, with what has to be known to read it."""
        lines = []
        if self.counted:
            lines += [self.success.to_markdown(), ""]
            failures = Counter(str(episode.failure) for episode in self.counted if not episode.success)
            if failures:
                lines.append(f"Failures: {', '.join(f'{number} {reason}' for reason, number in failures.items())}.")
            if self.success.total.successes == 0:
                lines.append(
                    "No episode succeeded. Before you attribute this to the policy: `nora15 doctor` checks its weights and "
                    "statistics, and an inverted gripper sign, other statistics (--dataset-key) or a rotated camera also give "
                    "0 %. --record 1 shows what happens."
                )
        if self.lost:
            listed = ", ".join(f"{episode.task} seed {episode.seed}" for episode in self.lost[:5])
            lines.append(
                f"NOT RUN: {len(self.lost)} of {len(self.episodes)} episodes are not counted because their environment was lost: "
                f"{listed}{', ...' if len(self.lost) > 5 else ''}. --resume tries them again."
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class ResultsComparison:
    """
    Two evaluations episode by episode.

    Attributes:
        paired ([`PairedComparison`]): its first is the other, its second the evaluation at hand.
        differing (`dict[str, tuple]`): settings that differ, other and own.
        left_out (`int`): episodes that could not be run in one of them.
    """

    paired: PairedComparison
    differing: Mapping[str, tuple[Any, Any]]
    left_out: int

    def describe(self) -> str:
        """Some lines."""
        paired, (low, high) = self.paired, self.paired.interval
        differing = "; ".join(
            f"{name}: {setting_text(other)} there, {setting_text(own)} here"
            for name, (other, own) in self.differing.items()
        )
        return (
            f"Against the other results on the same episodes: {paired.only_second} won, {paired.only_first} lost, "
            f"{paired.both + paired.neither} alike; difference {paired.difference:+.1%} (95 % interval {low:+.1%} to "
            f"{high:+.1%}), exact McNemar p = {paired.p_value:.2g}."
            + (f" {self.left_out} episodes that were not run in one of them are excluded." if self.left_out else "")
            + f"\nDiffers in: {differing or 'nothing'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "paired": self.paired.to_dict(),
            "differing": {name: list(values) for name, values in self.differing.items()},
            "left_out": self.left_out,
        }


def check_comparable(
    settings: Mapping[str, Any], episodes: Collection[tuple[str, int]], other: EvaluationResults
) -> None:
    """
    Refuses other results that an evaluation cannot be compared with, before it is run.

    Args:
        settings (`Mapping[str, Any]`), episodes (`Collection[tuple[str, int]]`): Of the evaluation: task and seed of each.
        other ([`EvaluationResults`]): The other results.

    Raises:
        ValueError: Another environment or other settings of it, or other episodes.
    """
    found = differing_settings(other.settings["environment"], settings["environment"])
    if found:
        listed = "; ".join(f"{name}: {there!r} there, {here!r} here" for name, (there, here) in found.items())
        raise ValueError(
            f"The other results are of another environment ({listed}): episodes with the same seed are different there. "
            "Evaluate both policies with the same environment, protocol and settings."
        )
    unpaired = sorted(set(episodes) ^ {(episode.task, episode.seed) for episode in other.episodes})
    if unpaired:
        raise ValueError(
            f"The other results are of other episodes: {len(unpaired)} are only in one of them, for example {unpaired[:3]}. Evaluate "
            "the same tasks with the same --episodes and --first-seed."
        )


def compare_results(own: EvaluationResults, other: EvaluationResults) -> ResultsComparison:
    """
    Compares two evaluations that ran the same episodes in the same environment.

    Raises:
        ValueError: See [`check_comparable`]; or no episode was run in both.
    """
    check_comparable(own.settings, [(episode.task, episode.seed) for episode in own.episodes], other)
    lost = {(episode.task, episode.seed) for episode in (*own.lost, *other.lost)}
    first, second = (
        [episode for episode in results.counted if (episode.task, episode.seed) not in lost]
        for results in (other, own)
    )
    # What the policy was recorded with follows from what the policy is.
    differing = {
        name: values
        for name, values in differing_settings(other.settings, own.settings).items()
        if not name.startswith(("policy.contract.", "policy.conventions."))
    }
    return ResultsComparison(compare_paired(first, second), differing, len(lost))


__all__ = [
    "COMPARISON_FILE",
    "EPISODES_FILE",
    "RESULTS_FILE",
    "EvaluationResults",
    "ResultsComparison",
    "check_comparable",
    "compare_results",
]
