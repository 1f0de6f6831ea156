# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a Meta-World scene by casting rays, without any graphics library."""

import mujoco
import numpy as np

from .camera import CAMERA, GOAL_COLOR, GOAL_RADIUS, Crop
from .mesh_rasterizer import MeshRasterizer

_ONLY_GROUP_0 = np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)
_CORNER_SIGNS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


class RayCastRenderer:
    """Draws by casting one ray per pixel with MuJoCo's collision code; needs no graphics library.

    What cannot move within an episode is cast once and kept. Moving meshes are rasterised, which gives the same hits
    faster; at the other moving geoms only those rays are cast that pass through the projected bounding box of one of
    them. The picture is the one that casting every ray at every geom gives. A surface is lit by a lamp at the camera, `ambient + (1 - ambient) * |normal . ray|`; its
    colour is that of its material times the mean of the material's texture, or the geom's own. Normals come from the
    distances along neighbouring rays that hit the same geom.

    Args:
        model (`mujoco.MjModel`): the environment's model.
        image_size (`int`): side of the picture, pixels.
    """

    ambient, diffuse = 0.5, 0.9
    background = np.array([0.45, 0.45, 0.45])

    def __init__(self, model: mujoco.MjModel, image_size: int):
        self.crop = Crop.for_image_size(image_size)
        self._model = model
        self._camera = model.camera(CAMERA).id
        self._slope = np.tan(np.deg2rad(model.cam_fovy[self._camera]) / 2)
        self._camera_rays = self._rays_in_camera_frame()
        self._colors = _surface_colors(model)
        # MuJoCo draws geom groups 0-2; Meta-World keeps its collision shapes in group 4.
        moves = model.body_weldid[model.geom_bodyid] != 0
        shown = (model.geom_group < 3) & (self._colors[:, 3] > 0)
        self._moving, self._fixed = np.flatnonzero(moves & shown), np.flatnonzero(~moves & shown)
        box = model.geom_aabb[self._moving]
        self._moving_corners = box[:, None, :3] + _CORNER_SIGNS * box[:, None, 3:]
        self._moving_is_mesh = model.geom_type[self._moving] == mujoco.mjtGeom.mjGEOM_MESH
        self._meshes = MeshRasterizer(model, self._moving[self._moving_is_mesh])
        self._fixed_poses = None
        self._bounded_bodies, self._body_bounds = _bounds_with_visual_geoms(model)

    def _rays_in_camera_frame(self) -> np.ndarray:
        """Unit vectors `(size**2, 3)`; the camera looks along -z, and the turn by 180 degrees negates x and y."""
        crop = self.crop
        across = ((crop.left + np.arange(crop.size) + 0.5) / crop.field * 2 - 1) * self._slope
        down = ((crop.top + np.arange(crop.size) + 0.5) / crop.field * 2 - 1) * self._slope
        x, y = np.meshgrid(-across, down)
        rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def render(self, data: mujoco.MjData, goal: np.ndarray | None = None) -> np.ndarray:
        """Draw the present state.

        Args:
            data (`mujoco.MjData`): the state, after `mujoco.mj_forward`.
            goal (`np.ndarray` of shape `(3,)`, *optional*): place in metres where a red ball is drawn.

        Returns:
            `np.ndarray`: uint8 `(image_size, image_size, 3)`.
        """
        self._refresh_fixed_layer(data)
        image, distance = self._fixed_image.copy(), self._fixed_distance.copy()

        geom, near = self._moving_layer(data)
        visible = np.flatnonzero(near < distance)
        image[visible] = self._shade(geom, near, visible)
        if goal is not None:
            distance[visible] = near[visible]
            self._draw_goal(image, distance, goal - data.cam_xpos[self._camera])
        image = np.minimum(image, 1.0)
        return (image * 255 + 0.5).astype(np.uint8).reshape(self.crop.size, self.crop.size, 3)

    def close(self) -> None:
        """Nothing is held outside Python; present so that both renderers are used alike."""

    def _refresh_fixed_layer(self, data: mujoco.MjData) -> None:
        """Cast the static part of the scene again if any of it has moved since the last image."""
        poses = np.concatenate([data.geom_xpos[self._fixed].ravel(), data.geom_xmat[self._fixed].ravel()])
        if self._fixed_poses is not None and np.array_equal(poses, self._fixed_poses):
            return
        self._fixed_poses = poses
        self._rays = np.ascontiguousarray(self._camera_rays @ data.cam_xmat[self._camera].reshape(3, 3).T)
        geom, self._fixed_distance = self._cast(data, np.arange(len(self._rays)), self._fixed)
        self._fixed_image = np.tile(self.background, (len(self._rays), 1))
        hit = np.flatnonzero(geom >= 0)
        self._fixed_image[hit] = self._shade(geom, self._fixed_distance, hit)

    def _moving_layer(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """What moves: per pixel the nearest geom (-1: none) and its distance (inf: none)."""
        crop = self.crop
        # In the picture's frame x points right, y down and z into the scene; the camera's x and y are turned by 180
        # degrees against the usual (right, up), and it looks along its own -z.
        picture_axes = data.cam_xmat[self._camera].reshape(3, 3) * np.array([-1.0, 1.0, -1.0])
        origins = (data.geom_xpos[self._moving] - data.cam_xpos[self._camera]) @ picture_axes
        rotations = picture_axes.T @ data.geom_xmat[self._moving].reshape(-1, 3, 3)
        x, y, z = np.moveaxis(self._moving_corners @ rotations.transpose(0, 2, 1) + origins[:, None], 2, 0)

        scale = crop.field / (2 * self._slope)
        centre = (crop.field / 2 - crop.left - 0.5, crop.field / 2 - crop.top - 0.5)
        in_front = (z > 0.01).all(axis=1)  # the projection of a box that reaches behind the camera is unbounded
        depth = np.where(in_front[:, None], z, 1.0)
        column, row = x / depth * scale + centre[0], y / depth * scale + centre[1]
        # Rounded outwards, so that rounding cannot lose a ray that grazes the box.
        first = np.clip(np.floor([row.min(1), column.min(1)]), 0, crop.size).astype(int)
        last = np.clip(np.ceil([row.max(1), column.max(1)]) + 1, 0, crop.size).astype(int)
        first[:, ~in_front], last[:, ~in_front] = 0, crop.size
        shown = (first < last).all(axis=0)

        as_mesh = np.flatnonzero(shown & in_front & self._moving_is_mesh)
        geom, depth = self._meshes.first_hits(
            self._moving[as_mesh], rotations[as_mesh], origins[as_mesh], scale, centre, crop.size
        )
        near = depth / -self._camera_rays[:, 2]

        as_rays = np.flatnonzero(shown & ~(in_front & self._moving_is_mesh))
        inside = np.zeros((crop.size, crop.size), dtype=bool)
        for top, left, bottom, right in zip(*first[:, as_rays], *last[:, as_rays], strict=True):
            inside[top:bottom, left:right] = True
        ray_geom, ray_near = self._cast(data, np.flatnonzero(inside), self._moving[as_rays])
        nearer = ray_near < near
        return np.where(nearer, ray_geom, geom), np.where(nearer, ray_near, near)

    def _cast(self, data: mujoco.MjData, pixels: np.ndarray, geoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cast the rays of `pixels` at `geoms`; for all pixels the geom hit (-1: none) and its distance (inf: none)."""
        geom = np.full(len(self._rays), -1, dtype=np.int32)
        distance = np.full(len(self._rays), np.inf)
        hit_geom, hit_distance = np.empty(len(pixels), dtype=np.int32), np.empty(len(pixels))
        collision_bounds = self._model.bvh_aabb[self._bounded_bodies]
        self._model.bvh_aabb[self._bounded_bodies] = self._body_bounds
        groups = self._model.geom_group.copy()
        self._model.geom_group[:] = 1
        self._model.geom_group[geoms] = 0
        mujoco.mj_multiRay(
            self._model,
            data,
            data.cam_xpos[self._camera],
            self._rays[pixels].ravel(),
            _ONLY_GROUP_0,
            1,
            -1,
            hit_geom,
            hit_distance,
            len(pixels),
            mujoco.mjMAXVAL,
        )
        self._model.bvh_aabb[self._bounded_bodies] = collision_bounds
        self._model.geom_group[:] = groups
        geom[pixels] = hit_geom
        distance[pixels] = np.where(hit_geom >= 0, hit_distance, np.inf)
        return geom, distance

    def _shade(self, geom: np.ndarray, distance: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Colours `(len(pixels), 3)` in [0, 1] of pixels that hit something, lit from the camera."""
        along_row = self._edge(geom, distance, pixels, step=1, position=pixels % self.crop.size)
        along_column = self._edge(geom, distance, pixels, step=self.crop.size, position=pixels // self.crop.size)
        normal = np.cross(along_row, along_column)
        length = np.linalg.norm(normal, axis=1)
        # A geom of one pixel's width has no measurable slope: it is drawn as if it faced the camera.
        facing = np.ones(len(pixels))
        cosine = np.abs(np.einsum("ij,ij->i", normal, self._rays[pixels]))
        np.divide(cosine, length, out=facing, where=length > 0)
        return self._colors[geom[pixels], :3] * (self.ambient + self.diffuse * facing)[:, None]

    def _edge(
        self, geom: np.ndarray, distance: np.ndarray, pixels: np.ndarray, step: int, position: np.ndarray
    ) -> np.ndarray:
        """Vector from each pixel's hit to that of the neighbour (before or after) on the same geom with the nearer
        distance; zero where neither neighbour hit the same geom."""
        own = distance[pixels]
        gaps, ends = [], []
        for offset, exists in ((-step, position > 0), (step, position < self.crop.size - 1)):
            neighbour = np.where(exists, pixels + offset, pixels)
            same = exists & (geom[neighbour] == geom[pixels])
            reach = np.where(same, distance[neighbour], own)
            gaps.append(np.where(same, np.abs(reach - own), np.inf))
            ends.append(np.where(same, neighbour, pixels))
        end = np.where(gaps[1] < gaps[0], ends[1], ends[0])
        return self._rays[end] * distance[end][:, None] - self._rays[pixels] * own[:, None]

    def _draw_goal(self, image: np.ndarray, distance: np.ndarray, centre: np.ndarray) -> None:
        """Draw a ball (`centre` in metres relative to the camera) where it is nearer than what `distance` holds."""
        along = self._rays @ centre
        under_root = along**2 - centre @ centre + GOAL_RADIUS**2
        near = along - np.sqrt(np.maximum(under_root, 0))
        seen = np.flatnonzero((under_root > 0) & (near < distance))
        normal = (self._rays[seen] * near[seen, None] - centre) / GOAL_RADIUS
        facing = np.abs(np.einsum("ij,ij->i", normal, self._rays[seen]))
        image[seen] = np.array(GOAL_COLOR) * (self.ambient + self.diffuse * facing)[:, None]


def _bounds_with_visual_geoms(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Bounding boxes that make `mj_multiRay` hit the visual geometry of a body, not only its collision geometry.

    MuJoCo 3.3.0 skips a body when the ray passes beside the body's bounding box, but builds that box from collision
    geoms alone, so that parts of shown meshes that stand out of it vanish (`mj_ray` does not do this). During a cast
    the boxes are replaced by these, which hold every geom; the 0.2 m more cover that MuJoCo compares longitudes and
    latitudes of the box's corners, between which an edge can bulge.

    Returns:
        Rows of `model.bvh_aabb`, and for each its new centre and half sizes `(rows, 6)`, metres.
    """
    bodies = np.flatnonzero(model.body_bvhadr >= 0)
    boxes = np.zeros((len(bodies), 6))
    for box, body in zip(boxes, bodies, strict=True):
        geoms = model.body_geomadr[body] + np.arange(model.body_geomnum[body])
        reach = np.linalg.norm(model.geom_pos[geoms] - model.body_ipos[body], axis=1) + model.geom_rbound[geoms]
        box[3:] = reach.max() + 0.2
    return model.body_bvhadr[bodies], boxes


def _surface_colors(model: mujoco.MjModel) -> np.ndarray:
    """RGBA `(ngeom, 4)` in [0, 1]: the geom's colour, or its material's times the mean of the material's texture."""
    colors = model.geom_rgba.astype(np.float64)
    for geom in np.flatnonzero(model.geom_matid >= 0):
        material = model.geom_matid[geom]
        # MuJoCo's rule: a colour written at the geom itself goes before the material's; 0.5, 0.5, 0.5, 1 is "unset".
        if np.array_equal(model.geom_rgba[geom], np.array([0.5, 0.5, 0.5, 1], dtype=np.float32)):
            colors[geom] = model.mat_rgba[material]
        texture = model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]
        if texture >= 0:
            channels = model.tex_nchannel[texture]
            start = model.tex_adr[texture]
            texels = model.tex_data[start : start + model.tex_height[texture] * model.tex_width[texture] * channels]
            colors[geom, :3] *= texels.reshape(-1, channels)[:, :3].mean(axis=0) / 255
    return colors


__all__ = ["RayCastRenderer"]
