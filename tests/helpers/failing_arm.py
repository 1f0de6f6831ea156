# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""An environment whose process dies, hangs or fails in the episodes that a folder of faults names."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nora15_hf.simulation.environment import EnvironmentSpec
from nora15_hf.simulation.environment_table import ENVIRONMENTS, TableEntry

from .two_camera_arm import TASKS, TwoCameraArm

__all__ = ["FailingArm", "failing_arm_in_the_table"]

FAULTY_STEP = 7


class FailingArm(TwoCameraArm):
    """
    In step 7 of the episode of seed 10001 its process is killed if the folder `faults` holds a file `die-10001`; likewise
    `die_once-10001`, which is removed by then, `hang-10001`, which leaves a file `hanging-PID`, and `raise-10001`.
    """

    @classmethod
    def describe(cls, *, faults: str = "", max_steps: int = 40) -> EnvironmentSpec:
        spec = super().describe(max_steps=max_steps)
        return replace(spec, name="failing", conventions=spec.conventions | {"simulator": "failing", "faults": faults})

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._seed = seed

    def step(self, action: Any) -> None:
        folder = Path(self.spec.conventions["faults"])
        if self.num_steps == FAULTY_STEP:
            if (folder / f"raise-{self._seed}").exists():
                raise ValueError("the arm is jammed")
            if (folder / f"hang-{self._seed}").exists():
                (folder / f"hanging-{os.getpid()}").touch()
                threading.Event().wait()
            # Both tasks have an episode of this seed, which may be in this step at the same time: one of them dies.
            with suppress(FileNotFoundError):
                (folder / f"die_once-{self._seed}").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (folder / f"die-{self._seed}").exists():
                print("about to die", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        super().step(action)


@contextmanager
def failing_arm_in_the_table() -> Iterator[None]:
    """The environment under the name "failing", for as long as the context lasts."""
    ENVIRONMENTS["failing"] = TableEntry(
        "helpers.failing_arm:FailingArm", TASKS, suites={"corners": tuple(TASKS)}, protocols=("strict",)
    )
    try:
        yield
    finally:
        del ENVIRONMENTS["failing"]
