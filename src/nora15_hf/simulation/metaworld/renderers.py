# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which renderer draws the pictures: OpenGL where it works, rays everywhere.

Pictures of two renderers show the same and differ in their shading. They must never be mixed in one data set, or between
training and evaluation.
"""

import logging
from functools import cache

import mujoco

from ..opengl import OPENGL_PLATFORMS, opengl_works, require_opengl
from .opengl_renderer import OpenGLRenderer
from .raycast_renderer import RayCastRenderer

logger = logging.getLogger(__name__)

RENDERERS = ("auto", "raycast", "egl", "osmesa")


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
            if opengl_works(platform):
                return platform
        logger.warning("OpenGL does not work on this machine; images are rendered by ray casting (renderer=raycast).")
        return "raycast"
    if preference not in OPENGL_PLATFORMS:
        raise ValueError(f"Unknown renderer {preference!r}. Renderers: {', '.join(RENDERERS)}.")
    require_opengl(preference, 'use renderer="raycast", which needs none')
    return preference


def make_renderer(name: str, model: mujoco.MjModel, image_size: int) -> RayCastRenderer | OpenGLRenderer:
    """Build the renderer that `available_renderer` named."""
    if name == "raycast":
        return RayCastRenderer(model, image_size)
    return OpenGLRenderer(model, image_size, platform=name)


__all__ = ["available_renderer", "make_renderer"]
