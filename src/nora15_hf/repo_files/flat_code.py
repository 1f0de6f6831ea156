# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The code of a class as the Hub runs it: every module that it needs, in one flat folder."""

import ast
import inspect
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["code_files", "write_code"]


def write_code(folder: Path, auto_classes: Mapping[str, Mapping[str, type]]) -> None:
    """Writes what [`code_files`] returns into `folder`."""
    for name, content in code_files(folder, auto_classes).items():
        (folder / name).write_bytes(content)


def code_files(folder: Path, auto_classes: Mapping[str, Mapping[str, type]]) -> dict[str, bytes]:
    """
    What turns a saved folder into a repo that `trust_remote_code=True` loads without this package.

    transformers copies and imports modules of one flat folder only. So the modules that a class needs are collected
    through their relative imports, wherever in the package they lie, and those imports are rewritten to siblings.

    Args:
        folder (`Path`): Of a saved model or processor. It is left as it is.
        auto_classes (`Mapping[str, Mapping[str, type]]`):
            Configuration file to (name of an `Auto` class to our class). Files that the folder lacks are passed over.

    Returns:
        `dict[str, bytes]`: Name to content: the modules, and the configuration files with `auto_map`.

    Raises:
        ValueError: Two modules have one name, or one imports from a package's `__init__` instead of a module.
    """
    files: dict[str, bytes] = {}
    for name, classes in auto_classes.items():
        if not (folder / name).is_file():
            continue
        for defined in classes.values():
            files |= _flat_modules(defined)
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        settings["auto_map"] = {auto_class: _reference(defined) for auto_class, defined in classes.items()}
        files[name] = (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def _flat_modules(defined: type) -> dict[str, bytes]:
    """The module that defines a class and all that it imports relatively, with flat imports; file name to content."""
    sources: dict[str, Path] = {}
    flat: dict[str, bytes] = {}
    waiting = [Path(inspect.getfile(defined))]
    while waiting:
        path = waiting.pop()
        if sources.setdefault(path.name, path) != path:
            raise ValueError(
                f"{path} and {sources[path.name]} would both be {path.name} in a repo with code, where all modules lie in "
                "one folder: rename one of them."
            )
        if path.name in flat:
            continue
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.ImportFrom) and node.level:
                imported = _imported_module(path, node)
                waiting.append(imported)
                spelt = "." * node.level + node.module
                line = node.lineno - 1
                lines[line] = lines[line].replace(f"from {spelt} import", f"from .{imported.stem} import", 1)
        flat[path.name] = "".join(lines).encode()
    return flat


def _imported_module(path: Path, node: ast.ImportFrom) -> Path:
    module = path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
    if not module.is_file():
        raise ValueError(
            f"{path}, line {node.lineno}: imports from {'.' * node.level}{node.module or ''}, which is not a module but a "
            "package. Code that is pushed with a model imports from the modules that define the names."
        )
    return module


def _reference(defined: type) -> str:
    return f"{Path(inspect.getfile(defined)).stem}.{defined.__name__}"
