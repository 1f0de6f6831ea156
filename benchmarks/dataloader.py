# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Samples per second that data loading delivers and that training the tiny policy consumes.

    python benchmarks/dataloader.py

A dataset of 224-pixel frames is read in random order by data-loading workers that also run the collator (resizing,
patches, FAST tokens): images and video, map-style and streaming. The other side is a training step of the tiny policy,
optimizer included, on batches that are ready in memory. All run alone, since they share the cores, and in turn in every
round; printed are medians with the slowest and the fastest round.
"""

import statistics
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from harness import save_results, table
from nora15_hf.data import LeRobotDataset, LeRobotStream, LeRobotWriter, PolicyCollator, compute_statistics
from nora15_hf.nora15.presets import tiny_policy

SIZE = 224
ACTION_DIM, STATE_DIM = 7, 8
TRAINING = "training steps"


def write_dataset(root: Path, storage: str, episodes: int, length: int) -> Path:
    """Smooth moving pictures with some noise: neither encoder gets them for nothing."""
    random = np.random.default_rng(0)
    features = {
        "observation.images.top": {"dtype": storage, "shape": (SIZE, SIZE, 3)},
        "observation.state": {"dtype": "float32", "shape": (STATE_DIM,)},
        "action": {"dtype": "float32", "shape": (ACTION_DIM,)},
    }
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="benchmark")
    for episode in range(episodes):
        coarse = np.kron(random.integers(40, 215, (14, 28, 3)), np.ones((16, 16, 1)))
        frames = np.stack([np.roll(coarse, step * 3, axis=1)[:, :SIZE] for step in range(length)])
        frames = np.clip(frames + random.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)
        writer.add_episode(
            f"task {episode % 4}",
            {
                "observation.images.top": frames,
                "observation.state": random.normal(size=(length, STATE_DIM)).astype(np.float32),
                "action": random.normal(size=(length, ACTION_DIM)).cumsum(0).astype(np.float32),
            },
        )
    return writer.finalize()


def delivered(loader: DataLoader, samples: int) -> float:
    """Samples per second over some epochs, after the workers have started and delivered their first batches."""
    seen, began = 0, None
    while True:
        for batch in loader:
            if began is None:
                began = time.perf_counter()
                continue
            seen += len(batch["input_ids"])
        if seen >= samples:
            return seen / (time.perf_counter() - began)


def consumed(batch: dict, model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Samples per second of forward, backward and optimizer."""
    began = None
    for step in range(steps + 1):
        if step == 1:
            began = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return steps * len(batch["input_ids"]) / (time.perf_counter() - began)


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20, help="episodes of the dataset (default: 20)")
    parser.add_argument("--length", type=int, default=60, help="frames per episode (default: 60)")
    parser.add_argument("--samples", type=int, default=2400, help="samples to load per row (default: 2400)")
    parser.add_argument("--steps", type=int, default=10, help="training steps to time (default: 10)")
    parser.add_argument("--batch-size", type=int, default=16, help="samples per batch (default: 16)")
    parser.add_argument("--workers", type=int, default=2, help="data-loading workers (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        roots = {
            storage: write_dataset(Path(folder) / storage, storage, options.episodes, options.length)
            for storage in ("image", "video")
        }
        dataset = LeRobotDataset(roots["image"], dataset_key="benchmark")
        model, processor = tiny_policy(
            action_dim=ACTION_DIM, norm_stats={"benchmark": compute_statistics(dataset)["action"]}
        )
        collator = PolicyCollator(processor)
        batch = collator([dataset[index] for index in range(options.batch_size)])
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)
        contestants = {TRAINING: partial(consumed, batch, model, optimizer, options.steps)}
        keys = {"dataset_key": "benchmark"}
        sources = {
            "images in memory": LeRobotDataset(roots["image"], **keys),
            "images, decoded each time": LeRobotDataset(roots["image"], cache_images=False, **keys),
            "video, decoded each time": LeRobotDataset(roots["video"], cache_images=False, **keys),
            "images, streamed": LeRobotStream(roots["image"], shuffle_buffer_size=200, **keys),
            "video, streamed": LeRobotStream(roots["video"], shuffle_buffer_size=200, **keys),
        }
        for name, source in sources.items():
            loader = DataLoader(
                source,
                batch_size=options.batch_size,
                shuffle=True if isinstance(source, LeRobotDataset) else None,
                num_workers=options.workers,
                persistent_workers=options.workers > 0,
                collate_fn=collator,
            )
            contestants[name] = partial(delivered, loader, options.samples)
        rates = {name: [] for name in contestants}
        for _ in range(options.rounds):
            for name, contestant in contestants.items():
                rates[name].append(contestant())

    medians = {name: statistics.median(found) for name, found in rates.items()}
    rows = [
        (
            name,
            f"{medians[name]:.0f} ({min(found):.0f} to {max(found):.0f})",
            f"{medians[name] / medians[TRAINING]:.1f}x",
        )
        for name, found in rates.items()
    ]
    print(table(("", "samples/s: median (slowest to fastest)", "of what training takes"), rows))
    outcome = {"samples_per_second": rates, "workers": options.workers, "rounds": options.rounds}
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
