# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The `nora15` script.

It stands beside the package, since to import a part of a package is to run its `__init__` first: here that loads torch,
transformers and the models, which takes seconds and of which `nora15 --help` makes no use.
"""

import importlib.util
import sys


def main() -> int:
    """Runs the command line of the process and returns its exit code."""
    spec = importlib.util.find_spec("nora15_hf")
    package = importlib.util.module_from_spec(spec)
    sys.modules["nora15_hf"] = package
    from nora15_hf.commands.dispatcher import parse, run

    command = parse()
    spec.loader.exec_module(package)
    return run(command)


__all__ = ["main"]
