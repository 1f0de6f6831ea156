# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""openpi's own client, chunk broker and runtime drive our environments through the server."""

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("openpi_client", reason="openpi's client is not installed: make test-clients")

from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.runtime import environment, runtime
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from helpers.served_policies import CHUNK_SIZE, NoisyArmExpert
from helpers.two_camera_arm import TwoCameraArm, in_the_table
from nora15_hf.actions import ActionStatistics
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.evaluation.episodes import Episode
from nora15_hf.evaluation.evaluate import evaluate_policy
from nora15_hf.evaluation.rollout import rollout
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving.served_policy import ModelPolicy
from nora15_hf.serving.server import PolicyServer
from nora15_hf.simulation.environment import Environment
from nora15_hf.simulation.simulation_pool import SimulationPool

SEEDS = (10_000, 10_001, 10_002)


class OpenpiEnvironment(environment.Environment):
    """One of our environments as openpi's runtime drives it; the seed travels with every observation."""

    def __init__(self, env: Environment, seeds: Sequence[int]):
        self._env = env
        self._seeds = iter(seeds)
        self.ends = []

    def reset(self) -> None:
        # The runtime resets once more behind the last episode.
        self._seed = next(self._seeds, SEEDS[0])
        self._env.reset(self._seed)

    def is_episode_complete(self) -> bool:
        complete = self._env.success or self._env.done
        if complete:
            self.ends.append((self._seed, self._env.success, self._env.num_steps))
        return complete

    def get_observation(self) -> dict:
        seen = self._env.observation()
        return {"images": seen.images, "state": seen.state, "prompt": seen.instruction, "seed": self._seed}

    def apply_action(self, action: dict) -> None:
        self._env.step(action["actions"])


def run_episodes(url: str, env: Environment) -> list[tuple[int, bool, int]]:
    """Seed, success and number of steps of an episode per seed, in openpi's runtime."""
    client = WebsocketClientPolicy(url)
    driven = OpenpiEnvironment(env, SEEDS)
    agent = PolicyAgent(ActionChunkBroker(client, client.get_server_metadata()["action_horizon"]))
    runtime.Runtime(driven, agent, [], num_episodes=len(SEEDS)).run()
    return driven.ends


def test_episodes_end_as_in_our_own_rollout():
    expert = NoisyArmExpert()
    with PolicyServer(expert, port=0) as server:
        ends = run_episodes(server.url, TwoCameraArm("left"))
    served = dict(expert.chunks)
    expert.chunks.clear()
    with in_the_table(), SimulationPool("arm", num_workers=1, num_slots=2) as pool:
        results = rollout(expert, [Episode("left", seed) for seed in SEEDS], pool, progress=False)
    assert ends == [(result.seed, result.success, result.num_steps) for result in results]
    assert len({steps for _, _, steps in ends}) > 1
    assert any(success for _, success, _ in ends)
    assert served.keys() == expert.chunks.keys()
    for key, chunk in expert.chunks.items():
        np.testing.assert_array_equal(served[key], chunk)


@pytest.mark.simulator
def test_meta_world_episodes_end_as_in_our_own_evaluation():
    pytest.importorskip("metaworld", reason="the simulator is not installed: pip install 'nora15_hf[sim]'")
    from nora15_hf.simulation.metaworld.metaworld_env import MetaWorldEnv

    settings = {"image_size": 56, "renderer": "raycast", "max_steps": 60}
    # Away from the robot and down: the drawer is closed, sooner or later.
    statistics = ActionStatistics.from_actions(np.array([[-1, 0.2, -1, -1], [1, 1, -0.2, 1]], dtype=np.float32))
    model, processor = tiny_policy(image_size=56, norm_stats={"metaworld": statistics})
    policy = ModelPolicy(model, processor)
    env = MetaWorldEnv("drawer-close", **settings)
    with PolicyServer(policy, port=0) as server:
        ends = run_episodes(server.url, env)
    env.close()
    with SimulationPool("metaworld", num_workers=1, num_slots=2, **settings) as pool:
        results = evaluate_policy(
            Nora15ChunkPolicy(model, processor), ["drawer-close"], pool, episodes_per_task=len(SEEDS), progress=False
        )
    assert ends == [(result.seed, result.success, result.num_steps) for result in results]
    assert all(success for _, success, _ in ends)
    assert len({steps for _, _, steps in ends}) > 1


def test_errors_name_the_key_and_the_next_request_is_answered():
    with PolicyServer(NoisyArmExpert(), port=0) as server:
        client = WebsocketClientPolicy(server.url)
        env = TwoCameraArm("left")
        env.reset(0)
        seen = env.observation()
        good = {"images": seen.images, "state": seen.state, "prompt": seen.instruction}
        with pytest.raises(RuntimeError, match="'state'"):
            client.infer({**good, "state": np.array([np.nan] * 3)})
        assert client.infer(good)["actions"].shape == (CHUNK_SIZE, 3)
