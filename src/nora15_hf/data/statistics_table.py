# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics of a dataset as a table to read and as the file a processor takes: what `nora15 stats` does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..actions.normalization import ActionStatistics, save_norm_stats
from ..actions.range_findings import find_range_problems
from .lerobot_dataset import LeRobotDataset
from .lerobot_layout import DEFAULT_STATE_KEY
from .lerobot_source import open_source
from .statistics import compute_statistics

COLUMNS = ("min", "q01", "mean", "std", "q99", "max")


@dataclass(frozen=True)
class StatisticsTable:
    """
    Statistics of a dataset; `str(table)` is what `nora15 stats` prints.

    Attributes:
        text (`str`): What was counted, and a table per feature.
        dataset_key (`str`): The dataset's.
        statistics (`dict[str, ActionStatistics]`): Of `"action"` and, if the dataset has one, `"state"`.
    """

    text: str
    dataset_key: str
    statistics: dict[str, ActionStatistics]

    def __str__(self) -> str:
        return self.text

    def save(self, file: str | Path) -> None:
        """Writes them in the layout of the processor's `norm_stats.json`; read it with `load_norm_stats`."""
        by_key = {name: {self.dataset_key: each} for name, each in self.statistics.items()}
        save_norm_stats(file, by_key["action"], by_key.get("state"))


def dataset_statistics(
    root_or_repo: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    action_key: str | None = None,
    state_key: str | None = DEFAULT_STATE_KEY,
    dataset_key: str | None = None,
    chunk_size: int = 5,
    action_mask: Sequence[bool] | None = None,
    delta_mask: Sequence[bool] | None = None,
    angle_mask: Sequence[bool] | None = None,
    range_floor: float | None = None,
    sample_episodes: int | None = None,
    seed: int = 0,
    skip_bad_episodes: bool = False,
) -> StatisticsTable:
    """Compute the statistics of a LeRobot dataset, exactly and without its images.

    Args:
        root_or_repo (`str` or `Path`): Local folder, or repo id of a dataset on the Hub. Videos are not fetched.
        revision, token, action_key, state_key, dataset_key, skip_bad_episodes: As for [`LeRobotDataset`].
        chunk_size (`int`, defaults to 5): Actions per chunk; matters with `delta_mask` only.
        action_mask, delta_mask, angle_mask (`Sequence[bool]`, *optional*), range_floor (`float`, *optional*):
            As for [`compute_statistics`].
        sample_episodes (`int`, *optional*): Use that many episodes, drawn at random, and fetch only their files.
        seed (`int`, defaults to 0): Of that draw.

    Returns:
        [`StatisticsTable`], which ends with the dimensions that normalisation by the quantiles would not suit, and with what to
        choose for them.

    Raises:
        FileNotFoundError, ValueError: As for [`LeRobotDataset`] and [`compute_statistics`]; a sample larger than the
            dataset.
    """
    episodes, sample = None, ""
    if sample_episodes is not None:
        source = open_source(root_or_repo, revision, token, [], state_key, action_key, chunk_size, dataset_key)
        index = source.metadata.episodes.index
        if not 0 < sample_episodes <= len(index):
            raise ValueError(
                f"`sample_episodes` is {sample_episodes}; the dataset has {len(index)} episodes. Omit it to use all of them."
            )
        episodes = np.random.default_rng(seed).choice(index, sample_episodes, replace=False).tolist()
        sample = f", a sample of {sample_episodes} of {len(index)} episodes (seed {seed})"
    dataset = LeRobotDataset(
        root_or_repo,
        revision=revision,
        token=token,
        image_keys=[],
        state_key=state_key,
        action_key=action_key,
        chunk_size=chunk_size,
        dataset_key=dataset_key,
        episodes=episodes,
        skip_bad_episodes=skip_bad_episodes,
    )
    statistics = compute_statistics(
        dataset, action_mask=action_mask, delta_mask=delta_mask, angle_mask=angle_mask, range_floor=range_floor
    )
    lines = [f"{dataset.dataset_key}: {dataset.num_episodes} episodes, {len(dataset)} frames{sample}"]
    if dataset.skipped_episodes:
        lines.append(f"bad episodes that were skipped: {', '.join(map(str, dataset.skipped_episodes))}")
    what = f"{dataset.action_key} ({statistics['action'].count} rows"
    if delta_mask is not None:
        what += f": differences from {dataset.state_key}, every step of every chunk of {chunk_size} inside its episode"
    lines += ["", what + ")", _table(statistics["action"], dataset.action_names)]
    if "state" in statistics:
        rows = f"{dataset.state_key} ({statistics['state'].count} rows)"
        lines += ["", rows, _table(statistics["state"], dataset.state_names)]
    return StatisticsTable("\n".join(lines), dataset.dataset_key, statistics)


def _table(statistics: ActionStatistics, names: list[str] | None) -> str:
    problems = {found.dimension: found for found in find_range_problems(statistics)}
    rows = [["dimension", *COLUMNS, ""]]
    for number, name in enumerate(range(len(statistics)) if names is None else names):
        values = [getattr(statistics, column)[number] for column in COLUMNS]
        note = problems[number].problem if number in problems else "" if statistics.mask[number] else "not normalised"
        rows.append([str(name), *(f"{value:.5g}" for value in values), note])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [
            cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)
        ]
        lines.append(("  " + "  ".join([*cells, row[-1]])).rstrip())
    lines += [found.describe(names) for found in problems.values() if found.problem != "constant"]
    return "\n".join(lines)


__all__ = ["StatisticsTable", "dataset_statistics"]
