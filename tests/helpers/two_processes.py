# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs a script in several CPU processes that talk over gloo, the way `accelerate launch` starts them on GPUs."""

import subprocess
import sys
from pathlib import Path

__all__ = ["accelerate_launch"]


def accelerate_launch(script: str | Path, *arguments: object, num_processes: int = 2) -> str:
    """
    Runs `accelerate launch --num_processes N script arguments...` and returns its standard output and errors together.

    The script's `TrainingArguments` need `use_cpu=True`. `--multi_gpu` selects accelerate's launcher of one process per
    device; `--cpu` would start MPI.

    Raises:
        AssertionError: The run failed; the message ends with what it printed.
    """
    several = ["--multi_gpu"] if num_processes > 1 else []
    command = [sys.executable, "-m", "accelerate.commands.launch", *several, "--num_processes", num_processes]
    command += ["--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0]
    finished = subprocess.run(
        [str(part) for part in (*command, script, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-6000:]
    return finished.stdout
