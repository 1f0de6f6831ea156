# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Which artefact a folder contains, recognised by its files."""

from enum import Enum
from pathlib import Path

from ..data.lerobot_layout import INFO_PATH
from ..preferences.preference_record import PROVENANCE_FILE
from ..repo_files.checkpoint import MODEL_TYPES
from ..repo_files.json_files import read_json

__all__ = ["Artefact", "find_artefact"]


class Artefact(Enum):
    """What this package writes to folders and repos."""

    POLICY = "policy"
    WORLD_MODEL = "world model"
    ADAPTER = "LoRA adapter"
    PROCESSOR = "processor"
    ACTION_CODEC = "FAST codec"
    SCHEDULER = "scheduler"
    PREFERENCES = "preference dataset"
    DEMONSTRATIONS = "demonstrations"

    @property
    def repo_type(self) -> str:
        """`"dataset"` or `"model"`."""
        return "dataset" if self in (Artefact.PREFERENCES, Artefact.DEMONSTRATIONS) else "model"


def find_artefact(folder: str | Path) -> Artefact:
    """
    The artefact that a folder holds.

    Args:
        folder (`str` or `Path`): What `save_pretrained`, `build_preferences` or `LeRobotWriter` wrote.

    Raises:
        NotADirectoryError: `folder` is no folder.
        ValueError: It holds none of the artefacts, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"`folder` is {str(folder)!r}, which is not an existing folder.")
    if (folder / INFO_PATH).is_file():
        return Artefact.DEMONSTRATIONS
    if (folder / PROVENANCE_FILE).is_file():
        return Artefact.PREFERENCES
    if (folder / "adapter_config.json").is_file():
        return Artefact.ADAPTER
    if (folder / "config.json").is_file():
        model_type = read_json(folder / "config.json").get("model_type")
        if model_type in MODEL_TYPES:
            return Artefact(MODEL_TYPES[model_type])
    elif (folder / "processor_config.json").is_file():
        settings = read_json(folder / "processor_config.json")
        return Artefact.ACTION_CODEC if "min_token" in settings else Artefact.PROCESSOR
    elif (folder / "scheduler_config.json").is_file():
        return Artefact.SCHEDULER
    raise ValueError(
        f"`folder` {str(folder)!r} contains no artefact of this package. Expected config.json of a {' or '.join(MODEL_TYPES)} "
        f"model, adapter_config.json, processor_config.json, scheduler_config.json, {INFO_PATH} or {PROVENANCE_FILE}."
    )
