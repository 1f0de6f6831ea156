# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A world that a tiny world model learns in seconds: a disc that a 2-D action pushes around, as a LeRobot dataset."""

from pathlib import Path

import numpy as np
import torch

from nora15_hf.clips.clip_conventions import ClipConventions
from nora15_hf.clips.episode_clips import EpisodeClips
from nora15_hf.data import LeRobotDataset, LeRobotWriter
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, VJEPA2ACProcessor

__all__ = ["SIZE", "blob_clips", "blob_model", "resized", "write_blobs", "write_poses"]

SIZE = 28


def write_blobs(root: Path, episodes: int, length: int = 16, seed: int = 0, scale: float = 1.0) -> Path:
    """Records `episodes` episodes; an action of +-`scale` moves the disc by three pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    features = {
        "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
        "action": {"dtype": "float32", "shape": (2,)},
    }
    writer = LeRobotWriter(root, fps=10, features=features, robot_type="disc")
    for _ in range(episodes):
        position, frames = rng.uniform(6, SIZE - 6, 2), []
        actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        for action in actions:
            disc = np.clip(5 - np.hypot(rows - position[0], columns - position[1]), 0, 1)
            frames.append(np.stack([40 + 200 * disc, 40 + 100 * disc, np.full(disc.shape, 90.0)], axis=-1))
            position = np.clip(position + 3 * action, 3, SIZE - 3)
        writer.add_episode("push", {"observation.image": np.stack(frames).astype(np.uint8), "action": scale * actions})
    return writer.finalize()


def write_poses(root: Path, length: int = 8) -> Path:
    """Records one episode of random images and poses, with actions that the metric convention does not read."""
    rng = np.random.default_rng(0)
    features = {
        "observation.image": {"dtype": "image", "shape": (SIZE, SIZE, 3)},
        "observation.state": {"dtype": "float32", "shape": (7,)},
        "action": {"dtype": "float32", "shape": (3,)},
    }
    writer = LeRobotWriter(root, fps=4, features=features, robot_type="arm")
    frames = {
        "observation.image": rng.integers(0, 255, (length, SIZE, SIZE, 3), dtype=np.uint8),
        "observation.state": rng.uniform(0, 1, (length, 7)).astype(np.float32),
        "action": np.zeros((length, 3), np.float32),
    }
    writer.add_episode("reach", frames)
    return writer.finalize()


def blob_clips(
    root: Path, num_frames: int, held_out: int = 0, conventions: ClipConventions | None = None
) -> tuple[EpisodeClips, EpisodeClips | None]:
    """Clips of all but the last `held_out` episodes, and of these; normalised by the training episodes' extremes."""
    count = LeRobotDataset(root, image_keys=["observation.image"]).num_episodes
    episodes = range(count - held_out), range(count - held_out, count)
    training, validation = (
        LeRobotDataset(root, image_keys=["observation.image"], episodes=list(part)) if part else None
        for part in episodes
    )
    if conventions is None:
        conventions = ClipConventions.of_dataset(training, "min_max", list(episodes[1]))
    return tuple(
        None if part is None else EpisodeClips(part, conventions, num_frames) for part in (training, validation)
    )


def blob_model() -> tuple[VJEPA2ACModel, VJEPA2ACProcessor]:
    """Random weights, always the same."""
    torch.manual_seed(0)
    config = VJEPA2ACConfig(
        encoder_config={
            "hidden_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_ratio": 2.0,
            "crop_size": SIZE,
            "patch_size": 7,
            "tubelet_size": 1,
            "frames_per_clip": 1,
        },
        predictor_hidden_size=48,
        predictor_num_hidden_layers=2,
        predictor_num_attention_heads=2,
        predictor_identity_init=True,
        action_dim=2,
        state_dim=2,
    )
    return VJEPA2ACModel(config), VJEPA2ACProcessor(size=SIZE)


def resized(model: VJEPA2ACModel, width: int, **changes) -> VJEPA2ACModel:
    """A model of random weights like `model`, with other actions and states."""
    return VJEPA2ACModel(
        VJEPA2ACConfig(**model.config.to_dict() | {"action_dim": width, "state_dim": width} | changes)
    )
