# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Episodes of closed-loop evaluation, and what came of them."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


@dataclass(frozen=True)
class Episode:
    """One episode to run.

    Attributes:
        task (`str`): a name of the environment's tasks.
        seed (`int`): start of the episode; evaluation uses those from `FIRST_EVALUATION_SEED` on.
        instruction (`str`, *optional*): what the policy is told; default: the task's own. Another task's instruction
            makes the control "swapped instructions". Success is judged by `task`.
        record_every (`int`, *optional*, defaults to 0): keep the picture of every so many steps, and the last; 0 keeps none.
    """

    task: str
    seed: int
    instruction: str | None = None
    record_every: int = 0

    def __post_init__(self):
        if self.record_every < 0:
            raise ValueError(f"`record_every` is {self.record_every}; it must be 0 or more.")


class Failure(StrEnum):
    """Why an episode did not succeed."""

    NOT_DONE = "not done by the end of the episode"
    INVALID_ACTIONS = "invalid actions"
    """FAST tokens of the policy that spell no chunk."""
    ENVIRONMENT_LOST = "environment lost"
    """The environment failed, died or hung, so the episode says nothing about the policy and is not counted."""


@dataclass(frozen=True)
class EpisodeResult:
    """What came of an [`Episode`].

    Attributes:
        task, seed, instruction: of the episode, the instruction as the policy was told.
        success (`bool`): the task succeeded in some step.
        num_steps (`int`): control steps until success, or the step limit.
        frames (`list[np.ndarray]`): recorded images of the first camera, uint8 `(height, width, 3)`.
        num_looks (`int`): how often the policy was asked.
        failure ([`Failure`], *optional*): why it did not succeed.
        log (`str`): of an environment that was lost.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    num_steps: int
    frames: list[np.ndarray] = field(default_factory=list, repr=False)
    num_looks: int = 0
    failure: Failure | None = None
    log: str = field(default="", repr=False)

    @property
    def file_name(self) -> str:
        """Without a suffix, for what is written about it. Names of tasks may hold a slash, as gymnasium's do."""
        return f"{self.task.replace('/', '_')}-{self.seed}"

    @property
    def counts(self) -> bool:
        """Whether the episode counts for the policy."""
        return self.failure is not Failure.ENVIRONMENT_LOST


__all__ = ["Episode", "EpisodeResult", "Failure"]
