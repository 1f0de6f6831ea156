# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Defaults that the library's functions have, for the options that set them."""

import ast
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def library_defaults(file: str, name: str) -> dict[str, Any]:
    """
    Defaults of a function's arguments or of a dataclass's fields, read from the source. Importing it would take seconds,
    which `--help` need not wait for.

    Args:
        file (`str`): Path inside the package, for example `"imagine/imagine.py"`.
        name (`str`): Of the function or class.

    Returns:
        `dict`: Name of the argument or field to its default, of those whose default is a literal.
    """
    body = ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body
    (found,) = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name]
    if isinstance(found, ast.ClassDef):
        values = {node.target.id: node.value for node in found.body if isinstance(node, ast.AnnAssign)}
    else:
        values = {
            argument.arg: value for argument, value in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
        }
    return {key: value.value for key, value in values.items() if isinstance(value, ast.Constant)}


__all__ = ["library_defaults"]
