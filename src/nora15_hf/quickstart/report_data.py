# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a quickstart run found out, in plain types: the input of `report.html` and of `results.json`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cards.card_settings import Setting
from ..stages.stage_runner import StageCost

__all__ = [
    "ARM_LABELS",
    "Control",
    "CurvePanel",
    "Outcomes",
    "PairedOutcome",
    "PreferenceExample",
    "ReportData",
    "Rollout",
    "total",
]

Outcomes = dict[str, tuple[int, int]]
"""Task to (successes, episodes)."""

ARM_LABELS = {
    "random": "random weights",
    "sft": "SFT",
    "continued_sft": "continued SFT",
    "dpo": "DPO",
}
"""The compared policies, in the order of the report. Continued SFT has the steps and learning rate of DPO."""


def total(outcomes: Outcomes) -> tuple[int, int]:
    """Successes and episodes of all tasks together."""
    return sum(successes for successes, _ in outcomes.values()), sum(episodes for _, episodes in outcomes.values())


@dataclass(frozen=True, kw_only=True)
class PairedOutcome:
    """
    DPO against continued SFT on the same evaluation seeds.

    Args:
        both (`int`), only_dpo (`int`), only_continued_sft (`int`), neither (`int`): episodes in which both, one or
            none of the two policies succeeded.
        p_value (`float`): two-sided exact McNemar test on the episodes in which they differ.
    """

    both: int
    only_dpo: int
    only_continued_sft: int
    neither: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Control:
    """
    The SFT policy with one of its inputs spoiled: success has to fall, or the policy does not use that input.

    Args:
        name (`str`): for example `"Swapped instruction"`.
        explanation (`str`): what was done to the input, one sentence.
        intact (`dict`), spoiled (`dict`): task to (successes, episodes), for the same tasks.
    """

    name: str
    explanation: str
    intact: Outcomes
    spoiled: Outcomes

    def __post_init__(self):
        if self.intact.keys() != self.spoiled.keys():
            raise ValueError(
                f"Control {self.name!r}: `intact` has the tasks {sorted(self.intact)} and `spoiled` {sorted(self.spoiled)}; "
                "expected the same tasks in both."
            )


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """
    One small chart of training curves that share an axis.

    Args:
        title (`str`): for example `"Flow-matching loss"`.
        explanation (`str`): how to read it, one sentence.
        curves (`dict[str, list[tuple[int, float]]]`): name to (step, value) in order.
        reference (`tuple[str, float]`, *optional*): a named horizontal line, for example `("chance", 0.5)`.
    """

    title: str
    explanation: str
    curves: dict[str, list[tuple[int, float]]]
    reference: tuple[str, float] | None = None

    def __post_init__(self):
        empty = [name for name, points in self.curves.items() if not points]
        if empty or not self.curves:
            raise ValueError(f"Curve panel {self.title!r}: no points for {empty or 'any curve'}; was nothing logged?")


@dataclass(frozen=True, kw_only=True)
class PreferenceExample:
    """
    One preference pair.

    Args:
        image (`np.ndarray`): observation, uint8 (height, width, 3).
        instruction (`str`): what the robot was told.
        chosen (`np.ndarray`), rejected (`np.ndarray`), demonstrated (`np.ndarray`): chunks, float (H, A); the first
            three dimensions move the hand along x, y, z.
        rewards (`dict[str, tuple[float, float]]`): reward of (chosen, rejected) by name.
        origin (`tuple[float, float]`): where the hand is on the picture, (right, down) in fractions of its sides.
        action_axes (`np.ndarray`, *optional*): float (2, 3), how far one unit of the actions' x, y, z moves the hand on
            the picture, in the same fractions. Without it x is drawn to the right and y upwards, not to scale.
    """

    image: np.ndarray
    instruction: str
    chosen: np.ndarray
    rejected: np.ndarray
    demonstrated: np.ndarray
    rewards: dict[str, tuple[float, float]]
    origin: tuple[float, float] = (0.5, 0.5)
    action_axes: np.ndarray | None = None

    def __post_init__(self):
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[-1] != 3:
            raise ValueError(
                f"`image` is {self.image.dtype} of shape {self.image.shape}; expected uint8 (height, width, 3)."
            )
        if not self.chosen.shape == self.rejected.shape == self.demonstrated.shape or self.chosen.ndim != 2:
            raise ValueError(
                f"`chosen`, `rejected` and `demonstrated` have shapes {self.chosen.shape}, {self.rejected.shape} and "
                f"{self.demonstrated.shape}; expected the same (steps, dimensions) for all three."
            )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """
    A recorded evaluation episode.

    Args:
        arm (`str`): key of [`ARM_LABELS`].
        task (`str`), instruction (`str`), seed (`int`): which episode.
        success (`bool`), num_steps (`int`): how it ended.
        frames (`np.ndarray`): uint8 (F, height, width, 3).
    """

    arm: str
    task: str
    instruction: str
    seed: int
    success: bool
    num_steps: int
    frames: np.ndarray

    def __post_init__(self):
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or not len(self.frames):
            raise ValueError(
                f"`frames` of {self.task} seed {self.seed} is {self.frames.dtype} of shape {self.frames.shape}; expected "
                "uint8 (frames, height, width, 3) with at least one frame."
            )


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """
    Everything the report shows.

    Args:
        title (`str`): headline.
        command (`str`): the command that reproduces the run.
        success (`dict[str, dict[str, tuple[int, int]]]`): for each arm of [`ARM_LABELS`], task to
            (successes, episodes); the same tasks for every arm.
        paired (`PairedOutcome`): DPO against continued SFT.
        controls (`list[Control]`): spoiled inputs.
        curves (`dict[str, list[CurvePanel]]`): stage to its charts.
        rewards (`dict[str, np.ndarray]`): reward to its values (states, candidates), the combination used for ranking
            last.
        examples (`list[PreferenceExample]`): a few pairs.
        rollouts (`list[Rollout]`): a few episodes, successes and failures.
        stages (`list[StageCost]`): in order.
        conventions (`dict[str, dict[str, Setting]]`): group to setting to value: everything that moves the numbers.
        versions (`dict[str, str]`): package to version.
        action_names (`list[str]`): name of each action dimension.

    Raises:
        ValueError: an arm is missing or unknown, two arms were evaluated on different tasks, `paired` does not add up to
            `success`, or `action_names` does not fit the chunks.
    """

    title: str
    command: str
    success: dict[str, Outcomes]
    paired: PairedOutcome
    controls: list[Control]
    curves: dict[str, list[CurvePanel]]
    rewards: dict[str, np.ndarray]
    examples: list[PreferenceExample]
    rollouts: list[Rollout]
    stages: list[StageCost]
    conventions: dict[str, dict[str, Setting]]
    versions: dict[str, str]
    action_names: list[str]

    def __post_init__(self):
        if self.success.keys() != ARM_LABELS.keys():
            raise ValueError(f"`success` has the arms {sorted(self.success)}; expected {sorted(ARM_LABELS)}.")
        tasks = self.success["sft"].keys()
        for arm, outcomes in self.success.items():
            if outcomes.keys() != tasks:
                raise ValueError(
                    f"`success[{arm!r}]` has the tasks {sorted(outcomes)} and `success['sft']` {sorted(tasks)}; every arm "
                    "must be evaluated on the same tasks."
                )
        paired = self.paired
        episodes = paired.both + paired.only_dpo + paired.only_continued_sft + paired.neither
        for arm, only in (("dpo", paired.only_dpo), ("continued_sft", paired.only_continued_sft)):
            if (paired.both + only, episodes) != total(self.success[arm]):
                raise ValueError(
                    f"`paired` counts {paired.both + only} successes of {ARM_LABELS[arm]} out of {episodes} episodes and "
                    f"`success` {total(self.success[arm])}; expected the same episodes in both."
                )
        for example in self.examples:
            if example.chosen.shape[1] != len(self.action_names):
                raise ValueError(
                    f"`action_names` has {len(self.action_names)} names and an example's chunk {example.chosen.shape[1]} "
                    "dimensions; expected one name per dimension."
                )
        for rollout in self.rollouts:
            if rollout.arm not in ARM_LABELS:
                raise ValueError(f"A rollout has the arm {rollout.arm!r}; expected one of {sorted(ARM_LABELS)}.")
