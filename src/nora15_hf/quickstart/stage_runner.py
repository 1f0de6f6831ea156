# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs the stages of a quickstart in order, remembers which are finished, and continues after a kill."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..repo_files.json_files import write_json
from ..repo_files.run_folder import RUN_FILE, open_run_folder
from ..runtime.cpu_threads import keep_threads
from .config import QuickstartConfig
from .memory import PeakMemory
from .report_data import StageCost

STATE_FOLDER = ".quickstart"


class StageRunner:
    """
    Runs stages once each. A stage reads its inputs from the output folder and nothing from memory, so that a resumed run
    gives the result of an uninterrupted one; what a killed stage left behind is removed before it starts again.

    Args:
        output (`Path`): The output folder.
        config ([`QuickstartConfig`]): The run; a resumed run must be configured alike.
        resume (`bool`): Continue what `output` holds.
        overwrite (`bool`): Remove what `output` holds.
        num_stages (`int`): For the progress lines.

    Raises:
        FileExistsError: The folder is not empty and neither `resume` nor `overwrite` is given.
        ValueError: `resume` and `overwrite` together, or `resume` with another configuration.
    """

    def __init__(self, output: Path, config: QuickstartConfig, *, resume: bool, overwrite: bool, num_stages: int):
        self.output, self.num_stages = output, num_stages
        self.costs: list[StageCost] = []
        state = open_run_folder(
            output, STATE_FOLDER, asdict(config), made_by="a quickstart", resume=resume, overwrite=overwrite
        )
        keep_threads(state / RUN_FILE)

    def _record(self, name: str) -> Path:
        return self.output / STATE_FOLDER / f"{name}.json"

    def is_finished(self, name: str) -> bool:
        """Whether a stage has its result, of this run or of the one that is continued."""
        return self._record(name).exists()

    def run(
        self, name: str, title: str, stage: Callable[[], dict[str, Any]], folders: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """
        Runs a stage unless it is finished.

        Args:
            name (`str`): Key of the stage.
            title (`str`): What it does, for the progress line.
            stage (`Callable`): Does it; returns a result that JSON can hold.
            folders (`tuple[str, ...]`): What it writes below the output folder.

        Returns:
            `dict`: The stage's result, of this run or of the one that finished it.
        """
        record = self._record(name)
        heading = f"[{len(self.costs) + 1}/{self.num_stages}] {title}"
        if self.is_finished(name):
            _tell(f"{heading}: done before")
        else:
            _tell(heading)
            for folder in folders:
                shutil.rmtree(self.output / folder, ignore_errors=True)
            start = time.perf_counter()
            with PeakMemory() as peak:
                result = stage()
            seconds = time.perf_counter() - start
            write_json(record, {"seconds": seconds, "peak_memory_mib": peak.mebibytes, "result": result})
            _tell(f"      {seconds:.0f} s, peak memory {peak.mebibytes:.0f} MiB")
        # Read back even when just written: a fresh and a resumed run then go on from the same numbers.
        saved = json.loads(record.read_text())
        self.costs.append(StageCost(name=title, seconds=saved["seconds"], peak_memory_mib=saved["peak_memory_mib"]))
        return saved["result"]


def _tell(line: str) -> None:
    # Above the progress bars, where there are any.
    tqdm.write(line)
    sys.stdout.flush()


__all__ = ["STATE_FOLDER", "StageRunner"]
