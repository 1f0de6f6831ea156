# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""vla-eval's own LIBERO benchmark and our LIBERO environment show the same pictures of the same states: actions are the same to the last bit."""

import numpy as np
import pytest

pytest.importorskip("vla_eval", reason="vla-eval is not installed: make test-clients")
pytest.importorskip("libero", reason="LIBERO is not installed: pip install 'nora15_hf[libero]'")

import vla_eval

from helpers.served_policies import WatchedPolicy
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving.served_policy import ChunkRequest
from nora15_hf.serving.vla_eval_libero import LiberoServer
from nora15_hf.simulation.libero.libero_env import LiberoEnv
from nora15_hf.simulation.libero.libero_tasks import LIBERO_TASKS

SIZE, STEPS = 56, 10


@pytest.fixture
def policy():
    """Sees both cameras and the state, as LIBERO's."""
    cameras = {"image": Camera(height=SIZE, width=SIZE, role="external")}
    cameras["wrist_image"] = Camera(height=SIZE, width=SIZE, role="wrist")
    contract = Embodiment(cameras=cameras, action_dim=7, state_dim=8)
    return WatchedPolicy(*tiny_policy(image_size=SIZE, action_dim=7, state_dim=8, embodiments={"default": contract}))


def test_every_look_and_every_action_is_that_of_our_own_environment(policy, tmp_path):
    benchmark = {
        "benchmark": "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark",
        "episodes_per_task": 1,
        "max_tasks": 1,
        "max_steps": STEPS,
        # As in the protocol that our environment follows.
        "params": {"suite": "libero_object", "seed": 7, "env_seed": 0},
    }
    config = {"output_dir": str(tmp_path), "benchmarks": [benchmark]}
    (result,) = vla_eval.evaluate(LiberoServer(policy), config, docker=False, no_save=True)
    (episode,) = result["tasks"][0]["episodes"]
    assert "failure_reason" not in episode, episode["failure_detail"]
    seen, chunks = list(policy.requests), list(policy.chunks)

    task = next(name for name, task in LIBERO_TASKS.items() if task.instruction == seen[0].observation.instruction)
    env = LiberoEnv(task, image_size=SIZE, max_steps=STEPS)
    env.reset(10_000)
    for number, (request, chunk) in enumerate(zip(seen, chunks, strict=True)):
        ours = ChunkRequest(env.observation(), (10_000, number))
        assert request.noise_key == ours.noise_key
        for name, picture in ours.observation.images.items():
            np.testing.assert_array_equal(request.observation.images[name], picture)
        np.testing.assert_array_equal(request.observation.state, ours.observation.state)
        np.testing.assert_array_equal(policy.predict([ours])[0], chunk)
        for action in chunk:
            env.step(action)
    env.close()
    assert len(seen) == STEPS / 5
