# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Open-loop replay: chunks sampled along recorded episodes, compared with the demonstrated actions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import Dataset

from ...control.chunk_prediction import predict_chunks
from ...control.prepared_samples import PreparedSamples, SamplePreparation
from ...data.lerobot_dataset import LeRobotDataset
from ...data.lerobot_mixture import LeRobotMixture
from ...data.policy_fit import arranged_for
from ...nora15 import Nora15ForActionPrediction, Nora15Processor
from ...runtime.shared_tensors import SharedTensors

OPEN_LOOP_FOLDER = "open_loop"


@dataclass(frozen=True)
class Replay:
    """
    One episode: at every chunk's first frame the policy saw the recording and answered with a chunk.

    Args:
        dataset_key (`str`), episode_index (`int`): Which episode.
        demonstrated, sampled (`np.ndarray` of shape `(F, A)`): Actions at every frame, physical units.
        chunk_size (`int`): Frames between two looks, H.
    """

    dataset_key: str
    episode_index: int
    demonstrated: np.ndarray
    sampled: np.ndarray
    chunk_size: int


def replay_episodes(
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
    dataset: Dataset,
    num_episodes: int,
    *,
    batch_size: int = 8,
    seed: int = 0,
    shared: SharedTensors | None = None,
    num_workers: int = 0,
) -> list[Replay]:
    """
    Samples a chunk at frames 0, H, 2H, ... of the first episodes.

    Args:
        model ([`Nora15ForActionPrediction`]): In evaluation mode.
        processor ([`Nora15Processor`]): Its processor.
        dataset ([`LeRobotDataset`] or [`LeRobotMixture`]): Its `chunk_size` is the policy's.
        num_episodes (`int`): How many episodes of each member; fewer when it has fewer.
        batch_size (`int`, *optional*, defaults to 8): Observations per pass.
        seed (`int`, *optional*, defaults to 0): Of the noise, which depends on it, the episode and the frame.
        shared ([`SharedTensors`], *optional*): How several processes share the work; each of them gets all replays.
        num_workers (`int`, *optional*, defaults to 0): Processes that prepare images ahead.

    Raises:
        TypeError: `dataset` has no table of episodes.
    """
    shared = shared or SharedTensors()
    options = {"batch_size": batch_size, "seed": seed, "shared": shared, "num_workers": num_workers}
    if isinstance(dataset, LeRobotMixture):
        return [
            replay
            for member in dataset.members
            for replay in replay_episodes(model, processor, member, num_episodes, **options)
        ]
    check_replayable(dataset)
    dataset = arranged_for(dataset, processor)
    episodes = dataset.episodes
    bounds = list(zip(episodes["from"].tolist(), episodes["to"].tolist(), strict=True))[:num_episodes]
    # Batches of an episode's frames, one episode after the other.
    of_episode = [
        [list(frames[first : first + batch_size]) for first in range(0, len(frames), batch_size)]
        for frames in (range(start, stop, dataset.chunk_size) for start, stop in bounds)
    ]

    def sample_chunks(prepared: PreparedSamples) -> dict[str, torch.Tensor]:
        samples = prepared.samples
        chunks = predict_chunks(
            model,
            processor,
            [sample["images"] for sample in samples],
            [sample["instruction"] for sample in samples],
            [(seed, sample["index"]) for sample in samples],
            states=[sample["state"] for sample in samples],
            dataset_key=dataset.dataset_key,
            inputs=prepared.inputs.to(model.device, non_blocking=True),
        )
        return {"actions": torch.from_numpy(chunks).flatten(0, 1)}

    sampled = iter(
        shared.computed(
            f"open loop {dataset.dataset_key}",
            [batch for batches in of_episode for batch in batches],
            SamplePreparation(dataset, processor),
            sample_chunks,
            num_workers=num_workers,
            device=model.device,
        )
    )
    return [
        Replay(
            dataset_key=dataset.dataset_key,
            episode_index=int(index),
            demonstrated=dataset.all_actions()[start:stop],
            sampled=torch.cat([next(sampled)["actions"] for _ in batches]).numpy()[: stop - start],
            chunk_size=dataset.chunk_size,
        )
        for index, (start, stop), batches in zip(episodes["index"][: len(bounds)], bounds, of_episode, strict=True)
    ]


def check_replayable(dataset: Dataset) -> None:
    """
    Raises:
        TypeError: `dataset` has no table of episodes.
    """
    if not isinstance(dataset, LeRobotDataset | LeRobotMixture):
        raise TypeError(
            f"The open-loop error needs whole episodes, but the evaluation dataset is a {type(dataset).__name__}. Evaluate "
            "on a LeRobotDataset (split_by_episode makes one), or set open_loop_episodes=0."
        )


def action_errors(replays: list[Replay]) -> dict[str, float]:
    """`action_error`, the mean absolute error over all frames and dimensions, and `action_error/<i>` of each dimension."""
    errors = np.concatenate([np.abs(replay.sampled - replay.demonstrated) for replay in replays]).mean(axis=0)
    return {"action_error": float(errors.mean())} | {
        f"action_error/{i}": float(error) for i, error in enumerate(errors)
    }


def plot_replay(replay: Replay, file: Path) -> None:
    """Writes a picture with one panel for each action dimension: demonstrated as a line, each sampled chunk as another."""
    num_frames, action_dim = replay.demonstrated.shape
    figure = Figure(figsize=(9, 1.3 * action_dim + 0.8), layout="constrained")
    for dimension, axes in enumerate(figure.subplots(action_dim, 1, sharex=True, squeeze=False)[:, 0]):
        axes.plot(replay.demonstrated[:, dimension], color="black", linewidth=1.0, label="demonstrated")
        for start in range(0, num_frames, replay.chunk_size):
            stop = min(start + replay.chunk_size, num_frames)
            axes.plot(
                range(start, stop),
                replay.sampled[start:stop, dimension],
                color="tab:orange",
                linewidth=1.0,
                marker=".",
                markersize=3,
                label="sampled chunks" if start == 0 else None,
            )
        axes.set_ylabel(f"action {dimension}")
    figure.axes[0].legend(loc="upper right", fontsize="small")
    figure.axes[-1].set_xlabel("frame")
    figure.suptitle(f"{replay.dataset_key}, episode {replay.episode_index}", fontsize="medium")
    figure.savefig(file, dpi=90)


__all__ = ["OPEN_LOOP_FOLDER", "Replay", "action_errors", "check_replayable", "plot_replay", "replay_episodes"]
