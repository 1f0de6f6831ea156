# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The output folder of a run that can be interrupted and continued."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .json_files import read_json, write_json
from .settings import as_json, differing_settings

RUN_FILE = "run.json"
LOCK_FILE = "stage.lock"
"""Held while a stage of the run is at work."""
SETTINGS = "settings"


def open_run_folder(
    output: Path, state_folder: str, settings: Mapping[str, Any], *, made_by: str, resume: bool, overwrite: bool
) -> Path:
    """
    A folder for a new run, or that of the run that is to be continued.

    Args:
        output (`Path`): The output folder.
        state_folder (`str`): In it, where the run keeps what it needs to be continued; others have other names.
        settings (`Mapping[str, Any]`): What JSON can hold. A run that is continued has the same.
        made_by (`str`): What makes such folders, as messages call it.
        resume (`bool`): Continue what `output` holds; an empty folder is a new run.
        overwrite (`bool`): Remove what `output` holds, if it was made by the same.

    Returns:
        `Path`: The state folder, with the settings in its `run.json`.

    Raises:
        FileExistsError: The folder is not empty and neither `resume` nor `overwrite` is given, or was made by others.
        ValueError: `resume` and `overwrite` together, or `resume` with other settings.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other: keep the existing run or remove it.")
    settings = as_json(settings)
    state = output / state_folder
    run_file = state / RUN_FILE
    if output.exists() and any(output.iterdir()) and not _is_unused(output, state):
        if not (resume or overwrite):
            raise FileExistsError(
                f"The output folder {output} is not empty. Pass --resume to continue that run, --overwrite to remove "
                "it, or another --output."
            )
        if not state.is_dir():
            raise FileExistsError(
                f"The output folder {output} was not created by {made_by}, so it is not changed. Choose another --output "
                "or remove the folder yourself."
            )
        if overwrite:
            shutil.rmtree(output)
        elif run_file.exists() and (differing := differing_settings(read_json(run_file)[SETTINGS], settings)):
            listed = "; ".join(f"{name}: {found!r}, now {now!r}" for name, (found, now) in differing.items())
            raise ValueError(
                f"{output} holds a run with other settings ({listed}). Repeat that run's options with --resume, or start "
                "again with --overwrite or another --output."
            )
    state.mkdir(parents=True, exist_ok=True)
    # Also of a run that was killed before it had written them, or ended before it had done anything.
    if not run_file.exists() or differing_settings(read_json(run_file)[SETTINGS], settings):
        write_json(run_file, {SETTINGS: settings})
    return state


def _is_unused(output: Path, state: Path) -> bool:
    """Whether a run wrote its settings and then ended, as one whose inputs do not fit each other, so that nothing is lost."""
    return {file.name for file in output.iterdir()} == {state.name} and (
        {file.name for file in state.iterdir()} <= {RUN_FILE, LOCK_FILE}
    )


__all__ = ["RUN_FILE", "open_run_folder"]
