# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which states of a dataset candidates are sampled at."""

from collections.abc import Sequence

import numpy as np

from ..data.lerobot_dataset import LeRobotDataset

STRATEGIES = ("uniform", "per_task", "per_stage")


def select_states(
    dataset: LeRobotDataset,
    num_states: int,
    *,
    strategy: str = "uniform",
    num_stages: int = 3,
    complete_chunks: bool = False,
    among: Sequence[int] | None = None,
    seed: int = 0,
) -> list[int]:
    """
    Draws states without replacement.

    Args:
        dataset ([`LeRobotDataset`]): demonstrations, also those that begin where the policy led
            ([`~nora15_hf.preferences.reached_states.record_reached_states`]).
        num_states (`int`): how many.
        strategy (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"` over all states; `"per_task"`: equally many of every instruction; `"per_stage"`: equally many of
            every stage of the episodes, first, middle and last third with `num_stages=3`. A group with too few states
            gives all it has, and the others give more.
        num_stages (`int`, *optional*, defaults to 3): for `"per_stage"`.
        complete_chunks (`bool`, *optional*, defaults to `False`):
            Whether to leave out states whose demonstrated chunk runs past the end of the episode.
        among (`Sequence[int]`, *optional*): the only positions to draw from; all by default.
        seed (`int`, *optional*, defaults to 0): of the draw.

    Returns:
        `list[int]`: positions in the dataset, ascending.

    Raises:
        ValueError: more states than there are, or an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f'strategy="{strategy}" must be one of {", ".join(STRATEGIES)}.')
    if num_stages < 1:
        raise ValueError(f"num_stages={num_stages} must be at least 1.")
    episodes = dataset.episodes
    groups: dict[object, list[np.ndarray]] = {}
    for number, (start, stop) in enumerate(zip(episodes["from"], episodes["to"], strict=True)):
        positions = np.arange(start, stop - dataset.chunk_size + 1 if complete_chunks else stop)
        if among is not None:
            positions = positions[np.isin(positions, among)]
        if strategy == "per_stage":
            stages = (positions - start) * num_stages // (stop - start)
            for stage in range(num_stages):
                groups.setdefault(stage, []).append(positions[stages == stage])
        else:
            # An episode of several tasks changes its instruction on the way; the first one stands for it.
            group = episodes["tasks"][number][0] if strategy == "per_task" else None
            groups.setdefault(group, []).append(positions)
    random = np.random.default_rng(seed)
    shuffled = [random.permutation(np.concatenate(parts)) for parts in groups.values()]
    available = sum(map(len, shuffled))
    if not 1 <= num_states <= available:
        raise ValueError(
            f"num_states={num_states} must lie between 1 and {available}, the number of states"
            f"{' to draw from' if among is not None else ''}{' with a complete chunk' if complete_chunks else ''}."
        )
    # Row r holds the r-th draw of every group: read row by row, groups take turns until they are used up.
    turns = np.concatenate([np.arange(len(positions)) for positions in shuffled])
    order = np.argsort(turns, kind="stable")[:num_states]
    return np.sort(np.concatenate(shuffled)[order]).tolist()


__all__ = ["STRATEGIES", "select_states"]
