# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Imports inside the package run one way: the way that docs/architecture.md draws."""

import ast
from functools import cache
from pathlib import Path

import nora15_hf
from helpers.paths import ROOT

PACKAGE = Path(nora15_hf.__file__).parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
SIMULATORS = {"metaworld", "mujoco", "gymnasium", "glfw", "OpenGL"}


def folder_order() -> dict[str, int]:
    """Folder (or module of the package) to its place in the documented line, from the left."""
    (line,) = [line for line in ARCHITECTURE.read_text(encoding="utf-8").splitlines() if line.startswith("repo_files")]
    return {name: place for place, group in enumerate(line.split(" ─► ")) for name in group.split(", ")}


@cache
def imports() -> list[tuple[str, str, str]]:
    """Place in the code, folder that imports, and what it imports: a folder of the package, or another package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.name == "__init__.py" and len(inside.parts) == 1:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{inside}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                found += [(where, inside.with_suffix("").parts[0], alias.name.split(".")[0]) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parents = inside.parent.parts[: len(inside.parent.parts) - node.level + 1] if node.level else ()
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found += [(where, inside.with_suffix("").parts[0], (*parents, *name.split("."))[0]) for name in names]
    return found


def test_imports_run_the_documented_way():
    order = folder_order()
    found = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found == order.keys()
    wrong = [
        f"{where}: {importer} imports {imported}"
        for where, importer, imported in imports()
        if imported == "nora15_hf"
        or (imported in order and imported != importer and order[imported] >= order[importer])
    ]
    assert wrong == []


def test_only_simulation_imports_simulators():
    assert [
        where for where, importer, imported in imports() if imported in SIMULATORS and importer != "simulation"
    ] == []
