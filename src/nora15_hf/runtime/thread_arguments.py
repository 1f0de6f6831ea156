# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The option `--threads`."""

from dataclasses import dataclass, field


@dataclass
class ThreadArguments:
    """What every command that computes takes besides its own arguments, for [`~nora15_hf.runtime.cpu_threads.choose_threads`]."""

    threads: int | None = field(
        default=None,
        metadata={
            "help": "number of PyTorch threads on the CPU (default: the number of free CPUs, adjusted while the command runs)"
        },
    )


__all__ = ["ThreadArguments"]
