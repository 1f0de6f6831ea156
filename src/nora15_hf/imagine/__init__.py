# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Looking at what a world model imagines: film strips, energy curves and ranking accuracy."""

from .film_strip import FilmStrip, RetrievedFrame
from .imagination import Imagination
from .imagine import imagine
from .page import write_page

__all__ = ["FilmStrip", "Imagination", "RetrievedFrame", "imagine", "write_page"]
