# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""JSON files that hold an object: read with an error that names the file, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from .written_whole import written_whole


def read_json(file: str | os.PathLike) -> dict[str, Any]:
    """
    The object in a JSON file.

    Raises:
        ValueError: The file is not valid JSON, or holds something else than an object.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is a {type(content).__name__}, expected a JSON object.")
    return content


def write_json(file: str | os.PathLike, content: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with written_whole(file) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


__all__ = ["read_json", "write_json"]
