# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The poses and shapes in a LIBERO scene, read from the simulator; no policy has access to them.

Positions are in metres in the world's frame, z upwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

_HAND = "gripper0_grip_site"


@dataclass(frozen=True)
class Joint:
    """A part of an object that turns.

    Attributes:
        corners (`np.ndarray` of shape `(N, 3)`): of the boxes around its shapes.
        anchor (`np.ndarray` of shape `(3,)`): a point on the axis.
    """

    corners: np.ndarray
    anchor: np.ndarray


class LiberoScene:
    """The present state of an environment.

    Args:
        env: LIBERO's environment of a task.
    """

    def __init__(self, env: Any):
        self._env = env

    @property
    def goals(self) -> list[list[str]]:
        """The goals of the task: predicate and names of objects or regions."""
        return self._env.parsed_problem["goal_state"]

    def holds(self, *goal: str) -> bool:
        """Whether a predicate is fulfilled."""
        return bool(self._env._eval_predicate(list(goal)))

    @property
    def hand(self) -> np.ndarray:
        """The place between the finger tips."""
        return np.array(self._env.sim.data.get_site_xpos(_HAND))

    @property
    def hand_axes(self) -> np.ndarray:
        """Columns: the hand's x axis, the axis along which its fingers close, and the way in which it points."""
        return np.array(self._env.sim.data.get_site_xmat(_HAND)).reshape(3, 3)

    def place(self, name: str) -> np.ndarray:
        """Position of an object, or of a region on or in one."""
        return np.array(self._env.object_states_dict[name].get_geom_state()["pos"])

    def corners(self, name: str) -> np.ndarray:
        """Corners of the boxes around the shapes of an object, `(N, 3)`."""
        model = self._env.sim.model
        return self._box_corners([model.geom_name2id(geom) for geom in self._env.get_object(name).contact_geoms])

    def top(self, place: str) -> float:
        """Height of an object, or of the one to which a region belongs."""
        owner = self._owner(place)
        return self.corners(owner)[:, 2].max() if owner in self.objects else self.place(place)[2]

    @property
    def objects(self) -> list[str]:
        """Names of all objects, those included that stand fixed."""
        return [*self._env.objects_dict, *self._env.fixtures_dict]

    def is_closed(self, region: str) -> bool:
        """Whether a region is in a drawer that is not open."""
        sites = self._env.object_sites_dict
        return bool(region in sites and sites[region].joints) and not self.holds("open", region)

    def joint(self, name: str) -> Joint:
        """The movable part of an object."""
        model, data = self._env.sim.model, self._env.sim.data
        joint = model.joint_name2id(self._env.get_object(name).joints[0])
        geoms = np.flatnonzero((model.geom_bodyid == model.jnt_bodyid[joint]) & (model.geom_group == 0))
        return Joint(self._box_corners(geoms), np.array(data.xanchor[joint]))

    def _owner(self, place: str) -> str:
        state = self._env.object_states_dict[place]
        return state.parent_name if state.object_state_type == "site" else place

    def _box_corners(self, geoms: list[int] | np.ndarray) -> np.ndarray:
        model, data = self._env.sim.model, self._env.sim.data
        signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, 8).T
        boxes = model.geom_aabb[geoms]
        corners = boxes[:, None, :3] + signs * boxes[:, None, 3:]
        axes = data.geom_xmat[geoms].reshape(-1, 3, 3)
        return (corners @ axes.transpose(0, 2, 1) + data.geom_xpos[geoms][:, None]).reshape(-1, 3)


__all__ = ["Joint", "LiberoScene"]
