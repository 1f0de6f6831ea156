# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How fast closed-loop evaluation goes, and who of policy and simulators is waited for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Throughput:
    """Clocks of a rollout, which start when it does.

    Attributes:
        clock (`Callable[[], float]`): seconds.
        episodes (`int`): that have been run.
        seconds (`float`): since the start.
        policy_seconds (`float`): in which the policy worked.
        simulator_seconds (`float`): in which simulators worked, all processes together.
        num_workers (`int`): simulator processes.
    """

    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)
    episodes: int = 0
    seconds: float = 0.0
    policy_seconds: float = 0.0
    simulator_seconds: float = 0.0
    num_workers: int = 1

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The policy works within it."""
        start = self.clock()
        yield
        self.policy_seconds += self.clock() - start

    @property
    def episodes_per_minute(self) -> float:
        return 60 * self.episodes / self.seconds if self.seconds else 0.0

    @property
    def policy_utilization(self) -> float:
        """Share of the time in which the policy worked."""
        return self.policy_seconds / self.seconds if self.seconds else 0.0

    @property
    def simulator_utilization(self) -> float:
        """Share of the time in which a simulator process worked, their mean."""
        return self.simulator_seconds / (self.num_workers * self.seconds) if self.seconds else 0.0

    def describe(self) -> str:
        """One line."""
        return (
            f"{self.episodes} episodes in {self.seconds:.0f} s, {self.episodes_per_minute:.1f} a minute; the policy worked "
            f"{self.policy_utilization:.0%} of the time, each of {self.num_workers} simulator processes "
            f"{self.simulator_utilization:.0%}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "episodes": self.episodes,
            "seconds": self.seconds,
            "episodes_per_minute": self.episodes_per_minute,
            "policy_utilization": self.policy_utilization,
            "simulator_utilization": self.simulator_utilization,
            "simulator_processes": self.num_workers,
        }


__all__ = ["Throughput"]
