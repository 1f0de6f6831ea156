# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""vla-eval runs benchmarks against the policy, in this process."""

import signal
import threading
import urllib.request

import numpy as np
import pytest

pytest.importorskip("vla_eval", reason="vla-eval is not installed: make test-clients")

import vla_eval
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import IMAGE_RGB, LANGUAGE, DimSpec

from helpers.served_policies import NoisyArmExpert
from helpers.two_camera_arm import TASKS, in_the_table
from nora15_hf.actions import ActionStatistics
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.evaluation.episodes import Episode
from nora15_hf.evaluation.rollout import rollout
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving.served_policy import ModelPolicy
from nora15_hf.serving.vla_eval_server import VlaEvalServer
from nora15_hf.simulation.environment_table import find_environment, import_environment
from nora15_hf.simulation.simulation_pool import SimulationPool

EPISODES = 3


class OurBenchmark(StepBenchmark):
    """One of our environments as a benchmark of vla-eval; the episode's index, or the task's seed, decides its start."""

    def __init__(
        self,
        environment: str,
        tasks: list[str],
        settings: dict,
        send_wrist_image: bool = False,
        send_state: bool = False,
        seed_of_tasks: int | None = None,
        spoil_state: bool = False,
    ):
        super().__init__()
        self.environment = import_environment(find_environment(environment).environment)
        self.settings, self.tasks = settings, tasks
        self.spec = self.environment.describe(**settings)
        self.cameras = list(self.spec.cameras)[: 1 + send_wrist_image]
        self.send_state, self.seed_of_tasks, self.spoil_state = send_state, seed_of_tasks, spoil_state

    def get_tasks(self):
        seed = {} if self.seed_of_tasks is None else {"seed": self.seed_of_tasks}
        return [{"name": name, "suite": "ours", **seed} for name in self.tasks]

    def get_metadata(self):
        return {"max_steps": self.spec.max_steps}

    def get_action_spec(self):
        return {"action": DimSpec("action", self.spec.action_dim, "raw")}

    def get_observation_spec(self):
        state = DimSpec("state", self.spec.state_dim, "raw")
        return {**dict.fromkeys(self.cameras, IMAGE_RGB), "language": LANGUAGE, "state": state}

    def reset(self, task):
        self.env = self.environment(task["name"], **self.settings)
        self.env.reset(task.get("seed", 10_000 + task["episode_idx"]))
        return self.env.observation()

    def step(self, action):
        self.env.step(action["actions"])
        return StepResult(self.env.observation(), 0.0, self.env.success or self.env.done, {})

    def make_obs(self, raw_obs, task):
        message = {
            "images": {name: raw_obs.images[name] for name in self.cameras},
            "task_description": raw_obs.instruction,
        }
        if self.send_state:
            message["states"] = raw_obs.state * np.nan if self.spoil_state else raw_obs.state
        return message

    def get_step_result(self, step_result):
        return {"success": self.env.success}


@pytest.fixture
def run_benchmark(tmp_path):
    """A function that runs three episodes per task and returns what came of each, task by task."""

    def run(server: VlaEvalServer, environment: str, tasks: list[str], settings: dict | None = None, **params):
        params |= {"environment": environment, "tasks": tasks, "settings": settings or {}}
        benchmark = {"benchmark": f"{__name__}:OurBenchmark", "episodes_per_task": EPISODES, "params": params}
        config = {"output_dir": str(tmp_path), "benchmarks": [benchmark]}
        (result,) = vla_eval.evaluate(server, config, docker=False, no_save=True)
        return [episode for task in result["tasks"] for episode in task["episodes"]]

    with in_the_table():
        yield run


def ours(policy, environment: str, tasks: list[str], settings: dict) -> list[tuple[bool, int]]:
    """Success and number of steps of the same episodes in our own rollout."""
    episodes = [Episode(task, 10_000 + index) for task in tasks for index in range(EPISODES)]
    with SimulationPool(environment, num_workers=1, num_slots=2, **settings) as pool:
        return [(result.success, result.num_steps) for result in rollout(policy, episodes, pool, progress=False)]


def ends(episodes: list[dict]) -> list[tuple[bool, int]]:
    return [(episode["metrics"]["success"], episode["steps"]) for episode in episodes]


def test_episodes_end_as_in_our_own_rollout(run_benchmark, caplog):
    expert = NoisyArmExpert()
    driven = ends(run_benchmark(VlaEvalServer(expert), "arm", list(TASKS)))
    served = dict(expert.chunks)
    expert.chunks.clear()
    assert driven == ours(expert, "arm", list(TASKS), {})
    assert len({steps for _, steps in driven}) > 1
    assert "Spec mismatch" not in caplog.text
    assert served.keys() == expert.chunks.keys()


@pytest.mark.simulator
def test_meta_world_episodes_end_as_in_our_own_rollout(run_benchmark):
    pytest.importorskip("metaworld", reason="the simulator is not installed: pip install 'nora15_hf[sim]'")
    settings = {"image_size": 56, "renderer": "raycast", "max_steps": 60}
    # Away from the robot and down: the drawer is closed, sooner or later.
    statistics = ActionStatistics.from_actions(np.array([[-1, 0.2, -1, -1], [1, 1, -0.2, 1]], dtype=np.float32))
    model, processor = tiny_policy(image_size=56, norm_stats={"metaworld": statistics})
    driven = ends(run_benchmark(VlaEvalServer(ModelPolicy(model, processor)), "metaworld", ["drawer-close"], settings))
    assert driven == ours(Nora15ChunkPolicy(model, processor), "metaworld", ["drawer-close"], settings)
    assert all(success for success, _ in driven)
    assert len({steps for _, steps in driven}) > 1


def test_a_seed_of_the_task_comes_first(run_benchmark):
    expert = NoisyArmExpert()
    run_benchmark(VlaEvalServer(expert, n_action_steps=2), "arm", ["left"], seed_of_tasks=10_002)
    assert {seed for seed, _ in expert.chunks} == {10_002}


def test_a_wrong_observation_is_told_to_its_client(run_benchmark):
    episodes = run_benchmark(VlaEvalServer(NoisyArmExpert()), "arm", ["left"], spoil_state=True)
    assert all("'state' holds NaN" in episode["failure_detail"] for episode in episodes)


@pytest.mark.parametrize("n_action_steps", [0, 6])
def test_impossible_numbers_of_actions_are_refused(n_action_steps):
    with pytest.raises(ValueError, match="between 1 and the chunk size 5"):
        VlaEvalServer(NoisyArmExpert(), n_action_steps=n_action_steps)


def test_it_serves_until_it_is_told_to_stop():
    health = []

    def ask_and_interrupt(port):
        health.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30).read())
        signal.raise_signal(signal.SIGTERM)

    def on_ready(port):
        # Not in the event loop, which has to answer.
        threading.Thread(target=ask_and_interrupt, args=(port,)).start()

    VlaEvalServer(NoisyArmExpert()).run("127.0.0.1", 0, on_ready)
    assert health == [b'{"status": "ok"}\n']
