# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Open-loop replay: chunks sampled along recorded episodes, compared with the demonstrated actions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch.utils.data import Dataset

from ...control.chunk_prediction import predict_chunks
from ...data.lerobot_dataset import LeRobotDataset
from ...data.lerobot_mixture import LeRobotMixture
from ...data.policy_fit import arranged_for
from ...nora15 import Nora15ForActionPrediction, Nora15Processor

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

    Raises:
        TypeError: `dataset` has no table of episodes.
    """
    if isinstance(dataset, LeRobotMixture):
        options = {"batch_size": batch_size, "seed": seed}
        return [
            replay
            for member in dataset.members
            for replay in replay_episodes(model, processor, member, num_episodes, **options)
        ]
    check_replayable(dataset)
    dataset = arranged_for(dataset, processor)
    episodes = dataset.episodes
    replays = []
    for episode in range(min(num_episodes, dataset.num_episodes)):
        start, stop = int(episodes["from"][episode]), int(episodes["to"][episode])
        frames = range(start, stop, dataset.chunk_size)
        chunks = []
        for first in range(0, len(frames), batch_size):
            samples = [dataset[frame] for frame in frames[first : first + batch_size]]
            chunks.append(
                predict_chunks(
                    model,
                    processor,
                    [sample["images"] for sample in samples],
                    [sample["instruction"] for sample in samples],
                    [(seed, sample["index"]) for sample in samples],
                    states=[sample["state"] for sample in samples],
                    dataset_key=dataset.dataset_key,
                )
            )
        replays.append(
            Replay(
                dataset_key=dataset.dataset_key,
                episode_index=int(episodes["index"][episode]),
                demonstrated=dataset.all_actions()[start:stop],
                sampled=np.concatenate(chunks).reshape(-1, dataset.action_dim)[: stop - start],
                chunk_size=dataset.chunk_size,
            )
        )
    return replays


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
