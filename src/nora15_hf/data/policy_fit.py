# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether a dataset fits the policy that is to be trained or judged on it."""

from transformers import ProcessorMixin

from .lerobot_dataset import LeRobotDataset
from .lerobot_mixture import LeRobotMixture
from .lerobot_stream import LeRobotStream, LeRobotStreamMixture


def check_dataset_fits(
    dataset: LeRobotDataset | LeRobotMixture | LeRobotStream | LeRobotStreamMixture, processor: ProcessorMixin
) -> None:
    """Refuse, before the first sample is loaded, a dataset that a policy's processor cannot take.

    Args:
        dataset: Each member of a mixture is checked.
        processor (`Nora15Processor`): Of the policy.

    Raises:
        ValueError: Another action or state width or chunk size, no camera, a dataset key without statistics, or a policy
            of delta actions and a state that does not cover them.
    """
    mixed = isinstance(dataset, LeRobotMixture | LeRobotStreamMixture)
    for member in dataset.members if mixed else [dataset]:
        key = member.dataset_key
        if member.action_dim != processor.action_dim:
            raise ValueError(
                f"Dataset {key!r} has actions of {member.action_dim} dimensions, the policy of {processor.action_dim}. "
                "Choose another feature through `action_key`, or a policy made for this robot."
            )
        if member.chunk_size != processor.chunk_size:
            raise ValueError(
                f"Dataset {key!r} was opened with chunk_size={member.chunk_size}, the policy's is "
                f"{processor.chunk_size}. Open it with chunk_size={processor.chunk_size}."
            )
        if not member.image_keys:
            raise ValueError(f"Dataset {key!r} was opened without cameras; the policy needs at least one image.")
        if key not in processor.norm_stats:
            raise ValueError(
                f"Dataset {key!r} has no statistics in the processor, which knows {sorted(processor.norm_stats)}. Compute "
                "them with `compute_statistics` and pass them to `set_norm_stats`, or open the dataset with the "
                "`dataset_key` of known ones."
            )
        if processor.state_dim not in (None, member.state_dim):
            raise ValueError(
                f"Dataset {key!r} has a state of {member.state_dim} dimensions, the policy reads {processor.state_dim}. "
                "Choose the feature through `state_key`."
            )
        if processor.delta_action_mask is not None:
            needed = max(
                (index + 1 for index, is_delta in enumerate(processor.delta_action_mask) if is_delta), default=0
            )
            if member.state_dim < needed:
                raise ValueError(
                    f"Dataset {key!r} has a state of {member.state_dim} dimensions; the policy's actions are differences "
                    f"from a state of at least {needed}. Choose the feature through `state_key`."
                )


__all__ = ["check_dataset_fits"]
