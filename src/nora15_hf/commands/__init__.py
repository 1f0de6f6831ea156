# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The `nora15` command: a module for each command, with the dataclass of its arguments and `run`, which calls the library.

The dataclass gives the options of the command line, the keys of `--config`'s YAML file, and their defaults. Commands are
imported when they are called. Those that do not train import the library inside `run`: `--help` and a wrong option then
need no torch.
"""

from .dispatcher import main

__all__ = ["main"]
