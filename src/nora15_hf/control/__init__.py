# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy in a control loop: one observation in, one action in physical units out."""

from .chunk_prediction import predict_chunks
from .chunk_samplers import FastSampler, FlowSampler, GreedyFastSampler, InvalidChunkError
from .control_policy import Nora15ControlPolicy
from .observation import check_observation
from .timing import ControlTiming, TimingSummary

__all__ = [
    "ControlTiming",
    "FastSampler",
    "FlowSampler",
    "GreedyFastSampler",
    "InvalidChunkError",
    "Nora15ControlPolicy",
    "TimingSummary",
    "check_observation",
    "predict_chunks",
]
