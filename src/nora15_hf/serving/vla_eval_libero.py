# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The model server for vla-eval's LIBERO benchmarks, which treats pictures and actions as our own environment does."""

from typing import Any

import numpy as np
from vla_eval.specs import GRIPPER_CLOSE_POS, POSITION_DELTA, ROTATION_AA, STATE_EEF_POS_AA_GRIP, DimSpec

from ..simulation.environment import Observation
from ..simulation.libero.pictures import shown_picture
from ..simulation.libero.protocols import PROTOCOLS
from .robots import RobotKeys
from .served_policy import PICTURE_SIZE
from .vla_eval_server import VlaEvalServer


class LiberoServer(VlaEvalServer):
    """
    [`VlaEvalServer`] for the LIBERO benchmarks: pictures go through what the training data went through, and the gripper is made
    binary and inverted, both as in our own environment.
    """

    def robot_keys(self) -> RobotKeys:
        """LIBERO's first camera is the only one of most policies, whatever they call it."""
        names = list(self.contract.cameras or ("agentview",))
        cameras = {"images/agentview": names[0]}
        if len(names) > 1:
            cameras = {"images/agentview": "external", "images/wrist": "wrist"}
        return RobotKeys(cameras=cameras, state=("state",), action_dim=7)

    def shown(self, observation: Observation) -> Observation:
        """vla-eval has turned the pictures already; they are turned back for [`shown_picture`]."""
        sizes = {name: camera.height for name, camera in (self.contract.cameras or {}).items()}
        images = {
            name: shown_picture(image[::-1, ::-1], sizes.get(name) or PICTURE_SIZE)
            for name, image in observation.images.items()
        }
        return Observation(images, observation.state, observation.instruction)

    def executed(self, chunk: np.ndarray) -> np.ndarray:
        """-1 opens and 1 closes the gripper."""
        return np.stack([PROTOCOLS["openvla"].simulator_action(action) for action in chunk])

    def get_action_spec(self) -> dict[str, DimSpec]:
        """Changes of the hand's pose and the gripper."""
        return {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": GRIPPER_CLOSE_POS}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """As LIBERO names it."""
        state = {"state": STATE_EEF_POS_AA_GRIP} if self.policy.needs_state else {}
        return {**super().get_observation_spec(), **state}

    def get_observation_params(self) -> dict[str, Any]:
        """The hand's rotation as LIBERO itself gives it."""
        rotation = {"quat_no_antipodal": True} if self.policy.needs_state else {}
        return {**super().get_observation_params(), **rotation}


__all__ = ["LiberoServer"]
