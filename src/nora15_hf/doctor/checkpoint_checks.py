# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of a checkpoint that do not run it: versions, weights, conventions, statistics."""

import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from ..actions.normalization import normalization_bounds
from ..data import LeRobotDataset, compute_statistics, delta_actions
from ..embodiment.comparison import RANGE_TOLERANCE, differing_ranges
from ..embodiment.junctions import CHECKING, STATE_ITEMS, EmbodimentError, check_junction
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from .report import Finding, Section

PACKAGES = ("torch", "transformers", "diffusers", "datasets", "huggingface_hub", "safetensors", "tokenizers", "numpy")


def check_versions(device: torch.device) -> Section:
    """Versions and hardware."""
    values = {"python": platform.python_version(), "nora15_hf": version("nora15_hf")}
    values |= {package: version(package) for package in PACKAGES}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return Section("Versions", values | {"device": f"{device} ({name})", "threads": torch.get_num_threads()})


def check_weights(
    model: Nora15ForActionPrediction, loading_info: dict[str, Any], seconds: float
) -> tuple[Section, list[Finding]]:
    """Sizes, dtypes and whether all numbers are finite; keys and shapes were compared when the model was loaded."""
    damaged = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    values = {
        "parameters": model.num_parameters(),
        "of the backbone": model.vlm.num_parameters(),
        "of the action expert": model.action_expert.num_parameters(),
        "dtypes": dtypes,
        **{f"{name} keys": len(loading_info[f"{name}_keys"]) for name in ("missing", "unexpected", "mismatched")},
        "parameters with NaN or infinity": len(damaged),
        "seconds to load": seconds,
    }
    findings = []
    if damaged:
        findings.append(
            Finding(
                "error", "load",
                f"{len(damaged)} parameter(s) hold NaN or infinity, first {damaged[:3]}: the training diverged or the file "
                "is damaged. Use an earlier checkpoint.",
            )
        )  # fmt: skip
    return Section("Load report", values), findings


def check_conventions(
    model: Nora15ForActionPrediction, processor: Nora15Processor, key: str, dataset: LeRobotDataset | None
) -> tuple[Section, list[Finding]]:
    """What checkpoint and dataset say about how the data came about, and whether model and processor fit each other."""
    config, declared = model.config, processor.conventions.get(key, {})
    values = {
        "chunk size x action dimension": f"{config.chunk_size} x {config.action_dim}",
        "image size": processor.image_size,
        "normalisation": processor.normalization_mode,
        "clipped in training": processor.clip_actions,
        "lowercase instruction": processor.lowercase_instruction,
        "dataset keys": list(processor.norm_stats),
        "dataset key used": key,
        "dimensions in physical units": np.flatnonzero(~processor.norm_stats[key].mask).tolist() or "none",
        "FAST vocabulary": processor.action_codec.vocab_size,
        "flow scheduler": f"{type(model.scheduler).__name__}, {config.num_inference_steps} steps",
        **{f"declared: {name}": value for name, value in declared.items()},
    }
    findings = [
        Finding(
            "error", "conventions",
            f"{difference}; they belong to different policies. Save both into the repo again.",
        )
        for difference in processor.differences_from(config)
    ]  # fmt: skip
    if dataset is not None:
        values |= {"cameras": list(processor.camera_names(key) or ()) or "not known"}
        values |= {"cameras of the dataset": dataset.image_keys, "dataset's actions per second": dataset.fps}
        values |= {f"dataset's {name}": value for name, value in dataset.conventions.items()}
        findings += [
            Finding(
                "warning", "conventions",
                f"{name} is {declared[name]!r} in the checkpoint and {dataset.conventions[name]!r} in the dataset. Convert "
                "the data, or train on this dataset.",
            )
            for name in declared.keys() & dataset.conventions.keys() if declared[name] != dataset.conventions[name]
        ]  # fmt: skip
        try:
            differing = check_junction(
                CHECKING, processor.embodiment(key), dataset.embodiment, names=("checkpoint", "dataset"),
                leave_out=() if processor.needs_state else STATE_ITEMS, arranged=True,
            )  # fmt: skip
            findings += [Finding("warning", "conventions", f"{sentence}. {CHECKING.remedy}") for sentence in differing]
        except EmbodimentError as error:
            findings.append(Finding("error", "conventions", str(error)))
    return Section("Conventions", values), sorted(findings, key=lambda finding: finding.message)


def check_statistics(
    processor: Nora15Processor, key: str, dataset: LeRobotDataset | None
) -> tuple[Section, list[Finding]]:
    """The checkpoint's action ranges and, side by side, the dataset's."""
    statistics, mode = processor.norm_stats[key], processor.normalization_mode
    low, high = normalization_bounds(statistics, mode)
    names = {"q01_q99": ("q01", "q99"), "min_max": ("min", "max"), "mean_std": ("mean - std", "mean + std")}[mode]
    columns = {"dim": range(len(low)), "normalised": statistics.mask.tolist()}
    columns |= {f"checkpoint {name}": bound.tolist() for name, bound in zip(names, (low, high), strict=True)}
    findings = []
    title = f"Action statistics of {key!r}"
    if dataset is not None and dataset.action_dim != len(low):
        findings.append(
            Finding(
                "error", "statistics",
                f"the dataset's actions have {dataset.action_dim} dimensions, the policy's have {len(low)}: another robot or "
                "action space.",
            )
        )  # fmt: skip
    elif dataset is not None:
        deltas, angles = processor.delta_action_mask, processor.angle_action_mask
        try:
            found = compute_statistics(dataset, delta_mask=deltas, angle_mask=angles)["action"]
        except ValueError as error:
            return Section(title, rows=[]), [
                Finding("error", "statistics", f"the dataset does not fit the policy: {error}")
            ]
        found_low, found_high = normalization_bounds(found, mode)
        actions = dataset.all_actions() if deltas is None else delta_actions(dataset, deltas, angles)
        share, differing = differing_ranges(statistics, found, mode)
        columns |= {
            f"dataset {name}": bound.tolist() for name, bound in zip(names, (found_low, found_high), strict=True)
        }
        columns["disagreement %"] = (100 * share).tolist()
        columns["rows outside checkpoint's %"] = (100 * share_outside(actions, low, high)).tolist()
        title += " against the dataset's (disagreement: larger distance of the bounds / wider range)"
        findings += [
            Finding(
                "warning", "statistics",
                f"dimension {dim}: {low[dim]:.4g} ... {high[dim]:.4g} in the checkpoint, {found_low[dim]:.4g} ... "
                f"{found_high[dim]:.4g} in the dataset, apart by {share[dim]:.0%} of the range (more than "
                f"{RANGE_TOLERANCE:.0%}). Other units, absolute or delta actions, gripper sign, or another robot?",
            )
            for dim in differing
        ]  # fmt: skip
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Section(title, rows=rows), findings


def share_outside(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Per dimension the share of actions `(N, A)` below `low` or above `high`."""
    # float32 statistics of float32 data may lie an ulp inside the extreme they were computed from.
    slack = 1e-6 * np.maximum(abs(low), abs(high))
    return ((actions < low - slack) | (actions > high + slack)).mean(axis=0)


__all__ = [
    "check_conventions",
    "check_statistics",
    "check_versions",
    "check_weights",
    "share_outside",
]
