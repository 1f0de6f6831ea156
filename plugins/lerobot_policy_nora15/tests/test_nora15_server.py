# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The plugin asks the server of nora15_hf, which shares no environment with lerobot."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch

pytest.importorskip("nora15_hf", reason="nora15_hf is not installed: make test")

from nora15_hf.actions import ActionStatistics
from nora15_hf.control import FlowSampler, predict_chunks
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving.served_policy import ModelPolicy
from nora15_hf.serving.server import PolicyServer

from lerobot_policy_nora15 import Nora15Config
from lerobot_policy_nora15.modeling_nora15 import Nora15Policy

SIZE = 56


@pytest.fixture(scope="module")
def two_cameras_and_state():
    """A policy that reads the state and sees two cameras, and its server."""
    contract = Embodiment(
        cameras={"top": Camera(role="external"), "wrist": Camera(role="wrist")},
        action_names=("dx", "dy", "dz", "gripper"),
    )
    model, processor = tiny_policy(image_size=SIZE, state_dim=3, embodiments={"default": contract})
    with PolicyServer(ModelPolicy(model, processor), port=0) as server:
        yield model, processor, server.url


def test_actions_are_those_of_the_policy_itself(two_cameras_and_state):
    model, processor, url = two_cameras_and_state
    policy = Nora15Policy(Nora15Config(url=url, device="cpu", seed=20, num_steps=3))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 2, SIZE, SIZE, 3), dtype=np.uint8)
    states = np.linspace(-0.5, 0.5, 6, dtype=np.float32).reshape(2, 3)
    tasks = ["open the faucet", "close the faucet"]
    batch = {
        f"observation.images.{name}": torch.from_numpy(pictures[camera]).permute(0, 3, 1, 2) / 255
        for camera, name in enumerate(("top", "wrist"))
    }
    batch |= {"observation.state": torch.from_numpy(states), "task": tasks}
    chunks = [policy.predict_action_chunk(batch) for _ in range(2)]
    for prediction, chunk in enumerate(chunks):
        expected = predict_chunks(
            model,
            processor,
            [list(row) for row in pictures.transpose(1, 0, 2, 3, 4)],
            tasks,
            [(20, prediction), (21, prediction)],
            states=list(states),
            sampler=FlowSampler(3),
        )
        np.testing.assert_allclose(chunk.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(
    "LEROBOT_PYTHON" not in os.environ,
    reason="lerobot shares no environment with nora15_hf: LEROBOT_PYTHON=PYTHON make test ARGS=plugins, with the Python of the "
    "environment in plugins/lerobot_policy_nora15/README.md and lerobot's extra `metaworld`",
)
@pytest.mark.slow
def test_lerobot_eval_runs_meta_world(tmp_path):
    # Away from the robot and down, so that the drawer may be closed before 500 steps, which lerobot allows.
    statistics = ActionStatistics.from_actions(np.array([[-1, 0.2, -1, -1], [1, 1, -0.2, 1]], dtype=np.float32))
    policy = ModelPolicy(*tiny_policy(image_size=SIZE, norm_stats={"metaworld": statistics}))
    command = [
        os.path.join(os.path.dirname(os.environ["LEROBOT_PYTHON"]), "lerobot-eval"),
        "--policy.type=nora15",
        "--policy.device=cpu",
        "--policy.seed=10000",
        "--env.type=metaworld",
        "--env.task=drawer-close-v3",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        "--seed=10000",
        f"--output_dir={tmp_path / 'eval'}",
    ]
    with PolicyServer(policy, port=0) as server:
        lerobot = subprocess.run(
            [*command, f"--policy.url={server.url}"],
            stderr=subprocess.PIPE,
            text=True,
            timeout=3000,
            # MuJoCo opens a window unless it is told where else to draw.
            env={"MUJOCO_GL": "egl", **os.environ},
        )
    assert lerobot.returncode == 0, lerobot.stderr[-5000:]
    results = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert results["overall"]["n_episodes"] == 1
