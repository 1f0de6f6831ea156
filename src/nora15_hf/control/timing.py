# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How long each part of a call took, with the accelerator's queue drained before the clock is read."""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

PHASES = ("preprocess", "prefix", "denoise")


@dataclass(frozen=True)
class ControlTiming:
    """
    Milliseconds of one call; the three parts are 0 when the action came from an earlier chunk.

    Args:
        preprocess (`float`): Images and instruction to tensors on the model's device.
        prefix (`float`): The backbone's pass over the prompt; 0 with the FAST decoder, which does it in `denoise`.
        denoise (`float`): Integration of the flow, or generation of the FAST tokens.
        total (`float`): The whole call, with checks and un-normalisation.
        planned (`bool`): Whether a chunk was predicted.
    """

    preprocess: float
    prefix: float
    denoise: float
    total: float
    planned: bool


@dataclass(frozen=True)
class TimingSummary:
    """
    Median and 95th percentile over calls that predicted a chunk, as `(p50, p95)` in milliseconds.

    Args:
        calls (`int`): Calls that are remembered, with those that only took an action from an earlier chunk.
        planned (`int`): Those that predicted a chunk.
        preprocess, prefix, denoise, total (`tuple[float, float]`): See [`ControlTiming`].
    """

    calls: int
    planned: int
    preprocess: tuple[float, float]
    prefix: tuple[float, float]
    denoise: tuple[float, float]
    total: tuple[float, float]


class Stopwatch:
    """Times the phases of one call on a device."""

    def __init__(self, device: torch.device):
        self._device = device
        self._phases = dict.fromkeys(PHASES, 0.0)
        self._planned = False
        self._start = self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Ends a phase, once the device has done its work."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        now = time.perf_counter()
        self._phases[phase] = 1e3 * (now - self._last)
        self._last, self._planned = now, True

    def read(self) -> ControlTiming:
        """The phases so far and the time since the start."""
        return ControlTiming(**self._phases, total=1e3 * (time.perf_counter() - self._start), planned=self._planned)


def summarize_timings(timings: deque[ControlTiming]) -> TimingSummary:
    """
    Percentiles of the calls that predicted a chunk.

    Raises:
        ValueError: There is none.
    """
    planned = [timing for timing in timings if timing.planned]
    if not planned:
        raise ValueError("No chunk has been predicted yet, so there is nothing to summarise: call select_action().")
    percentiles = {
        name: tuple(np.percentile([vars(timing)[name] for timing in planned], [50, 95]).tolist())
        for name in (*PHASES, "total")
    }
    return TimingSummary(calls=len(timings), planned=len(planned), **percentiles)


__all__ = ["ControlTiming", "Stopwatch", "TimingSummary", "summarize_timings"]
