# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy that a benchmark runs, and what it looks at."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature

from nora15_hf import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.data.lerobot_dataset import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy


def add_policy_arguments(parser: ArgumentParser) -> None:
    """`--policy`, `--dataset`, `--observations` and `--output`."""
    parser.add_argument(
        "--policy", type=Path, help="folder of a trained policy; default: the tiny preset with random weights"
    )
    parser.add_argument(
        "--dataset", type=Path, help="LeRobot dataset whose frames the policy sees; default: random pictures"
    )
    parser.add_argument("--observations", type=int, default=32, help="observations in the batch (default 32)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")


def load_policy(options: Namespace) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """The policy in float32. Random weights are drawn wide enough for the actions to depend visibly on the inputs."""
    if options.policy is not None:
        model = Nora15ForActionPrediction.from_pretrained(options.policy, dtype=torch.float32).eval()
        return model, Nora15Processor.from_pretrained(options.policy)
    model, processor = tiny_policy(seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.normal_(std=0.6 * parameter[0].numel() ** -0.5, generator=generator)
    return model, processor


def observe(options: Namespace, processor: Nora15Processor) -> BatchFeature:
    """Model inputs of `options.observations` observations, spread over the dataset."""
    count = options.observations
    if options.dataset is None:
        size = processor.image_size
        pictures = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return processor(images=list(pictures), text=["open the faucet"] * count)
    dataset = LeRobotDataset(options.dataset, chunk_size=processor.chunk_size)
    samples = [dataset[int(index)] for index in np.linspace(0, len(dataset) - 1, count)]
    return processor(
        images=[sample["images"] for sample in samples], text=[sample["instruction"] for sample in samples]
    )


def describe(options: Namespace) -> dict[str, str | int]:
    """What was run on what, for the result file."""
    return {
        "policy": "tiny preset, random weights" if options.policy is None else options.policy.name,
        "dataset": "random pictures" if options.dataset is None else options.dataset.name,
        "observations": options.observations,
    }


__all__ = ["add_policy_arguments", "describe", "load_policy", "observe"]
