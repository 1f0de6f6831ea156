# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether a policy, or recorded data, and a simulator mean the same by pictures, states and actions."""

from collections.abc import Mapping
from typing import Any

from ..actions.normalization import select_dataset_key
from ..control.policy_metadata import METADATA_KEYS
from ..data.lerobot_dataset import LeRobotDataset
from ..embodiment.embodiment import Camera, Embodiment
from ..embodiment.junctions import EVALUATION, STATE_ITEMS, check_junction
from ..nora15 import Nora15Processor
from ..simulation.environment import EnvironmentSpec
from .evaluated_policy import EvaluatedPolicy


def environment_embodiment(spec: EnvironmentSpec) -> Embodiment:
    """The contract of a simulator."""
    return Embodiment(
        cameras={
            name: Camera(height=height, width=width, role=spec.camera_roles.get(name))
            for name, (height, width) in spec.cameras.items()
        },
        action_dim=spec.action_dim,
        action_names=spec.action_names,
        action_units=spec.action_units,
        delta_actions=spec.delta_actions,
        gripper=spec.gripper,
        state_dim=spec.state_dim or 0,
        state_names=spec.state_names,
        state_units=spec.state_units,
        control_rate=spec.control_rate,
    )


def check_policy_fits(processor: Nora15Processor, spec: EnvironmentSpec, dataset_key: str | None = None) -> None:
    """
    Refuses a simulator in which a policy would meet something else than in its training.

    Args:
        processor ([`Nora15Processor`]): The policy's.
        spec ([`EnvironmentSpec`]): Of the simulator. It may have more cameras than the policy, and in another order.
        dataset_key (`str`, *optional*): Which of the policy's datasets the simulator continues; may be omitted when there
            is only one.

    Raises:
        ValueError: Lists everything that differs; or several datasets and no key.
    """
    key = select_dataset_key(processor.norm_stats, dataset_key)
    _check_contract_fits(processor.embodiment(key), processor.needs_state, processor.conventions.get(key, {}), spec)


def check_evaluated_policy_fits(policy: EvaluatedPolicy, spec: EnvironmentSpec) -> None:
    """Like [`check_policy_fits`], from the policy's own metadata, which must have every key of [`METADATA_KEYS`]."""
    metadata = policy.metadata
    if missing := [name for name in METADATA_KEYS if name not in metadata]:
        raise ValueError(
            f"The metadata of {type(policy).__name__} lacks {', '.join(missing)}. It must have every key of METADATA_KEYS in "
            "nora15_hf.control.policy_metadata, also those that are None; docs/evaluation.md shows an example."
        )
    contract = Embodiment.from_dict(metadata["contract"], f"The contract of {metadata['policy']!r}")
    _check_contract_fits(contract, metadata["needs_state"], metadata["conventions"], spec)


def _check_contract_fits(
    contract: Embodiment, needs_state: bool, conventions: Mapping[str, Any], spec: EnvironmentSpec
) -> None:
    found = differing_conventions(conventions, spec)
    if needs_state and spec.state_dim is None:
        found.append("state: the policy needs it, but the simulator provides none")
    check_junction(
        EVALUATION,
        contract,
        environment_embodiment(spec),
        names=("policy", "simulator"),
        leave_out=() if needs_state else STATE_ITEMS,
        arranged=True,
        found=found,
    )


def check_recording_fits(dataset: LeRobotDataset, spec: EnvironmentSpec) -> None:
    """
    Refuses a simulator that shows or does something else than the one that a dataset was recorded in.

    Raises:
        ValueError: Lists everything that differs.
    """
    check_junction(
        EVALUATION,
        dataset.embodiment,
        environment_embodiment(spec),
        names=("recorded", "simulator"),
        leave_out=STATE_ITEMS,
        arranged=True,
        found=differing_conventions(dataset.conventions, spec),
    )


def differing_conventions(recorded: Mapping[str, Any], spec: EnvironmentSpec) -> list[str]:
    """In which of its binding conventions a simulator differs from the one that data were recorded in."""
    return [
        f"{name}: recorded {recorded[name]!r}, simulator {spec.conventions[name]!r}"
        for name in spec.binding_conventions
        if name in recorded and recorded[name] != spec.conventions[name]
    ]


__all__ = [
    "check_evaluated_policy_fits",
    "check_policy_fits",
    "check_recording_fits",
    "differing_conventions",
    "environment_embodiment",
]
