# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a Meta-World scene by OpenGL."""

import importlib

import mujoco
import numpy as np

from .camera import CAMERA, GOAL_COLOR, GOAL_RADIUS, Crop


class OpenGLRenderer:
    """Draws with MuJoCo's OpenGL renderer in its fast mode (no shadows, reflections or multisampling).

    Args:
        model (`mujoco.MjModel`): the environment's model; its off-screen samples and shadow map are switched off.
        image_size (`int`): side of the picture, pixels.
        platform (`str`): `"egl"` or `"osmesa"`.
    """

    def __init__(self, model: mujoco.MjModel, image_size: int, platform: str):
        self.crop = Crop.for_image_size(image_size)
        self._model = model
        field = self.crop.field
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = field
        # The context is made here rather than by mujoco.Renderer because that one is bound to whatever the
        # variable MUJOCO_GL said when mujoco was first imported.
        self._gl = importlib.import_module(f"mujoco.{platform}").GLContext(field, field)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(CAMERA).id
        self._field = np.empty((field, field, 3), dtype=np.uint8)

    def render(self, data: mujoco.MjData, goal: np.ndarray | None = None) -> np.ndarray:
        """Draw the present state; arguments and result as in [`RayCastRenderer.render`].

        Raises:
            RuntimeError: OpenGL delivered a picture without content.
        """
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        if goal is not None:
            self._scene.ngeom += 1
            mujoco.mjv_initGeom(
                self._scene.geoms[self._scene.ngeom - 1],
                mujoco.mjtGeom.mjGEOM_SPHERE,
                np.full(3, GOAL_RADIUS),
                np.asarray(goal, dtype=np.float64),
                np.eye(3).ravel(),
                np.array([*GOAL_COLOR, 1], dtype=np.float32),
            )
        area = mujoco.MjrRect(0, 0, self.crop.field, self.crop.field)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(self._field, None, area, self._context)
        # OpenGL's first row is the lowest: read upwards it is already turned vertically, and the columns are left.
        top, left, size = self.crop.top, self.crop.left, self.crop.size
        image = self._field[:, ::-1][top : top + size, left : left + size].copy()
        if image.std() < 5:
            raise RuntimeError(
                "OpenGL returned an empty image (a single colour). Its driver does not work here; "
                'use renderer="raycast", which needs no OpenGL.'
            )
        return image

    def close(self) -> None:
        """Free the OpenGL context."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()


__all__ = ["OpenGLRenderer"]
