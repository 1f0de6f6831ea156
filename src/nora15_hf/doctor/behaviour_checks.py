# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of a policy that run it: range of its actions, latency, whether it uses its inputs."""

from typing import Any

import numpy as np

from ..actions import ActionStatistics
from ..actions.normalization import normalization_bounds
from ..control import Nora15ControlPolicy
from .checkpoint_checks import share_outside
from .report import Finding, Section
from .sample_observations import other_instructions

# A binary gripper ends on a bound of its range, and a flow lands a little on either side of it.
FAR_OUTSIDE_MARGIN = 0.05
FAR_OUTSIDE_SHARE = 0.05
# The numerical noise of a change of batch or device is a thousand times smaller.
ABLATION_THRESHOLD = 1e-3
ABLATION_OBSERVATIONS = 4


def check_actions(
    policy: Nora15ControlPolicy, observations: list[dict[str, Any]], reference: ActionStatistics, reference_name: str
) -> tuple[Section, list[Finding]]:
    """One chunk per observation, un-normalised, against the ranges of recorded actions, per dimension."""
    policy.reset()
    actions = np.concatenate([policy.predict_chunk(observation) for observation in observations])
    low, high = (reference.q01, reference.q99) if reference.min is None else (reference.min, reference.max)
    margin = FAR_OUTSIDE_MARGIN * (high - low)
    far = share_outside(actions, low - margin, high + margin)
    columns = {
        "dim": range(actions.shape[1]),
        "lowest": actions.min(axis=0).tolist(),
        "highest": actions.max(axis=0).tolist(),
        "outside q01..q99 %": (100 * share_outside(actions, reference.q01, reference.q99)).tolist(),
    }
    if reference.min is not None:
        columns["outside min..max %"] = (100 * share_outside(actions, low, high)).tolist()
    columns["far outside %"] = (100 * far).tolist()
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    findings = [
        Finding(
            "warning", "actions",
            f"dimension {dim}: {far[dim]:.0%} of the predicted actions lie outside {low[dim]:.4g} ... {high[dim]:.4g} of "
            f"{reference_name} by more than {FAR_OUTSIDE_MARGIN:.0%} of that range. Possible causes: an untrained policy, wrong statistics, or "
            "images unlike those of the training.",
        )
        for dim in np.flatnonzero(far > FAR_OUTSIDE_SHARE)
    ]  # fmt: skip
    title = f"{len(actions)} predicted actions from {len(observations)} observations, against {reference_name}"
    return Section(title, rows=rows), findings


def check_latency(policy: Nora15ControlPolicy, actions_per_second: float | None) -> tuple[Section, list[Finding]]:
    """Time of the predictions so far; with the rate of the data also whether it is enough."""
    summary = policy.timing_summary()
    rows = [
        {"part": part, "p50 ms": vars(summary)[part][0], "p95 ms": vars(summary)[part][1]}
        for part in ("preprocess", "prefix", "denoise", "total")
    ]
    findings = []
    if actions_per_second is not None:
        chunk_milliseconds = 1e3 * policy.n_action_steps / actions_per_second
        if summary.total[1] > chunk_milliseconds:
            findings.append(
                Finding(
                    "warning", "latency",
                    f"a prediction takes {summary.total[1]:.0f} ms (p95), but its {policy.n_action_steps} actions last only "
                    f"{chunk_milliseconds:.0f} ms at {actions_per_second:g} actions per second: the robot would wait. Use "
                    "fewer solver steps or faster hardware.",
                )
            )  # fmt: skip
    return Section(f"Latency of {summary.planned} predictions, batch 1", rows=rows), findings


def check_ablation(
    policy: Nora15ControlPolicy, observations: list[dict[str, Any]], seed: int
) -> tuple[Section, list[Finding]]:
    """How far one changed input moves the actions while the noise stays the same, as a share of their range."""
    low, high = normalization_bounds(
        policy.processor.norm_stats[policy.dataset_key], policy.processor.normalization_mode
    )
    width = high - low
    chosen = observations[:: max(len(observations) // ABLATION_OBSERVATIONS, 1)][:ABLATION_OBSERVATIONS]
    neighbours = [*chosen[1:], chosen[0]]
    black = [
        {**observation, "images": [np.zeros_like(image) for image in observation["images"]]} for observation in chosen
    ]
    swapped = [
        {**observation, "images": neighbour["images"]}
        for observation, neighbour in zip(chosen, neighbours, strict=True)
    ]
    instructed = [
        {**observation, "instruction": text}
        for observation, text in zip(chosen, other_instructions(chosen), strict=True)
    ]

    def predict(inputs: list[dict[str, Any]], noise_seed: int) -> np.ndarray:
        chunks = []
        for observation in inputs:
            policy.reset(noise_seed)
            chunks.append(policy.predict_chunk(observation))
        return np.stack(chunks)[..., width > 0] / width[width > 0]

    base = predict(chosen, seed)
    changed = {
        "image: black": predict(black, seed),
        "image: another observation's": predict(swapped, seed),
        "instruction: another": predict(instructed, seed),
        "noise: another": predict(chosen, seed + 1),
    }
    effects = {name: abs(actions - base) for name, actions in changed.items()}
    rows = [
        {"changed input": name, "mean change %": 100 * float(effect.mean()), "largest %": 100 * float(effect.max())}
        for name, effect in effects.items()
    ]
    findings = []
    for name in ("image", "instruction"):
        effect = max(effect.mean() for changed_input, effect in effects.items() if changed_input.startswith(name))
        if effect < ABLATION_THRESHOLD:
            findings.append(
                Finding(
                    "warning", "ablation",
                    f"another {name} moves the actions by {effect:.4%} of their range (less than {ABLATION_THRESHOLD:.1%}): "
                    f"the policy ignores its {name}. Were all weights loaded, and did the training data need the {name}?",
                )
            )  # fmt: skip
    title = f"Ablation over {len(chosen)} observations: change of the actions in % of their range"
    return Section(title, rows=rows), findings


__all__ = [
    "ABLATION_THRESHOLD",
    "FAR_OUTSIDE_MARGIN",
    "FAR_OUTSIDE_SHARE",
    "check_ablation",
    "check_actions",
    "check_latency",
]
