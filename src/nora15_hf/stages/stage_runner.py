# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs the stages of a run in order, remembers which are finished, and continues after a kill."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..repo_files.json_files import write_json
from ..repo_files.run_folder import LOCK_FILE, RUN_FILE, open_run_folder
from ..runtime.cpu_threads import keep_threads
from .memory import PeakMemory

SECONDS_BETWEEN_LOOKS = 0.2
"""At the record of a stage that the first of several processes runs."""
PATIENCE = 120.0
"""Seconds between two stages of the first process, after which the others take it for dead."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What a stage took: wall-clock `seconds` and the peak resident memory of all processes in MiB."""

    name: str
    seconds: float
    peak_memory_mib: float


class StageRunner:
    """
    Runs stages once each. A stage reads its inputs from the output folder and nothing from memory, so that a resumed run
    gives the result of an uninterrupted one; what a killed stage left behind is removed before it starts again.

    Args:
        output (`Path`): The output folder.
        state_folder (`str`): In it, where the results of the stages are kept; runs of other kinds have others.
        settings (`Mapping[str, Any]`): Of the run, what JSON can hold; a resumed run must have the same.
        made_by (`str`): What makes such folders, as messages call it.
        resume (`bool`): Continue what `output` holds.
        overwrite (`bool`): Remove what `output` holds.
        num_stages (`int`): For the progress lines.
        is_main_process (`bool`, *optional*, defaults to `True`):
            Of several processes of one run, the first opens the folder before the others, and it alone writes results; the
            others wait for them.

    Raises:
        FileExistsError: The folder is not empty and neither `resume` nor `overwrite` is given.
        ValueError: `resume` and `overwrite` together, or `resume` with another configuration.
    """

    def __init__(
        self,
        output: Path,
        state_folder: str,
        settings: Mapping[str, Any],
        *,
        made_by: str,
        resume: bool,
        overwrite: bool,
        num_stages: int,
        is_main_process: bool = True,
    ):
        self.output, self.num_stages, self.is_main_process = output, num_stages, is_main_process
        self.costs: list[StageCost] = []
        self._lock = output / state_folder / LOCK_FILE
        self._state = open_run_folder(
            output,
            state_folder,
            settings,
            made_by=made_by,
            # What the first process has made or removed.
            resume=resume or not is_main_process,
            overwrite=overwrite and is_main_process,
        )
        if is_main_process:
            keep_threads(self._state / RUN_FILE)

    def _record(self, name: str) -> Path:
        return self._state / f"{name}.json"

    def is_finished(self, name: str) -> bool:
        """Whether a stage has its result, of this run or of the one that is continued."""
        return self._record(name).exists()

    def run(
        self,
        name: str,
        title: str,
        stage: Callable[[], dict[str, Any]],
        folders: tuple[str, ...] = (),
        *,
        on_all_processes: bool = False,
    ) -> dict[str, Any]:
        """
        Runs a stage unless it is finished.

        Args:
            name (`str`): Key of the stage.
            title (`str`): What it does, for the progress line.
            stage (`Callable`): Does it; returns a result that JSON can hold.
            folders (`tuple[str, ...]`): What it writes below the output folder, and begins anew after a kill.
            on_all_processes (`bool`, *optional*, defaults to `False`): Not only on the first, as a training is.

        Returns:
            `dict`: The stage's result, of this run or of the one that finished it.

        Raises:
            RuntimeError: On another process than the first, which has ended before the stage was finished.
        """
        record = self._record(name)
        heading = f"[{len(self.costs) + 1}/{self.num_stages}] {title}"
        if self.is_finished(name):
            self._tell(f"{heading}: done before")
        elif not self.is_main_process:
            if on_all_processes:
                stage()
            self._wait_for(name)
        else:
            self._tell(heading)
            for folder in folders:
                shutil.rmtree(self.output / folder, ignore_errors=True)
            start = time.perf_counter()
            # Its release, however this process ends, tells the others whether it is still at work.
            with FileLock(self._lock), PeakMemory() as peak:
                result = stage()
            seconds = time.perf_counter() - start
            write_json(record, {"seconds": seconds, "peak_memory_mib": peak.mebibytes, "result": result})
            self._tell(f"      {seconds:.0f} s, peak memory {peak.mebibytes:.0f} MiB")
        # Read back even when just written: a fresh and a resumed run then go on from the same numbers.
        saved = json.loads(record.read_text())
        self.costs.append(StageCost(name=title, seconds=saved["seconds"], peak_memory_mib=saved["peak_memory_mib"]))
        return saved["result"]

    def _wait_for(self, name: str) -> None:
        """
        Until the first process has finished a stage.

        Raises:
            RuntimeError: It has ended without.
        """
        seen = time.monotonic()
        while not self.is_finished(name):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            lock = FileLock(self._lock)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                seen = time.monotonic()
                continue
            lock.release()
            if time.monotonic() - seen > PATIENCE and not self.is_finished(name):
                raise RuntimeError(
                    f"The first process of this run has not been at work for {PATIENCE:.0f} s, and the stage {name!r} is not "
                    "finished. Look at its messages for why it ended, and continue the run."
                )

    def _tell(self, line: str) -> None:
        if self.is_main_process:
            # Above the progress bars, where there are any.
            tqdm.write(line)
            sys.stdout.flush()


__all__ = ["StageCost", "StageRunner"]
