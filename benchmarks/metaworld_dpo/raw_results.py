# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
What the study measured, before any analysis: evaluation episodes, candidates that were rolled out in the simulator, whether
demonstrations approach the goal, and training curves.

The files are part of the repository and stay under 20 MB in all.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nora15_hf.repo_files.json_files import read_json
from nora15_hf.repo_files.settings import differing_settings
from nora15_hf.repo_files.written_whole import written_whole

RESULTS = Path(__file__).with_name("results")
SETTINGS_KEY = b"nora15_hf.study"
ARM_SETTINGS = "arm"
"""The section of the settings that differs between the arms of a study."""
REWARD_PREFIX = "reward/"

EPISODES = pa.schema(
    [
        ("study", pa.string()),
        ("training_seed", pa.int32()),
        ("arm", pa.string()),
        ("task", pa.string()),
        ("episode_seed", pa.int64()),
        ("success", pa.bool_()),
        ("num_steps", pa.int32()),
    ]
)
CANDIDATES = pa.schema(
    [
        ("study", pa.string()),
        ("training_seed", pa.int32()),
        ("state", pa.int32()),
        ("task", pa.string()),
        ("episode_seed", pa.int64()),
        ("frame", pa.int32()),
        ("progress", pa.float32()),
        ("candidate", pa.int8()),
        ("success", pa.bool_()),
        ("num_steps", pa.int32()),
    ]
)


GOALS = pa.schema(
    [
        ("study", pa.string()),
        ("training_seed", pa.int32()),
        ("task", pa.string()),
        ("state", pa.int32()),
        ("progress", pa.float32()),
        ("nears_goal", pa.bool_()),
    ]
)


class RawResults:
    """
    A folder of raw results, in which every file is written whole or not at all:

    - `episodes/<study>-<training_seed>-<arm>.parquet`, a row per evaluation episode ([`EPISODES`]);
    - `candidates/<study>-<training_seed>.parquet`, a row per candidate that was rolled out ([`CANDIDATES`], and a float32
      column `reward/<name>` for each reward);
    - `goals/<study>-<training_seed>.parquet`, a row per demonstrated state ([`GOALS`]);
    - `curves/<study>-<training_seed>-<arm>.json`, `{metric: [[step, value], ...]}`.

    The parquet files hold all settings that move their numbers as JSON in their metadata, under `nora15_hf.study`. Its section
    `"arm"` is that of the file's arm, everything else is the same in all files of a study.

    Args:
        folder (`Path`, *optional*): Default: `results` beside this file.
    """

    def __init__(self, folder: Path = RESULTS):
        self.folder = Path(folder)

    def episodes_file(self, study: str, training_seed: int, arm: str) -> Path:
        """Where the episodes of an arm are; it exists once they are complete."""
        return self._file("episodes", f"{study}-{training_seed}-{arm}.parquet", study)

    def candidates_file(self, study: str, training_seed: int) -> Path:
        """Where the rolled-out candidates of a training seed are; it exists once they are complete."""
        return self._file("candidates", f"{study}-{training_seed}.parquet", study)

    def goals_file(self, study: str, training_seed: int) -> Path:
        """Where it is told whether demonstrations of a training seed approach the goal; it exists once that is complete."""
        return self._file("goals", f"{study}-{training_seed}.parquet", study)

    def curves_file(self, study: str, training_seed: int, arm: str) -> Path:
        """Where the training curves of an arm are; it exists once they are complete."""
        return self._file("curves", f"{study}-{training_seed}-{arm}.json", study)

    def write_episodes(
        self,
        study: str,
        training_seed: int,
        arm: str,
        rows: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
    ) -> None:
        """
        Args:
            study (`str`), training_seed (`int`), arm (`str`): What was evaluated.
            rows (`Sequence[Mapping[str, Any]]`): `task`, `episode_seed`, `success` and `num_steps` of each episode.
            settings (`Mapping[str, Any]`): As JSON values, see the class.

        Raises:
            ValueError: A row lacks one of these, holds something else, or is there twice; or settings without an `"arm"`.
        """
        if ARM_SETTINGS not in settings:
            raise ValueError(
                f"The settings of {study} {training_seed} {arm} lack the section {ARM_SETTINGS!r} with those of the arm."
            )
        common = {"study": study, "training_seed": training_seed, "arm": arm}
        file = self.episodes_file(study, training_seed, arm)
        _write(file, [{**common, **row} for row in rows], EPISODES, settings, ("task", "episode_seed"))

    def write_candidates(
        self, study: str, training_seed: int, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        """
        Args:
            study (`str`), training_seed (`int`): Whose policy sampled them.
            rows (`Sequence[Mapping[str, Any]]`): The columns of [`CANDIDATES`] but for these two, and `reward/<name>` of each reward.
            settings (`Mapping[str, Any]`): As JSON values, see the class.

        Raises:
            ValueError: A row lacks one of these, holds something else, or is there twice.
        """
        rewards = [name for name in (rows[0] if rows else {}) if name.startswith(REWARD_PREFIX)]
        schema = pa.schema([*CANDIDATES, *((name, pa.float32()) for name in rewards)])
        common = {"study": study, "training_seed": training_seed}
        file = self.candidates_file(study, training_seed)
        _write(file, [{**common, **row} for row in rows], schema, settings, ("state", "candidate"))

    def write_goals(
        self, study: str, training_seed: int, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        """
        Args:
            study (`str`), training_seed (`int`): Whose world model encoded the frames.
            rows (`Sequence[Mapping[str, Any]]`): The columns of [`GOALS`] but for these two.
            settings (`Mapping[str, Any]`): As JSON values, see the class.

        Raises:
            ValueError: A row lacks one of these, holds something else, or is there twice.
        """
        common = {"study": study, "training_seed": training_seed}
        file = self.goals_file(study, training_seed)
        _write(file, [{**common, **row} for row in rows], GOALS, settings, ("task", "state"))

    def write_curves(
        self, study: str, training_seed: int, arm: str, curves: Mapping[str, Sequence[tuple[int, float]]]
    ) -> None:
        """
        Args:
            study (`str`), training_seed (`int`), arm (`str`): What was trained.
            curves (`Mapping[str, Sequence[tuple[int, float]]]`): Of each logged metric its steps and values.
        """
        with written_whole(self.curves_file(study, training_seed, arm)) as part:
            # Without line breaks between numbers, which would be most of the file.
            part.write_text(json.dumps(curves, separators=(",", ":")) + "\n", encoding="utf-8")

    def has_episodes(self, study: str, training_seed: int, arm: str, settings: Mapping[str, Any]) -> bool:
        """Whether an arm has been evaluated under these settings; with other ones it is to be evaluated again."""
        file = self.episodes_file(study, training_seed, arm)
        return file.exists() and not differing_settings(_settings(file), settings)

    def read_episodes(self, study: str) -> pd.DataFrame:
        """
        The episodes of all arms and seeds of a study that are there; none is a table without rows.

        Raises:
            ValueError: A file is none of [`~RawResults.write_episodes`], or its settings are not those of the others.
        """
        return self._read("episodes", study, EPISODES)

    def read_candidates(self, study: str) -> pd.DataFrame:
        """
        The rolled-out candidates of all seeds of a study that are there. A reward that a file lacks is NaN in its rows.

        Raises:
            ValueError: A file is none of [`~RawResults.write_candidates`], or its settings are not those of the others.
        """
        return self._read("candidates", study, CANDIDATES)

    def read_goals(self, study: str) -> pd.DataFrame:
        """
        What [`~RawResults.write_goals`] wrote for all seeds of a study.

        Raises:
            ValueError: A file is none of [`~RawResults.write_goals`], or its settings are not those of the others.
        """
        return self._read("goals", study, GOALS)

    def read_curves(self, study: str) -> dict[tuple[int, str], dict[str, list[list[float]]]]:
        """`(training_seed, arm)` to the curves of that run."""
        curves = {}
        for file in sorted((self.folder / "curves").glob(f"{study}-*.json")):
            _, training_seed, arm = file.stem.split("-", 2)
            curves[int(training_seed), arm] = read_json(file)
        return curves

    def settings(self, study: str) -> dict[str, Any]:
        """What all evaluations of a study share; empty where there is none."""
        for file in self._files("episodes", study):
            return {name: value for name, value in _settings(file).items() if name != ARM_SETTINGS}
        return {}

    def arm_settings(self, study: str) -> dict[str, dict[str, Any]]:
        """Arm to the settings of its own."""
        found = {}
        for file in self._files("episodes", study):
            found[file.stem.split("-", 2)[2]] = _settings(file)[ARM_SETTINGS]
        return found

    def _file(self, kind: str, name: str, study: str) -> Path:
        if "-" in study:
            raise ValueError(
                f"The study {study!r} has a hyphen, which ends its name in names of files; use an underscore."
            )
        return self.folder / kind / name

    def _files(self, kind: str, study: str) -> list[Path]:
        return sorted((self.folder / kind).glob(f"{study}-*.parquet"))

    def _read(self, kind: str, study: str, schema: pa.Schema) -> pd.DataFrame:
        tables = [schema.empty_table()]
        first: dict[str | None, tuple[Path, dict]] = {}
        for file in self._files(kind, study):
            settings = _settings(file)
            # Those of an arm are compared between its seeds, all others between all files.
            arm = settings.pop(ARM_SETTINGS, None)
            _refuse_other_settings(first, None, file, settings)
            if kind == "episodes":
                _refuse_other_settings(first, file.stem.split("-", 2)[2], file, {ARM_SETTINGS: arm})
            table = pq.read_table(file).replace_schema_metadata(None)
            if missing := set(schema.names) - set(table.column_names):
                raise ValueError(f"{file} lacks the columns {', '.join(sorted(missing))} of raw {kind}.")
            tables.append(table)
        return pa.concat_tables(tables, promote_options="default").to_pandas()


def _write(
    file: Path,
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    settings: Mapping[str, Any],
    key: tuple[str, str],
) -> None:
    if not rows:
        raise ValueError(f"There are no rows for {file.name}; a file is written when its measurement is complete.")
    expected = set(schema.names)
    for row in rows:
        if differing := expected ^ row.keys():
            raise ValueError(
                f"A row for {file.name} lacks or adds {', '.join(sorted(differing))}; its columns are {', '.join(schema.names)}."
            )
        for name, value in row.items():
            missing = isinstance(value, float) and not math.isfinite(value) and not name.startswith(REWARD_PREFIX)
            if value is None or missing:
                raise ValueError(f"{name!r} is {value} in a row for {file.name}; only a reward may be NaN.")
    counts = Counter(tuple(row[name] for name in key) for row in rows)
    repeated, times = counts.most_common(1)[0]
    if times > 1:
        raise ValueError(f"{file.name} would hold {dict(zip(key, repeated, strict=True))} {times} times.")
    metadata = {SETTINGS_KEY: json.dumps(settings).encode()}
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata(metadata))
    with written_whole(file) as part:
        pq.write_table(table, part, compression="zstd")


def _settings(file: Path) -> dict[str, Any]:
    metadata = pq.read_schema(file).metadata or {}
    if SETTINGS_KEY not in metadata:
        raise ValueError(f"{file} has no settings of the study in its metadata ({SETTINGS_KEY.decode()}).")
    return json.loads(metadata[SETTINGS_KEY])


def _refuse_other_settings(
    first: dict[str | None, tuple[Path, dict]], group: str | None, file: Path, settings: dict[str, Any]
) -> None:
    other, expected = first.setdefault(group, (file, settings))
    if differing := differing_settings(expected, settings):
        listed = "; ".join(f"{name} is {one!r} there and {two!r} here" for name, (one, two) in differing.items())
        raise ValueError(
            f"{file} was measured with other settings than {other.name}: {listed}. Results of one study need the same ones; "
            "measure one of the two again, or keep them in folders of their own."
        )


__all__ = ["ARM_SETTINGS", "CANDIDATES", "EPISODES", "GOALS", "RESULTS", "REWARD_PREFIX", "SETTINGS_KEY", "RawResults"]
