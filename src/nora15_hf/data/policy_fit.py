# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether a dataset fits the policy that is to be trained or judged on it."""

import logging
from dataclasses import replace
from typing import TypeVar

from transformers import ProcessorMixin

from ..actions.normalization import normalization_bounds
from ..embodiment.comparison import differing_ranges
from ..embodiment.embodiment import Camera, Embodiment
from ..embodiment.junctions import FINE_TUNING, STATE_ITEMS, check_junction
from .lerobot_dataset import LeRobotDataset
from .lerobot_mixture import LeRobotMixture
from .lerobot_source import LeRobotReader
from .lerobot_stream import LeRobotStream, LeRobotStreamMixture
from .statistics import check_delta_dimensions, compute_statistics
from .value_fit import check_frames_fit, check_values_fit

logger = logging.getLogger(__name__)


Dataset = TypeVar("Dataset", LeRobotDataset, LeRobotMixture, LeRobotStream, LeRobotStreamMixture)


def fit_dataset(
    dataset: Dataset,
    processor: ProcessorMixin,
    *,
    strict: bool = False,
    action_tokens: bool = True,
    check_values: bool = True,
) -> Dataset:
    """
    A dataset as a policy is to be shown it: cameras, actions and states in the order of its training, matched by name.

    What the policy's contract of a key does not tell is completed by that of the dataset: training writes it. A key without a
    contract gets its cameras in the order in which the policy knows the same ones from another key.

    Args:
        dataset: Each member of a mixture is arranged and checked.
        processor (`Nora15Processor`): Of the policy.
        strict (`bool`, *optional*, defaults to `False`), action_tokens (`bool`, *optional*, defaults to `True`):
            See [`check_dataset_fits`].
        check_values (`bool`, *optional*, defaults to `True`):
            Whether values are looked at, too; not where some of them will be left out.

    Raises:
        ValueError: See [`check_dataset_fits`]; another order of names is no error here.
    """
    mixed = isinstance(dataset, LeRobotMixture | LeRobotStreamMixture)
    fitted = []
    for member in dataset.members if mixed else [dataset]:
        if not member.conventions:
            logger.warning(
                f"Dataset {member.dataset_key!r} declares no conventions (gripper, cameras, units): it cannot be checked later whether a "
                "robot or simulator matches it."
            )
        _check_numbers(member, processor)
        fitted.append(arranged_for(member, processor))
        if check_values:
            _check_values(fitted[-1], processor, strict, action_tokens)
    return dataset.with_members(fitted) if mixed else fitted[0]


def check_dataset_fits(
    dataset: LeRobotDataset | LeRobotMixture | LeRobotStream | LeRobotStreamMixture,
    processor: ProcessorMixin,
    *,
    strict: bool = False,
    action_tokens: bool = True,
) -> None:
    """Refuse a dataset that does not fit a policy's processor, before the first sample is loaded.

    Args:
        dataset: Each member of a mixture is checked.
        processor (`Nora15Processor`): Of the policy.
        strict (`bool`, *optional*, defaults to `False`): Also refuse ranges of actions or states that disagree with the
            policy's statistics of the same key, instead of warning. Not of a stream, which is not read ahead.
        action_tokens (`bool`, *optional*, defaults to `True`):
            Whether FAST tokens are made of the actions, which then must be able to spell them.

    Raises:
        ValueError: Another action or state width or chunk size, no camera, a dataset key without statistics, a policy
            of delta actions and a state that does not cover them or has them in another order, or a dataset whose cameras,
            actions or states are others than those of the policy's key, or come in another order, see [`fit_dataset`]. Values
            that would stop or spoil training, see [`~nora15_hf.data.value_fit.check_values_fit`]. A stream with `strict`.
    """
    mixed = isinstance(dataset, LeRobotMixture | LeRobotStreamMixture)
    for member in dataset.members if mixed else [dataset]:
        _check_numbers(member, processor)
        _check_contract(processor.embodiments.get(member.dataset_key, Embodiment()), member, processor, arranged=False)
        _check_delta_dimensions(member, processor)
        _check_values(member, processor, strict, action_tokens)


def arranged_for(member: LeRobotReader, processor: ProcessorMixin, like: Embodiment | None = None) -> LeRobotReader:
    """
    One dataset as [`fit_dataset`] returns it, of which the policy may have no statistics yet.

    Args:
        member ([`LeRobotReader`]), processor (`Nora15Processor`): The two.
        like ([`Embodiment`], *optional*):
            In whose order a key without a contract gets its actions and states; in that of the dataset by default.
    """
    key = member.dataset_key
    if key in processor.embodiments:
        contract = processor.embodiments[key]
    else:
        member = member.arranged(replace(like or Embodiment(), cameras=_known_cameras(member, processor)))
        contract = policy_contract(member)
    _check_contract(contract, member, processor, arranged=True)
    member = member.arranged(contract)
    _check_delta_dimensions(member, processor)
    processor.embodiments[key] = contract.completed(policy_contract(member))
    return member


def _known_cameras(member: LeRobotReader, processor: ProcessorMixin) -> dict[str, Camera] | None:
    """The cameras of a dataset in the order in which the policy has seen them under another key, None where it has not."""
    known = (contract.cameras for contract in processor.embodiments.values())
    return next((cameras for cameras in known if cameras and cameras.keys() == set(member.camera_names)), None)


def policy_contract(member: LeRobotReader) -> Embodiment:
    """What a policy keeps of the contract of a dataset that it is trained on; the chunk size is the policy's own."""
    return replace(member.embodiment, chunk_size=None)


def _check_contract(contract: Embodiment, member: LeRobotReader, processor: ProcessorMixin, *, arranged: bool) -> None:
    check_junction(
        FINE_TUNING,
        contract,
        member.embodiment,
        names=("policy", f"dataset {member.dataset_key!r}"),
        leave_out=() if processor.needs_state else STATE_ITEMS,
        arranged=arranged,
    )


def _check_delta_dimensions(member: LeRobotReader, processor: ProcessorMixin) -> None:
    if processor.delta_action_mask is not None:
        # A state that is too narrow is refused elsewhere.
        check_delta_dimensions(member, processor.delta_action_mask[: member.state_dim])


def _check_values(member: LeRobotReader, processor: ProcessorMixin, strict: bool, action_tokens: bool) -> None:
    differing = _check_statistics(member, processor, strict)
    check_values_fit(member, processor, action_tokens, differing["action"])
    if isinstance(member, LeRobotStream):
        # It is not read in advance, so only its beginning can be checked.
        beginning = member.beginning()
        logger.info(
            f"Dataset {member.dataset_key!r} is a stream: the actions of {beginning.num_episodes} of its {member.num_episodes} "
            "episodes are checked before training, those of the others are not."
        )
        if beginning.num_episodes:
            check_frames_fit(beginning, processor, action_tokens)


def _check_statistics(member: LeRobotReader, processor: ProcessorMixin, strict: bool) -> dict[str, list[int]]:
    """
    Two datasets that are called alike would share statistics: their ranges have to agree. The dimensions of `"action"` and
    `"state"` that do not are returned.
    """
    dimensions = {"action": [], "state": []}
    if not isinstance(member, LeRobotDataset):
        if strict:
            raise ValueError(
                f"strict=True compares ranges with the policy's, but dataset {member.dataset_key!r} is a stream, which is not read "
                "in advance. Compare it as a LeRobotDataset first, and omit strict here."
            )
        return dimensions
    key, mode = member.dataset_key, processor.normalization_mode
    found = compute_statistics(member, delta_mask=processor.delta_action_mask, angle_mask=processor.angle_action_mask)
    kept = {"action": processor.norm_stats[key]} | (
        {"state": processor.state_stats[key]} if processor.state_dim else {}
    )
    for kind, statistics in kept.items():
        _, differing = differing_ranges(statistics, found[kind], mode)
        dimensions[kind] = differing.tolist()
        if not differing.size:
            continue
        names = getattr(member, f"{kind}_names")
        (low, high), (found_low, found_high) = (normalization_bounds(each, mode) for each in (statistics, found[kind]))
        listed = "; ".join(
            f"{names[dim] if names else f'dimension {dim}'} {low[dim]:.4g} ... {high[dim]:.4g} in the policy, "
            f"{found_low[dim]:.4g} ... {found_high[dim]:.4g} in the dataset"
            for dim in differing.tolist()
        )
        message = (
            f"The {kind}s of dataset {key!r} have other ranges than the policy's statistics of that key: {listed}. Is it "
            "another dataset of the same name? Open it with a separate dataset_key, or compute the statistics again."
        )
        if strict:
            raise ValueError(message)
        logger.warning(message)
    return dimensions


def _check_numbers(member: LeRobotReader, processor: ProcessorMixin) -> None:
    key = member.dataset_key
    if member.action_dim != processor.action_dim:
        raise ValueError(
            f"Dataset {key!r} has actions of {member.action_dim} dimensions, but the policy has {processor.action_dim}. "
            "Choose another feature through `action_key`, or a policy made for this robot."
        )
    if member.chunk_size != processor.chunk_size:
        raise ValueError(
            f"Dataset {key!r} was opened with chunk_size={member.chunk_size}, but the policy's is "
            f"{processor.chunk_size}. Open it with chunk_size={processor.chunk_size}."
        )
    if not member.image_keys:
        raise ValueError(f"Dataset {key!r} was opened without cameras; the policy needs at least one image.")
    if key not in processor.norm_stats:
        raise ValueError(
            f"Dataset {key!r} has no statistics in the processor, which has those of {sorted(processor.norm_stats)}. Compute "
            "them with `compute_statistics` and pass them to `set_norm_stats`, or open the dataset with the "
            "`dataset_key` of known ones."
        )
    if processor.state_dim not in (None, member.state_dim):
        raise ValueError(
            f"Dataset {key!r} has a state of {member.state_dim} dimensions, but the policy reads {processor.state_dim}. "
            "Choose the feature through `state_key`."
        )
    if processor.delta_action_mask is not None:
        needed = max((index + 1 for index, is_delta in enumerate(processor.delta_action_mask) if is_delta), default=0)
        if member.state_dim < needed:
            raise ValueError(
                f"Dataset {key!r} has a state of {member.state_dim} dimensions; the policy's actions are differences "
                f"from a state of at least {needed}. Choose the feature through `state_key`."
            )


__all__ = ["arranged_for", "check_dataset_fits", "fit_dataset", "policy_contract"]
