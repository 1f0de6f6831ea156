# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The rules of published LIBERO evaluations: on them depends the success rate as much as on the policy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..environment import unknown_name

# Zero motion with an open gripper, in the simulator's own convention, while the objects come to rest.
WAITING_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
# robosuite ends an episode there, waiting steps included.
HORIZON = 1000


@dataclass(frozen=True)
class Protocol:
    """Rules of an evaluation.

    Attributes:
        step_limits (`Mapping[str, int]`): by base suite, steps of the policy at most.
        success_checked_every (`int`): steps between two looks at whether the task is done.
        n_action_steps (`int` or `None`): actions of a chunk that are executed; `None`: all.
        gripper_at_half (`float`): what is sent to the simulator's gripper for exactly 0.5: 0 leaves it as it is, 1 closes.
        waiting_steps (`int`): before the policy looks for the first time.
        environment_seed (`int`): of the simulator, once for every task.
    """

    step_limits: Mapping[str, int]
    success_checked_every: int
    n_action_steps: int | None
    gripper_at_half: float
    waiting_steps: int = 10
    environment_seed: int = 0

    def simulator_action(self, action: np.ndarray) -> np.ndarray:
        """An action in the datasets' units as the simulator takes it.

        Args:
            action (`np.ndarray` of shape `(7,)`): 6 changes of the pose in [-1, 1], gripper with 1 = open, 0 = closed.

        Returns:
            `np.ndarray` of shape `(7,)`, float64: the gripper made binary and inverted, -1 opens and 1 closes.
        """
        gripper = -np.sign(2 * float(action[6]) - 1)
        return np.append(np.clip(action[:6], -1, 1), gripper or self.gripper_at_half).astype(np.float64)

    def rules(self) -> dict[str, Any]:
        """Everything that the protocol decides, as plain JSON values."""
        return {**asdict(self), "step_limits": dict(self.step_limits), "waiting_action": list(WAITING_ACTION)}


PROTOCOLS: dict[str, Protocol] = {
    # run_libero_eval.py of OpenVLA, to which NORA-1.5's authors point for their numbers.
    "openvla": Protocol(
        step_limits={
            "libero_spatial": 220,
            "libero_object": 280,
            "libero_goal": 300,
            "libero_10": 520,
            "libero_90": 400,
        },
        success_checked_every=1,
        n_action_steps=None,
        gripper_at_half=0.0,
    ),
    # run_libero_eval_nora.py of NORA: its limit of 500 counts chunks of 5 actions, so that robosuite's horizon comes first,
    # and it looks only at the end of a chunk whether the task is done.
    "nora": Protocol(
        step_limits=dict.fromkeys(
            ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"), HORIZON - 10
        ),
        success_checked_every=5,
        n_action_steps=5,
        gripper_at_half=1.0,
    ),
}


def find_protocol(name: str) -> Protocol:
    """A protocol by its name; an unknown one raises a `ValueError` that names those there are."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


__all__ = ["HORIZON", "PROTOCOLS", "WAITING_ACTION", "Protocol", "find_protocol"]
