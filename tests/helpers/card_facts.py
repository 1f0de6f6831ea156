# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What cards of the tests say, and the artefacts that they belong to."""

from pathlib import Path

import numpy as np

from nora15_hf.cards.card_info import (
    DemonstrationCardInfo,
    Evaluation,
    PolicyCardInfo,
)
from nora15_hf.data import LeRobotWriter
from nora15_hf.data.lerobot_writer import DATA_FILES
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.vjepa2_ac.presets import tiny_world_model

ACTION_SPACE = "hand displacement x, y, z (1 cm per unit and step) and gripper effort, all in [-1, 1]"
EVALUATION = Evaluation(
    environment="Meta-World 3.1.1",
    environment_id="metaworld",
    results={"faucet-open": (22, 25), "faucet-close": (16, 25)},
    conventions={"renderer": "raycast", "crop": {"field": 114, "left": 20}, "seeds": "10000 | 10024", "sites": False},
)
POLICY = PolicyCardInfo(
    repo_id="policy-dpo",
    name="nora15-metaworld-dpo",
    stage="dpo",
    num_parameters=2_512_345,
    image_size=84,
    chunk_size=5,
    action_dim=4,
    n_action_steps=5,
    action_space=ACTION_SPACE,
    gripper="positive closes",
    normalization="none beyond the range [-1, 1]",
    statistics_keys=("metaworld",),
    decoder="flow matching, Euler, 10 steps",
    example_instruction='open the "faucet"',
    base_model="policy-sft",
    datasets=("demonstrations", "preferences"),
    rewards={"world-model goal": 1.0, "GTA": 0.5},
    training={"beta": 50.0, "learning rate": 1e-5, "steps": 200},
    evaluation=EVALUATION,
    limits=("Trained on 80 demonstrations of four tasks.",),
)
DEMONSTRATIONS = DemonstrationCardInfo(
    repo_id="demonstrations",
    name="metaworld-demonstrations",
    source="scripted experts in Meta-World 3.1.1",
    version="v3.0",
    robot_type="metaworld_sawyer",
    num_episodes=2,
    fps=80,
    data_files=DATA_FILES,
    num_rows=6,
    cameras={"observation.image": "84 × 84 (width × height) RGB, PNG"},
    tasks={"open the faucet": 1, "close the faucet": 1},
    features={"observation.image": "camera picture", "action": "clean action of the expert"},
    action_space=ACTION_SPACE,
    gripper="positive closes",
    conventions={"renderer": "raycast", "camera": "corner4"},
    recording={"first seed": 0, "noise": 0.3},
)


def write_demonstrations(folder: Path) -> None:
    features = {
        "observation.image": {"dtype": "image", "shape": (84, 84, 3), "names": ["height", "width", "channel"]},
        "observation.state": {"dtype": "float32", "shape": (4,), "names": None},
        "action": {"dtype": "float32", "shape": (4,), "names": None},
    }
    writer = LeRobotWriter(folder, fps=80, features=features, robot_type="metaworld_sawyer")
    for task in DEMONSTRATIONS.tasks:
        writer.add_episode(
            task=task,
            frames={
                "observation.image": np.zeros((3, 84, 84, 3), np.uint8),
                "observation.state": np.zeros((3, 4), np.float32),
                "action": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
            },
        )
    writer.finalize()


def save_policy(folder: Path) -> None:
    for part in tiny_policy():
        part.save_pretrained(folder)


def save_world_model(folder: Path) -> None:
    for part in tiny_world_model():
        part.save_pretrained(folder)
