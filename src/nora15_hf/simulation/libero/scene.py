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
        return self._box_corners(self._geoms(name))

    def distance(self, name: str, column: np.ndarray, above: float) -> float:
        """
        Distance in the plane from a vertical line to the nearest shape of an object that reaches above a height.

        Args:
            name (`str`): the object. A cabinet has a shape for each of its boards, with room between them.
            column (`np.ndarray` of shape `(2,)`): the line.
            above (`float`): the height.

        Returns:
            `float`: metres, infinite where no shape reaches so high.
        """
        geoms = self._geoms(name)
        geoms = geoms[self._box_corners(geoms).reshape(-1, 8, 3)[..., 2].max(axis=1) > above]
        centres, axes, halves = self._boxes(geoms)
        points = np.concatenate([np.broadcast_to(column, (len(geoms), 2)), centres[:, 2:]], axis=1)
        inside = np.einsum("nij,ni->nj", axes, points - centres)
        gaps = np.linalg.norm(np.maximum(np.abs(inside) - halves, 0), axis=1)
        return gaps.min(initial=np.inf)

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

    def _geoms(self, name: str) -> np.ndarray:
        """The shapes of an object that touch others."""
        model = self._env.sim.model
        return np.array([model.geom_name2id(geom) for geom in self._env.get_object(name).contact_geoms], dtype=int)

    def _boxes(self, geoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes around shapes: centres `(N, 3)`, axes as columns `(N, 3, 3)`, halves of the lengths along these `(N, 3)`."""
        data, boxes = self._env.sim.data, self._env.sim.model.geom_aabb[geoms]
        axes = data.geom_xmat[geoms].reshape(-1, 3, 3)
        return data.geom_xpos[geoms] + np.einsum("nij,nj->ni", axes, boxes[:, :3]), axes, boxes[:, 3:]

    def _box_corners(self, geoms: np.ndarray) -> np.ndarray:
        centres, axes, halves = self._boxes(geoms)
        signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, 8).T
        return (centres[:, None] + np.einsum("nij,nkj->nki", axes, signs * halves[:, None])).reshape(-1, 3)


__all__ = ["Joint", "LiberoScene"]
