# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Defaults and choices that the library has, for the options that set them, read from its source: importing it takes seconds."""

import ast
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def library_defaults(file: str, name: str) -> dict[str, Any]:
    """
    Defaults of a function's arguments or of a dataclass's fields.

    Args:
        file (`str`): Path inside the package, for example `"imagine/imagine.py"`.
        name (`str`): Of the function or class; of a class with an `__init__` its arguments count.

    Returns:
        `dict`: Name of the argument or field to its default, of those whose default is a literal.
    """
    (found,) = [node for node in _body(file) if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
    if isinstance(found, ast.ClassDef):
        found = next(
            (each for each in found.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), found
        )
    if isinstance(found, ast.ClassDef):
        values = {node.target.id: node.value for node in found.body if isinstance(node, ast.AnnAssign)}
    else:
        positional = found.args.args[len(found.args.args) - len(found.args.defaults) :]
        arguments, defaults = [*positional, *found.args.kwonlyargs], [*found.args.defaults, *found.args.kw_defaults]
        values = {argument.arg: value for argument, value in zip(arguments, defaults, strict=True)}
    return {key: value.value for key, value in values.items() if isinstance(value, ast.Constant)}


def library_choices(file: str, name: str) -> list[str]:
    """The members of a module's constant, or the keys of one that is a dictionary; `file` as above."""
    for node in _body(file):
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == name:
            return list(ast.literal_eval(node.value))
    raise LookupError(f"{file} defines no {name}.")


def _body(file: str) -> list[ast.stmt]:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body


__all__ = ["library_choices", "library_defaults"]
