# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether OpenGL can draw on this machine without a screen."""

import os
import subprocess
import sys
from functools import cache

OPENGL_PLATFORMS = ("egl", "osmesa")
_DEBIAN_PACKAGES = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6"}

_TRIAL = """
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
def opengl_works(platform: str) -> bool:
    """Draw a ball in another process: a broken driver may crash, hang or leave this process without a context."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL.format(platform=platform)],
            env=environment | {"MUJOCO_GL": platform},
            capture_output=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return False
    return trial.returncode == 0


def require_opengl(platform: str, otherwise: str) -> None:
    """Refuse a platform of `OPENGL_PLATFORMS` that does not work here.

    Args:
        platform (`str`): `"egl"` or `"osmesa"`.
        otherwise (`str`): what else a user can do, the end of a sentence.

    Raises:
        OSError: with the command that installs the library on Debian.
    """
    if not opengl_works(platform):
        raise OSError(
            f"OpenGL through {platform} does not work on this machine. Install its library "
            f"(Debian: apt-get install {_DEBIAN_PACKAGES[platform]}), or {otherwise}."
        )


__all__ = ["OPENGL_PLATFORMS", "opengl_works", "require_opengl"]
