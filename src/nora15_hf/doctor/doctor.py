# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Examines a policy's repo, if wanted against the dataset it is to work with."""

import time
from pathlib import Path

import numpy as np
import torch

from ..actions.normalization import select_dataset_key
from ..control import InvalidChunkError, Nora15ControlPolicy
from ..data import LeRobotDataset, compute_statistics
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..runtime.device import usable_device
from .behaviour_checks import check_ablation, check_actions, check_latency
from .checkpoint_checks import check_conventions, check_statistics, check_versions, check_weights
from .report import DoctorReport, Finding, Section
from .sample_observations import dataset_observations, synthetic_observations


def examine_policy(
    repo: str | Path,
    dataset: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dataset_key: str | None = None,
    samples: int = 16,
    num_steps: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    token: str | None = None,
    **features,
) -> DoctorReport:
    """
    Loads a policy and reports what a user should know before it moves a robot.

    Args:
        repo (`str` or `Path`): The policy, Hub id or folder.
        dataset (`str` or `Path`, *optional*):
            LeRobot dataset, Hub id or folder: its statistics are set beside the checkpoint's, and its frames are what the
            policy is tried on. Without it made-up pictures are used, which say nothing about the quality of the actions.
        device (`str` or `torch.device`, *optional*): Default: CUDA where there is a GPU, otherwise the CPU.
        dataset_key (`str`, *optional*): Of the checkpoint's statistics; may be omitted when there is only one.
        samples (`int`, *optional*, defaults to 16): Observations to try.
        num_steps (`int`, *optional*): Solver steps; the model's default otherwise.
        seed (`int`, *optional*, defaults to 0): Of noise and made-up pictures.
        revision (`str`, *optional*): Of the policy's repo.
        token (`str`, *optional*): Hub token for private repos.
        features: `image_keys` (cameras in the order of training), `action_key` and `state_key` of [`LeRobotDataset`].

    Returns:
        [`DoctorReport`]: A policy or dataset that does not load is an error in it, not an exception.

    Raises:
        ValueError: `samples` or `num_steps` below 1, a negative `seed`, a dataset key that the checkpoint lacks, or a
            device that this machine lacks.
    """
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1.")
    device = usable_device(device)
    report = DoctorReport(str(repo), None if dataset is None else str(dataset))
    report.sections["versions"] = check_versions(device)

    def add(name: str, result: tuple[Section, list[Finding]]) -> None:
        report.sections[name] = result[0]
        report.findings.extend(result[1])

    began = time.perf_counter()
    try:
        model, loading_info = Nora15ForActionPrediction.from_pretrained(
            repo, output_loading_info=True, device_map=device, revision=revision, token=token
        )
        processor = Nora15Processor.from_pretrained(repo, revision=revision, token=token)
    except Exception as error:  # whatever prevents loading is exactly what the report is for
        report.findings.append(
            Finding("error", "load", f"{repo} does not load as a policy. {type(error).__name__}: {error}")
        )
        return report
    seconds = time.perf_counter() - began
    # A wrong key is a wrong command line.
    key = select_dataset_key(processor.norm_stats, dataset_key)
    add("load", check_weights(model, loading_info, seconds))

    recorded = None
    if dataset is not None:
        try:
            recorded = LeRobotDataset(
                dataset, token=token, chunk_size=processor.chunk_size, cache_images=False, **features
            )
        except (OSError, ValueError) as error:
            report.findings.append(
                Finding("error", "dataset", f"{dataset} cannot be read. {type(error).__name__}: {error}")
            )
    if recorded is not None and not recorded.image_keys:
        report.findings.append(Finding("error", "dataset", f"{dataset} has no camera, and the policy needs an image."))
    add("conventions", check_conventions(model, processor, key, recorded))
    if recorded is not None and not report.errors:
        # Actions in the order of the policy's, too: statistics are compared dimension by dimension.
        recorded = recorded.arranged(processor.embodiment(key))
    try:
        add("statistics", check_statistics(processor, key, recorded))
    except ValueError as error:
        report.findings.append(Finding("error", "statistics", f"{dataset} cannot be compared. {error}"))
    if report.errors:
        # Actions of a policy that is damaged, or beside a dataset of other actions, would say nothing.
        return report

    if recorded is None:
        observations = synthetic_observations(samples, seed, len(processor.camera_names(key) or ["one"]))
        reference, reference_name = processor.norm_stats[key], "the checkpoint's statistics"
    else:
        observations = dataset_observations(recorded, samples)
        reference, reference_name = (
            compute_statistics(
                recorded, delta_mask=processor.delta_action_mask, angle_mask=processor.angle_action_mask
            )["action"],
            "the dataset's statistics",
        )
    if processor.needs_state:
        # From a state of zeros: the predicted differences themselves, as the statistics describe them.
        state = np.zeros(processor.action_dim, dtype=np.float32)
        if processor.state_dim is not None:
            state = (processor.state_stats[key].q01 + processor.state_stats[key].q99) / 2
        observations = [{**observation, "state": state} for observation in observations]
    policy = Nora15ControlPolicy(model, processor, dataset_key=key, num_steps=num_steps, seed=seed)
    try:
        policy.warm_up(observations[0])
        add("actions", check_actions(policy, observations, reference, reference_name))
        add("latency", check_latency(policy, None if recorded is None else recorded.fps))
        add("ablation", check_ablation(policy, observations, seed))
    except InvalidChunkError as error:
        report.findings.append(Finding("error", "actions", str(error)))
    return report


__all__ = ["examine_policy"]
