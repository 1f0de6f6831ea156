# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which triangle of some meshes each pixel's ray meets first, for all triangles at once.

Gives what casting the rays at the meshes gives, several times faster: the robot's meshes have ten thousand triangles
each, most of them smaller than a pixel, so that sorting out the triangles that hold no pixel's centre leaves little.
"""

import mujoco
import numpy as np


class MeshRasterizer:
    """The triangles of some mesh geoms of a model.

    Args:
        model (`mujoco.MjModel`): where the meshes are.
        geoms (`np.ndarray`): indices of geoms of type mesh.
    """

    def __init__(self, model: mujoco.MjModel, geoms: np.ndarray):
        self._vertices: dict[int, np.ndarray] = {}
        self._triangles: dict[int, np.ndarray] = {}
        for geom in geoms:
            mesh = model.mesh(model.geom_dataid[geom])
            first_vertex, first_face = mesh.vertadr[0], mesh.faceadr[0]
            self._vertices[geom] = model.mesh_vert[first_vertex : first_vertex + mesh.vertnum[0]].astype(np.float64)
            faces = model.mesh_face[first_face : first_face + mesh.facenum[0]]
            self._triangles[geom] = np.ascontiguousarray(faces.T, dtype=np.intp)

    def first_hits(
        self,
        geoms: np.ndarray,
        to_camera: np.ndarray,
        origins: np.ndarray,
        scale: float,
        centre: tuple[float, float],
        size: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rasterise geoms that lie wholly in front of the camera.

        Args:
            geoms (`np.ndarray` of shape `(G,)`): which of the geoms.
            to_camera (`np.ndarray` of shape `(G, 3, 3)`): rotations from the geoms' frames to the picture's: x to the
                right, y down, z into the scene.
            origins (`np.ndarray` of shape `(G, 3)`): the geoms' places in the picture's frame, metres.
            scale (`float`): focal length, pixels.
            centre (`tuple[float, float]`): column and row of the optical axis; pixel centres are whole numbers.
            size (`int`): side of the picture, pixels.

        Returns:
            For each pixel (row by row) the geom, -1 for none, and the depth z in metres, infinite for none.
        """
        geom_at, depth_at = np.full(size * size, -1, dtype=np.int32), np.full(size * size, np.inf)
        if len(geoms) == 0:
            return geom_at, depth_at
        points, corners, owners, count = [], [], [], 0
        for geom, rotation, origin in zip(geoms, to_camera, origins, strict=True):
            points.append(self._vertices[geom] @ rotation.T + origin)
            corners.append(self._triangles[geom] + count)
            owners.append(np.full(corners[-1].shape[1], geom, dtype=np.int32))
            count += len(points[-1])
        x, y, z = np.concatenate(points).T
        inverse_depth = 1 / z
        column, row = x * inverse_depth * scale + centre[0], y * inverse_depth * scale + centre[1]
        a, b, c = np.concatenate(corners, axis=1)

        # A triangle can hold a pixel's centre only if its corners lie on different sides of some whole column and of
        # some whole row. Both tests are made at once on one number per corner.
        cell_column, cell_row = (np.clip(np.ceil(at), 0, size).astype(np.int64) for at in (column, row))
        cell = cell_column << 32 | cell_row
        differing = (cell[a] ^ cell[b]) | (cell[a] ^ cell[c])
        holding = np.flatnonzero((differing >> 32 != 0) & (differing & 0xFFFFFFFF != 0))
        a, b, c, owner = a[holding], b[holding], c[holding], np.concatenate(owners)[holding]
        left, width = _range_of_three(cell_column[a], cell_column[b], cell_column[c])
        top, height = _range_of_three(cell_row[a], cell_row[b], cell_row[c])
        pixels_per_triangle = width * height

        # One entry per triangle and pixel of its bounding rectangle.
        triangle = np.repeat(np.arange(len(a)), pixels_per_triangle)
        within = np.arange(len(triangle)) - np.repeat(
            np.cumsum(pixels_per_triangle) - pixels_per_triangle, pixels_per_triangle
        )
        pixel_row, pixel_column = np.divmod(within, width[triangle])
        pixel_column += left[triangle]
        pixel_row += top[triangle]
        ends = [(column[end][triangle] - pixel_column, row[end][triangle] - pixel_row) for end in (a, b, c)]
        weights = [
            first[0] * second[1] - first[1] * second[0]
            for first, second in ((ends[1], ends[2]), (ends[2], ends[0]), (ends[0], ends[1]))
        ]
        area = weights[0] + weights[1] + weights[2]
        sign = np.sign(area)
        inside = np.flatnonzero(
            (area != 0) & (np.minimum(np.minimum(weights[0] * sign, weights[1] * sign), weights[2] * sign) >= 0)
        )
        triangle = triangle[inside]
        # The inverse of the depth, unlike the depth, is linear in the picture.
        inverse = (
            sum(weight[inside] * inverse_depth[end][triangle] for weight, end in zip(weights, (a, b, c), strict=True))
            / area[inside]
        )
        nearest_last = np.argsort(inverse, kind="stable")
        pixel = (pixel_row[inside] * size + pixel_column[inside])[nearest_last]
        geom_at[pixel] = owner[triangle[nearest_last]]
        depth_at[pixel] = 1 / inverse[nearest_last]
        return geom_at, depth_at


def _range_of_three(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least of three, and how far the greatest lies above it."""
    least = np.minimum(np.minimum(first, second), third)
    return least, np.maximum(np.maximum(first, second), third) - least


__all__ = ["MeshRasterizer"]
