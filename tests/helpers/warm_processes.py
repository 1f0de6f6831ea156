# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Processes that begin with the libraries imported, for what cannot run in the test's own.

A server imports them when a test first asks for a process, and every process is a fork of it: imports take longer than nearly
everything that tests run. Nothing else of the test's process is there but the arguments and the environment. Variables that a
library reads while it is imported have the values of the first call.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

from torch.distributed import TCPStore
from torch.multiprocessing import start_processes

__all__ = ["FORKSERVER", "run_process", "run_processes"]

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    ["pytest", "nora15_hf.commands.sft", "nora15_hf.commands.world_model", "nora15_hf.quickstart.quickstart"]
)


def run_process(function: Callable, *arguments: object, output: Path, **variables: str) -> int:
    """
    Runs a function of a module in a process and in a session of its own.

    Args:
        function (`Callable`): What it returns is the exit code; None is 0.
        arguments: What it is called with.
        output (`Path`): File that the process, and all that it starts, write their standard output and errors to.
        variables: Environment variables beside those of this process.

    Returns:
        `int`: The exit code; that of a process that a signal ended is the signal's negative number.
    """
    process = FORKSERVER.Process(target=_run, args=(os.environ | variables, output, function, arguments))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    return process.exitcode


def run_processes(function: Callable, *arguments: object, num_processes: int = 2) -> None:
    """
    Runs a function of a module in several processes that find each other through their environment, as `torchrun` starts them.

    On the CPU they talk over gloo; the function's `TrainingArguments` need `use_cpu=True`.

    Raises:
        ProcessException: One of them failed, and the others were ended; the message holds its traceback.
    """
    # Held here and not by the first of them, on a port that is free.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    variables |= {name: str(num_processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    started = start_processes(
        _run_rank,
        (os.environ | variables, function, arguments),
        nprocs=num_processes,
        join=False,
        start_method="forkserver",
    )
    try:
        while not started.join():
            pass
    finally:
        for process in started.processes:
            process.kill()


def _run(environment: dict[str, str], output: Path, function: Callable, arguments: tuple) -> None:
    os.setsid()
    _set_environment(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    sys.exit(function(*arguments))


def _run_rank(rank: int, environment: dict[str, str], function: Callable, arguments: tuple) -> None:
    _set_environment(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    function(*arguments)


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
