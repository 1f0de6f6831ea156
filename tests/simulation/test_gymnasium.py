# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""gymnasium both ways: its environments evaluated here, and ours made by `gymnasium.make`."""

import logging
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils.env_checker import check_env

from helpers.gymnasium_expert import EXPERT, ID
from nora15_hf.simulation.environment import check_observation
from nora15_hf.simulation.gymnasium_env import GymnasiumEnv
from nora15_hf.simulation.gymnasium_registration import RegisteredEnv
from nora15_hf.simulation.metaworld.metaworld_env import MetaWorldEnv
from nora15_hf.simulation.simulation_pool import SimulationPool

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.filterwarnings("ignore:Constant:UserWarning"),  # Meta-World's experts, at every step
]


class Slider(gymnasium.Env):
    """A hand on a line that slides to the right; what it shows and takes can be changed."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, fps=10, action_space=None, success="succeed", random=False, size=8, render_mode=None):
        if fps is not None:
            self.metadata = self.metadata | {"render_fps": fps}
        self.action_space = action_space or Box(np.float32([-1, 0]), np.float32([1, 2]))
        self.render_mode, self._success, self._random = render_mode, success, random
        self._pictures = {"front": np.zeros((size, size, 3), np.uint8), "depth": np.zeros((size, size), np.float32)}
        self._place = np.zeros(1, np.float32)
        self.task_description = "slide to the right"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self._random else seed)
        self._place[0] = self.np_random.uniform(-0.5, 0.5)
        return self._observation(), {"words": "go right"}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.executed = action
        self._place += action[0]
        success = bool(self._place[0] > 1)
        return self._observation(), 0.0, success, False, {self._success: success}

    def render(self):
        return np.full((6, 8, 3), 7, np.uint8)

    def _observation(self):
        # One array for all observations, as in many environments.
        self._pictures["front"][:] = round(100 * abs(float(self._place[0])))
        return {"pixels": self._pictures, "place": self._place}


class Bare(gymnasium.ObservationWrapper):
    """The observation is nothing but the picture."""

    def __init__(self, **arguments):
        super().__init__(Slider(**arguments))

    def observation(self, observation):
        return observation["pixels"]["front"]


for name, entry_point in (("Slider", Slider), ("Bare", Bare)):
    gymnasium.register(f"tests/{name}-v0", entry_point, max_episode_steps=20)
gymnasium.register("tests/Endless-v0", Slider)

SETTINGS = {
    "gym_ids": "tests/Slider-v0",
    "image_keys": "front=pixels.front",
    "state_key": "place",
    "success_key": "succeed",
    "instruction": "slide",
}


# -- environments of gymnasium, evaluated here ---------------------------------------------------------------------------


def test_an_environment_of_gymnasium_keeps_the_protocol():
    env = GymnasiumEnv("tests/Slider-v0", **SETTINGS)
    assert (env.spec.cameras, env.spec.state_dim, env.spec.max_steps) == ({"front": (8, 8)}, 1, 20)
    assert (env.spec.control_rate, env.spec.action_limits) == (10, ((-1, 0), (1, 2)))
    starts = []
    for seed in (3, 4, 3):
        env.reset(seed)
        starts.append(env.observation())
        check_observation(starts[-1], env.spec)
    assert starts[0].state == starts[2].state != starts[1].state
    np.testing.assert_array_equal(starts[0].images["front"], starts[2].images["front"])
    assert starts[0].instruction == "slide"

    while not env.done:
        env.step(np.array([9, -9]))
    np.testing.assert_array_equal(env._env.unwrapped.executed, np.float32([1, 0]))  # clipped per dimension
    assert env.success
    assert env.num_steps < 3
    assert starts[2].state < 0.5  # what was shown before stays as it was
    env.reset(3)
    assert (env.num_steps, env.success, env.done) == (0, False, False)


def test_a_step_limit_of_the_caller():
    env = GymnasiumEnv("tests/Endless-v0", **SETTINGS | {"gym_ids": "tests/Endless-v0", "max_steps": 2})
    env.reset(0)
    env.step(np.zeros(2))
    assert not env.done
    env.step(np.zeros(2))
    assert (env.done, env.success, env.spec.conventions["max_steps"]) == (True, False, 2)


@pytest.mark.parametrize(
    ("settings", "camera", "shape", "instruction"),
    [
        ({"image_keys": "top=render"}, "top", (6, 8, 3), "slide"),
        ({"instruction": None, "instruction_key": "words"}, "front", (8, 8, 3), "go right"),
        ({"instruction": None, "instruction_key": "task_description"}, "front", (8, 8, 3), "slide to the right"),
        (
            {"gym_ids": ["tests/Bare-v0"], "image_keys": {"image": "observation"}, "state_key": None},
            "image",
            (8, 8, 3),
            "slide",
        ),
    ],
)
def test_where_pictures_and_words_come_from(settings, camera, shape, instruction):
    settings = SETTINGS | settings
    spec = GymnasiumEnv.describe(**settings)
    [gym_id] = spec.tasks
    env = GymnasiumEnv(gym_id, **settings)
    env.reset(0)
    observation = env.observation()
    assert {name: image.shape for name, image in observation.images.items()} == {camera: shape}
    assert observation.instruction == spec.task(gym_id).instruction == instruction


def test_success_that_terminates():
    settings = SETTINGS | {"success_key": "terminated"}
    env = GymnasiumEnv("tests/Slider-v0", **settings)
    env.reset(0)
    env.step(np.array([0.1, 0]))
    assert not env.success
    env.step(np.array([1, 0]))
    env.step(np.array([1, 0]))
    assert env.success


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"gym_ids": ()}, "`gym_ids` is missing"),
        ({"gym_ids": "tests/Slidr-v0"}, "Nearest: tests/Slider-v0"),
        ({"instruction": None}, "either `instruction`"),
        ({"instruction_key": "words"}, "either `instruction`"),
        ({"instruction": {"tests/Bare-v0": "slide"}}, "one text for each"),
        ({"instruction": None, "instruction_key": "task"}, "neither an attribute of .*place, words"),
        ({"image_keys": "top=pixels.top"}, r"'pixels\.top'.*'pixels\.front' uint8 \(8, 8, 3\)"),
        ({"image_keys": "top=pixels.depth"}, r"`image_keys`.*picture.*'pixels\.depth' float32 \(8, 8\)"),
        ({"state_key": "pixels.front"}, "`state_key`.*state"),
        ({"success_key": "is_success"}, "`success_key` is 'is_success'.*holds succeed"),
        ({"gym_kwargs": {"fps": None}}, "`control_rate` is missing"),
        ({"gym_ids": "tests/Endless-v0"}, "`max_steps` is missing"),
        ({"action_names": "dx"}, "`action_names` has 1 names, but .* 2 dimensions"),
        ({"state_names": "x,y"}, "`state_names` has 2 names, but .* 1 dimensions"),
        (
            {"gym_kwargs": {"colour": 1}},
            r"'tests/Slider-v0' cannot be made: TypeError: .*'colour'.*v0', colour=1\)\.reset",
        ),
        ({"gym_kwargs": {"size": -1}}, "cannot be made: ValueError: negative dimensions"),
        ({"gym_kwargs": {"success": []}}, "cannot be stepped: TypeError: unhashable"),
        ({"expert": "helpers.gymnasium_expert"}, "expected 'module:name'"),
        ({"expert": f"{EXPERT}s"}, f"Unknown expert '{EXPERT}s'. Nearest: {EXPERT}"),
    ],
)
def test_settings_that_do_not_fit(settings, match):
    with pytest.raises(ValueError, match=match):
        GymnasiumEnv.describe(**SETTINGS | settings)


def test_what_an_environment_needs_and_is_not_installed():
    def unfinished(**arguments):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed,\nrun `pip install mujoco`")

    gymnasium.register("tests/Unfinished-v0", unfinished, max_episode_steps=20)
    for gym_id, reason in (
        ("tests/Unfinished-v0", "MuJoCo is not installed, run `pip install mujoco`. Install what it needs"),
        (
            "no_such_module:tests/Slider-v0",
            "ModuleNotFoundError: No module named 'no_such_module'.* Install what it needs",
        ),
    ):
        with pytest.raises(ImportError, match=f"'{gym_id}' cannot be made: .*{reason}"):
            GymnasiumEnv.describe(**SETTINGS | {"gym_ids": gym_id})


def test_environments_that_differ_are_not_evaluated_together():
    gymnasium.register("tests/Larger-v0", Slider, max_episode_steps=20, kwargs={"size": 9})
    ids = ["tests/Slider-v0", "tests/Larger-v0"]
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(9, 9\)"):
        GymnasiumEnv.describe(**SETTINGS | {"gym_ids": ids, "instruction": dict.fromkeys(ids, "slide")})


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2, 2)), Dict(arm=Box(-1, 1, (2,)))])
def test_other_action_spaces_are_refused(space):
    gymnasium.register("tests/Other-v0", Slider, max_episode_steps=20, kwargs={"action_space": space})
    try:
        with pytest.raises(ValueError, match=r"action space of 'tests/Other-v0' is .*need a Box with one axis"):
            GymnasiumEnv.describe(**SETTINGS | {"gym_ids": "tests/Other-v0", "instruction": str(space)})
    finally:
        del gymnasium.registry["tests/Other-v0"]


def test_seeds_that_do_not_count_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        GymnasiumEnv.describe(**SETTINGS, gym_kwargs={"random": True})
    assert "same seed" in caplog.text


# -- ours, made by gymnasium ---------------------------------------------------------------------------------------------


def test_registered_environments_keep_gymnasiums_rules():
    env = gymnasium.make("nora15_hf/MetaWorld-faucet-open-v3", image_size=16, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


def test_a_seed_names_the_same_episode_in_gymnasium():
    env = gymnasium.make("nora15_hf/MetaWorld-reach-v3", image_size=32, max_episode_steps=3)
    ours = MetaWorldEnv("reach", image_size=32, renderer="raycast", show_goal=True)
    starts = []
    for seed in (7, 8, 7, None):
        observation, info = env.reset(seed=seed)
        ours.reset(info["seed"])
        wanted = ours.observation()
        np.testing.assert_array_equal(observation["pixels"], wanted.images["image"])
        np.testing.assert_array_equal(observation["agent_pos"], wanted.state)
        assert seed in (None, info["seed"])
        starts.append(info.pop("seed"))
        assert info == {"is_success": False, "instruction": "reach the red ball"}
    assert starts[3] not in (7, 8)
    assert env.get_wrapper_attr("task_description") == "reach the red ball"
    assert [env.step(np.zeros(4))[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("terminate", [True, False])
def test_success_in_gymnasium(terminate):
    env = RegisteredEnv(
        "metaworld",
        "faucet-open",
        terminate_on_success=terminate,
        image_size=16,
        renderer="raycast",
        max_steps=70,
    )
    env.reset(seed=10_000)
    steps = []
    while not (steps and (steps[-1][1] or steps[-1][2])):
        _, reward, terminated, truncated, info = env.step(env._environment.expert_action())
        steps.append((reward, terminated, truncated, info["is_success"]))
    successful = [step for step in steps if step[3]]
    assert successful[0] == (1.0, terminate, False, True)
    assert steps[-1] == (1.0, terminate, not terminate, True)
    assert (len(steps) == 70) is not terminate


def test_bad_arguments_of_a_registered_environment():
    with pytest.raises(ValueError, match="render_mode"):
        RegisteredEnv("metaworld", "reach", render_mode="human")
    with pytest.raises(ValueError, match="Nearest: faucet-open"):
        RegisteredEnv("metaworld", "faucet-opn", renderer="raycast")


# -- both ways -----------------------------------------------------------------------------------------------------------


def test_the_same_episodes_through_gymnasium():
    """Meta-World as gymnasium's environment, evaluated as such: pictures, states, actions and ends are the same."""
    ours = MetaWorldEnv("handle-press", image_size=16, renderer="raycast", max_steps=45)
    settings = {"gym_ids": ID, "state_key": "agent_pos", "instruction_key": "instruction", "expert": EXPERT}
    with SimulationPool(
        "gymnasium", num_workers=1, num_slots=1, max_steps=45, gym_kwargs={"image_size": 16}, **settings
    ) as pool:
        [seen] = pool.start([(0, ID, 10_000)])
        ours.reset(10_000)
        for actions in np.random.default_rng(0).uniform(-1, 1, (2, 5, 4)).astype(np.float32):
            wanted = ours.observation()
            np.testing.assert_array_equal(seen.images["image"], wanted.images["image"])
            np.testing.assert_array_equal(seen.state, wanted.state)
            assert seen.instruction == wanted.instruction == pool.spec.task(ID).instruction
            [outcome] = pool.advance([(0, actions)])
            for action in actions:
                ours.step(action)
            seen = outcome.observation
        pool.start([(0, ID, 10_001)])
        ours.reset(10_001)
        while not ours.success:
            ours.step(ours.expert_action())
        assert pool.finish_with_expert([0]) == [(True, ours.num_steps)]


SO101 = """
from helpers.so101 import SETTINGS
from nora15_hf.simulation.simulation_pool import SimulationPool

with SimulationPool("gymnasium", num_workers=2, num_slots=4, **SETTINGS) as pool:
    [task] = pool.spec.tasks
    seen = pool.start([(slot, task, 10_000 + slot) for slot in range(4)])
    assert all(observation.images["front"].std() > 5 for observation in seen)
    print(sum(success for success, _ in pool.finish_with_expert(range(4))))
"""


@pytest.mark.slow
def test_a_scripted_expert_of_another_package():
    pytest.importorskip(
        "lerobot_env_so101", reason="needs: pip install lerobot_env_so101; apt-get install libegl1 libgl1"
    )
    environment = os.environ | {"MUJOCO_GL": "egl", "PYTHONPATH": os.pathsep.join(sys.path)}
    outcome = subprocess.run([sys.executable, "-c", SO101], env=environment, capture_output=True, text=True)
    assert outcome.stdout == "4\n", outcome.stderr
