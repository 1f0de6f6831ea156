# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The closed loop in an environment with two cameras and a state, and what it refuses before the first step."""

import dataclasses

import numpy as np
import pytest
import torch

from helpers.reward_batches import batch_of
from helpers.two_camera_arm import CORNERS, METRES_PER_ACTION, TASKS, TwoCameraArm, in_the_table
from nora15_hf.actions import ActionStatistics
from nora15_hf.actions.keyed_noise import keyed_noise
from nora15_hf.control import FlowSampler
from nora15_hf.control.chunk_policy import Nora15ChunkPolicy
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.evaluation.environment_fit import check_policy_fits, check_recording_fits
from nora15_hf.evaluation.episodes import Episode
from nora15_hf.evaluation.evaluate import evaluate_policy
from nora15_hf.evaluation.lockstep import DrivenEpisode, drive_in_lockstep
from nora15_hf.evaluation.rollout import rollout
from nora15_hf.nora15 import Nora15Processor
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.preferences.reached_states import record_reached_states
from nora15_hf.preferences.simulator_reward import SimulatorSuccessReward
from nora15_hf.simulation.environment import Observation, camera_feature, camera_name
from nora15_hf.simulation.environment_table import find_environment
from nora15_hf.simulation.simulation_pool import SimulationPool
from nora15_hf.trainers.policy_setup import tiny_policy_for


@pytest.fixture(scope="module", autouse=True)
def arm_in_the_table():
    with in_the_table():
        yield


@pytest.fixture(scope="module")
def pool(arm_in_the_table):
    with SimulationPool("arm", num_workers=1, num_slots=4) as pool:
        yield pool


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory, pool):
    return record_demonstrations(
        tmp_path_factory.mktemp("arm") / "demonstrations", list(TASKS), 2, pool=pool, progress=False
    )


def instructions():
    return [task.instruction for task in TASKS.values()]


def open_demonstrations(root, **options) -> LeRobotDataset:
    return LeRobotDataset(root, chunk_size=5, dataset_key="arm", **options)


@pytest.fixture(scope="module")
def policy(demonstrations):
    """Reads the state, takes actions as differences from it and sees two cameras."""
    dataset = open_demonstrations(demonstrations)
    model, processor = tiny_policy_for(dataset, instructions(), image_size=56, state_input=True)
    processor.delta_action_mask = [True, True, False]
    return model, processor


def test_demonstrations_hold_both_cameras_and_the_state(demonstrations):
    dataset = open_demonstrations(demonstrations)
    assert dataset.image_keys == ["observation.images.front", "observation.images.wrist"]
    env = TwoCameraArm("left")
    env.reset(0)
    seen = env.observation()
    for image, expected in zip(dataset[0]["images"], seen.images.values(), strict=True):
        np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(dataset[0]["state"], seen.state)
    np.testing.assert_array_equal(dataset[0]["actions"][0], env.expert_action())
    assert dataset.conventions["simulator"] == "arm"


@pytest.mark.slow
def test_a_policy_with_state_and_two_cameras_acts_as_by_hand(pool, policy):
    """The rollout equals stepping the environment with the processor and the model, episode by episode."""
    model, processor = policy
    results = evaluate_policy(
        Nora15ChunkPolicy(*policy), list(TASKS), pool, episodes_per_task=2, record_every=5, progress=False
    )
    assert [(result.task, result.seed) for result in results] == [
        (task, seed) for task in TASKS for seed in (10_000, 10_001)
    ]
    for result in results:
        env = TwoCameraArm(result.task)
        env.reset(result.seed)
        for replan, frame in enumerate(result.frames[:-1]):
            seen = env.observation()
            np.testing.assert_array_equal(frame, seen.images["front"])
            inputs = processor(
                images=[list(seen.images.values())], text=[seen.instruction], state=seen.state[None], dataset_key="arm"
            )
            actions = model.sample_actions(**inputs, noise=keyed_noise([(result.seed, replan)], (5, 3)))
            for action in processor.unnormalize_actions(actions, "arm", seen.state[None])[0].numpy():
                if not env.done:
                    env.step(action)
        assert (result.success, result.num_steps) == (env.success, env.num_steps)


def test_it_records_reached_states_and_is_scored_by_success(pool, policy, demonstrations, tmp_path):
    chunk_policy = Nora15ChunkPolicy(*policy, sampler=FlowSampler(2))
    root = record_reached_states(
        tmp_path / "reached", chunk_policy, ["left"], 3, pool=pool, max_policy_steps=10, first_seed=40, progress=False
    )
    reached = open_demonstrations(root)
    assert reached.num_episodes == 3
    # The expert acted at every frame, and each episode begins where the policy led.
    np.testing.assert_array_equal(reached.all_actions(), reached.column("executed_action"))
    for number, (seed, executed) in enumerate(
        zip(reached.conventions["episode_seeds"], reached.conventions["policy_actions"], strict=True)
    ):
        env = TwoCameraArm("left")
        env.reset(seed)
        assert 5 <= len(executed) <= 10
        for action in executed:
            env.step(np.array(action, dtype=np.float32))
        first = reached[reached.episodes["from"][number]]
        np.testing.assert_array_equal(first["images"][0], env.observation().images["front"])
        np.testing.assert_allclose(first["actions"][0], env.expert_action(), rtol=1e-6)
    assert np.abs(reached.all_states()[-1, :2] - CORNERS["left"]).max() < 0.06 + METRES_PER_ACTION

    dataset = open_demonstrations(demonstrations)
    index = 3
    sample = dataset[index]
    candidates = policy[1].normalize_actions(sample["actions"][None, None].repeat(2, 1), "arm", sample["state"][None])
    rewards = {
        "expert": SimulatorSuccessReward(pool, policy[1], dataset, discount=0.9),
        "policy": SimulatorSuccessReward(pool, policy[1], dataset, policy=chunk_policy, discount=0.9),
    }
    scores = {
        who: reward.score(batch_of(dataset, [index], torch.from_numpy(candidates))) for who, reward in rewards.items()
    }
    env = TwoCameraArm("left")
    env.reset(0)
    for action in dataset.column("executed_action")[:index]:
        env.step(action)
    for action in sample["actions"]:
        if not env.done:
            env.step(action)
    while not env.done:
        env.step(env.expert_action())
    assert scores["expert"][0].tolist() == pytest.approx([0.9 ** (env.num_steps - index)] * 2)
    assert scores["policy"][0, 0] == scores["policy"][0, 1]


def test_swapped_instructions_and_shuffled_images_work_with_two_cameras(pool, policy):
    for control in ("swapped_instruction", "shuffled_images"):
        results = evaluate_policy(
            Nora15ChunkPolicy(*policy), list(TASKS), pool, episodes_per_task=1, control=control, progress=False
        )
        assert len(results) == 2


def test_the_pool_of_a_recording_has_its_settings(demonstrations):
    recorded = open_demonstrations(demonstrations).conventions | {"gripper": "-1 closes", "max_steps": 7}
    with SimulationPool.of_recording(recorded, num_workers=1, num_slots=1) as pool:
        assert pool.spec.max_steps == 7
        assert pool.spec.conventions["gripper"] == "-1 closes"
    with pytest.raises(ValueError, match="do not name a simulator"):
        SimulationPool.of_recording({"camera": "front"})


# -- what is refused --------------------------------------------------------------------------------------------------


def stateless(**changes) -> Nora15Processor:
    """The processor of a policy for the arm that reads no state, without names of cameras."""
    return tiny_policy(instructions(), **{"image_size": 56, "action_dim": 3, **changes})[1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"with_state": False}, r"state: the policy needs it, but the simulator provides none"),
        ({"cameras": ("front",)}, r"cameras: policy \['front', 'wrist'\], simulator \['front'\]"),
        ({"gripper": "-1 closes"}, r"gripper: recorded '1 closes', simulator '-1 closes'"),
    ],
)
def test_a_simulator_that_a_policy_was_not_trained_in(policy, settings, expected):
    spec = TwoCameraArm.describe(**settings)
    with pytest.raises(ValueError, match=expected):
        check_policy_fits(policy[1], spec)


def test_everything_that_differs_is_listed(policy):
    spec = TwoCameraArm.describe(with_state=False, cameras=("top",), gripper="-1 closes")
    spec = dataclasses.replace(spec, action_names=("dx", "dy"))
    with pytest.raises(
        ValueError, match=r"gripper: .*; state: .*; cameras: .*; action dimension: policy 3, simulator 2; "
    ):
        check_policy_fits(policy[1], spec)


def test_dimensions_of_other_policies():
    spec = TwoCameraArm.describe()
    check_policy_fits(stateless(), spec)
    with pytest.raises(ValueError, match=r"action dimension: policy 4, simulator 3"):
        check_policy_fits(stateless(action_dim=4), spec)
    with pytest.raises(ValueError, match="state dimension: policy 8, simulator 3"):
        check_policy_fits(stateless(state_dim=8), spec)


def test_a_policy_of_several_datasets_names_the_one_that_is_meant():
    statistics = ActionStatistics.from_actions(np.stack([-np.ones(3), np.ones(3)]).astype(np.float32))
    conventions = {"arm": {"gripper": "1 closes"}, "other": {"gripper": "-1 closes"}}
    processor = stateless(norm_stats={"arm": statistics, "other": statistics}, conventions=conventions)
    check_policy_fits(processor, TwoCameraArm.describe(), "arm")
    with pytest.raises(ValueError, match="gripper"):
        check_policy_fits(processor, TwoCameraArm.describe(), "other")
    with pytest.raises(ValueError, match="dataset_key"):
        check_policy_fits(processor, TwoCameraArm.describe())


def test_nothing_is_stepped_or_written_for_a_policy_that_does_not_fit(pool, demonstrations, tmp_path):
    statistics = ActionStatistics.from_actions(np.stack([-np.ones(4), np.ones(4)]).astype(np.float32))
    model, processor = tiny_policy(instructions(), image_size=56, action_dim=4, norm_stats={"arm": statistics})
    with pytest.raises(ValueError, match="action dimension"):
        evaluate_policy(Nora15ChunkPolicy(model, processor), list(TASKS), pool, episodes_per_task=1)
    policy = Nora15ChunkPolicy(model, processor)
    with pytest.raises(ValueError, match="action dimension"):
        record_reached_states(tmp_path / "reached", policy, ["left"], 1, pool=pool, max_policy_steps=9)
    assert not (tmp_path / "reached").exists()
    dataset = open_demonstrations(demonstrations)
    with pytest.raises(ValueError, match="action dimension"):
        SimulatorSuccessReward(pool, processor, dataset)
    with pytest.raises(ValueError, match="gripper"):
        check_recording_fits(dataset, TwoCameraArm.describe(gripper="-1 closes"))


def test_an_environment_without_an_expert(policy, demonstrations, tmp_path):
    dataset = open_demonstrations(demonstrations)
    with SimulationPool("arm", num_workers=1, num_slots=1, has_expert=False) as pool:
        with pytest.raises(ValueError, match="no scripted expert"):
            record_demonstrations(tmp_path / "new", ["left"], 1, pool=pool)
        with pytest.raises(ValueError, match="no scripted expert"):
            record_reached_states(
                tmp_path / "new", Nora15ChunkPolicy(*policy), ["left"], 1, pool=pool, max_policy_steps=9
            )
        with pytest.raises(ValueError, match="no scripted expert"):
            SimulatorSuccessReward(pool, policy[1], dataset)
        SimulatorSuccessReward(pool, policy[1], dataset, policy=Nora15ChunkPolicy(*policy))
    assert not (tmp_path / "new").exists()


def test_unknown_names_list_the_nearest(pool):
    with pytest.raises(ValueError, match=r"Unknown environment 'metaword'\. Nearest: metaworld"):
        find_environment("metaword")
    with pytest.raises(ValueError, match=r"Unknown task 'lft'\. Nearest: left"):
        pool.start([(0, "lft", 1)])
    with pytest.raises(ValueError, match=r"Unknown task 'rigth'\. Nearest: right"):
        rollout(lambda observations, keys: None, [Episode("rigth", 1)], pool)


def test_an_environment_that_shows_something_else_than_its_spec_says():
    with (
        SimulationPool("arm", num_workers=1, num_slots=1, shown_size=32) as pool,
        pytest.raises(RuntimeError, match=r"'arm' shows .*\(32, 32, 3\).* its spec declares .*\(56, 56, 3\)"),
    ):
        pool.start([(0, "left", 1)])


def test_lockstep_counts_looks_and_sorts_by_slot():
    seen = Observation({}, None, "move")
    keys = []

    def policy(observations, noise_keys):
        keys.append(list(noise_keys))
        return np.zeros((len(observations), 3, 2))

    episodes = {4: DrivenEpisode(seen, (7, 30), replan=1), 1: DrivenEpisode(seen, (8,))}
    for number, actions in enumerate(drive_in_lockstep(policy, episodes, n_action_steps=2, action_dim=2)):
        assert {slot: chunk.shape for slot, chunk in actions.items()} == dict.fromkeys(sorted(episodes), (2, 2))
        if number == 1:
            del episodes[1]
        if number == 2:
            episodes.clear()
    assert keys == [[(8, 0), (7, 30, 1)], [(8, 1), (7, 30, 2)], [(7, 30, 3)]]


@pytest.mark.parametrize("camera", ["image", "front", "wrist"])
def test_cameras_have_lerobots_names(camera):
    assert camera_name(camera_feature(camera)) == camera
    assert camera_feature("image") == "observation.image"
    assert camera_feature("front") == "observation.images.front"
