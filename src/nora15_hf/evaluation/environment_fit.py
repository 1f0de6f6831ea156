# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether a policy, or recorded data, and a simulator mean the same by pictures, states and actions."""

from collections.abc import Mapping
from typing import Any

from ..actions.normalization import select_dataset_key
from ..nora15 import Nora15Processor
from ..simulation.environment import EnvironmentSpec

# The policy's cameras in their order, among the conventions that its processor keeps.
CAMERA_NAMES = "camera_names"


def check_policy_fits(processor: Nora15Processor, spec: EnvironmentSpec, dataset_key: str | None = None) -> None:
    """
    Refuses a simulator in which a policy would meet something else than in its training.

    Args:
        processor ([`Nora15Processor`]): The policy's.
        spec ([`EnvironmentSpec`]): Of the simulator.
        dataset_key (`str`, *optional*): Which of the policy's datasets the simulator continues; may be omitted when there
            is only one.

    Raises:
        ValueError: Lists everything that differs, see [`check_conventions`]; or several datasets and no key.
    """
    key = select_dataset_key(processor.norm_stats, dataset_key)
    check_conventions(processor.conventions.get(key, {}), spec, processor)


def check_conventions(
    recorded: Mapping[str, Any], spec: EnvironmentSpec, processor: Nora15Processor | None = None
) -> None:
    """
    Refuses a simulator that shows or does something else than what was recorded.

    Args:
        recorded (`Mapping[str, Any]`): Conventions of the recorded data, as a dataset or a processor keeps them; cameras are
            compared where they hold the names of those that a policy was trained on.
        spec ([`EnvironmentSpec`]): Of the simulator.
        processor ([`Nora15Processor`], *optional*): Of a policy for these data, whose dimensions of actions and state have
            to be the simulator's.

    Raises:
        ValueError: Lists everything that differs.
    """
    differing = [
        f"{name}: recorded {recorded[name]!r}, simulator {spec.conventions[name]!r}"
        for name in spec.binding_conventions
        if name in recorded and recorded[name] != spec.conventions[name]
    ]
    cameras = list(spec.cameras)
    if recorded.get(CAMERA_NAMES, cameras) != cameras:
        differing.append(f"cameras: recorded {recorded[CAMERA_NAMES]}, simulator {cameras}")
    if processor is not None:
        differing += _differing_dimensions(processor, spec)
    if differing:
        raise ValueError(
            "The simulator does not agree with the recorded demonstrations, so that success would mean nothing: "
            f"{'; '.join(differing)}. Evaluate with the recorded settings, or record the demonstrations anew."
        )


def _differing_dimensions(processor: Nora15Processor, spec: EnvironmentSpec) -> list[str]:
    differing = []
    if processor.action_dim != spec.action_dim:
        names = ", ".join(spec.action_names)
        differing.append(f"action dimension: policy {processor.action_dim}, simulator {spec.action_dim} ({names})")
    if processor.needs_state and spec.state_dim is None:
        differing.append("state: the policy needs it, the simulator gives none")
    elif processor.state_dim is not None and processor.state_dim != spec.state_dim:
        differing.append(f"state dimension: policy {processor.state_dim}, simulator {spec.state_dim}")
    return differing


__all__ = ["CAMERA_NAMES", "check_conventions", "check_policy_fits"]
