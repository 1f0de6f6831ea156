# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which renderer draws the pictures: OpenGL where it works, rays everywhere.

Pictures of two renderers show the same and differ in their shading. They must never be mixed in one data set, or between
training and evaluation.
"""

import logging
import os
import subprocess
import sys
from functools import cache

import mujoco

from .opengl_renderer import OpenGLRenderer
from .raycast_renderer import RayCastRenderer

logger = logging.getLogger(__name__)

RENDERERS = ("auto", "raycast", "egl", "osmesa")
OPENGL_PLATFORMS = RENDERERS[2:]

_OPENGL_TRIAL = """
import numpy as np, mujoco, mujoco.{platform} as gl
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model); mujoco.mj_forward(model, data)
context = gl.GLContext(32, 32); context.make_current()
model.vis.global_.offwidth = model.vis.global_.offheight = 32
render = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, render)
scene = mujoco.MjvScene(model, 10)
mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, mujoco.MjvCamera(), mujoco.mjtCatBit.mjCAT_ALL, scene)
area = mujoco.MjrRect(0, 0, 32, 32); picture = np.zeros((32, 32, 3), np.uint8)
mujoco.mjr_render(area, scene, render); mujoco.mjr_readPixels(picture, None, area, render)
assert picture.std() > 5
"""


@cache
def _opengl_works(platform: str) -> bool:
    """Draw a ball in another process: a broken driver may crash, hang or leave this process without a context."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _OPENGL_TRIAL.format(platform=platform)],
            env=environment | {"MUJOCO_GL": platform},
            capture_output=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return False
    return trial.returncode == 0


@cache
def available_renderer(preference: str = "auto") -> str:
    """The name of the renderer to use on this machine.

    Args:
        preference (`str`, defaults to `"auto"`): `"auto"` takes OpenGL if it works and casts rays otherwise (and
            logs that, once per process); `"raycast"`, `"egl"` and `"osmesa"` ask for that one.

    Returns:
        `str`: `"egl"`, `"osmesa"` or `"raycast"`.

    Raises:
        ValueError: unknown name.
        OSError: the OpenGL platform that was asked for by name does not work here.
    """
    if preference == "raycast":
        return preference
    if preference == "auto":
        for platform in OPENGL_PLATFORMS:
            if _opengl_works(platform):
                return platform
        logger.warning("OpenGL does not work on this machine; pictures are drawn by casting rays (renderer=raycast).")
        return "raycast"
    if preference not in OPENGL_PLATFORMS:
        raise ValueError(f"Unknown renderer {preference!r}. Renderers: {', '.join(RENDERERS)}.")
    if not _opengl_works(preference):
        raise OSError(
            f"OpenGL through {preference} does not work on this machine. Install its library "
            '(Debian: libegl1 libgl1, or libosmesa6), or use renderer="raycast", which needs none.'
        )
    return preference


def make_renderer(name: str, model: mujoco.MjModel, image_size: int) -> RayCastRenderer | OpenGLRenderer:
    """Build the renderer that `available_renderer` named."""
    if name == "raycast":
        return RayCastRenderer(model, image_size)
    return OpenGLRenderer(model, image_size, platform=name)


__all__ = ["available_renderer", "make_renderer"]
