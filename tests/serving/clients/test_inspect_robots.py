# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policies of inspect-robots for real robots ask the server: Franka and WidowX with openpi's protocol, Unitree G1 with GR00T's."""

import numpy as np
import pytest

pytest.importorskip("inspect_robots", reason="inspect-robots is not installed: make test-clients")
pytest.importorskip("openpi_client", reason="openpi's client is not installed: make test-clients")

import inspect_robots_franka
import inspect_robots_unitree_g1
import inspect_robots_widowx.policy
from inspect_robots.scene import Scene
from inspect_robots.types import Observation
from inspect_robots_unitree_g1.policy import Gr00tPolicy

from helpers.served_policies import WatchedPolicy
from nora15_hf.embodiment import Camera, Embodiment
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.serving.robots import RobotKeys, load_robot
from nora15_hf.serving.server import PolicyServer

CHUNK_SIZE = 10
INSTRUCTION = "open the drawer"


def policy_for(action_dim: int, state_dim: int | None, cameras: dict[str, str]) -> WatchedPolicy:
    """A tiny policy with random weights for a robot; cameras are names with their roles."""
    contract = Embodiment(
        cameras={name: Camera(role=role) for name, role in cameras.items()},
        action_names=tuple(f"a{number}" for number in range(action_dim)),
    )
    return WatchedPolicy(
        *tiny_policy(
            image_size=56,
            chunk_size=CHUNK_SIZE,
            action_dim=action_dim,
            state_dim=state_dim,
            embodiments={"default": contract},
        )
    )


def picture(brightness: int) -> np.ndarray:
    image = np.full((48, 64, 3), brightness, np.uint8)
    image[:8] = 255
    return image


def test_franka_with_the_droid_preset():
    served = policy_for(8, 8, {"exterior": "external", "hand": "wrist"})
    observation = Observation(
        images={"exterior_cam": picture(10), "wrist_cam": picture(20)},
        state={inspect_robots_franka.STATE_KEY: np.linspace(0.1, 0.8, 8)},
    )
    with PolicyServer(served, port=0, robot=load_robot("droid")) as server:
        policy = inspect_robots_franka.OpenpiPolicy(host="127.0.0.1", port=port_of(server), actions_are_velocity=False)
        policy.reset(Scene(id="1", instruction=INSTRUCTION))
        chunk = policy.act(observation)
    (request,) = served.requests
    assert {name: image.max() for name, image in request.observation.images.items()} == {"exterior": 255, "hand": 255}
    assert [image[100, 100, 0] for image in request.observation.images.values()] == [10, 20]
    assert request.observation.instruction == INSTRUCTION
    np.testing.assert_allclose(request.observation.state, [*np.linspace(0.1, 0.7, 7), 1 - 0.8], rtol=1e-6)
    expected = served.chunks[0].astype(np.float64)
    expected[:, 7] = 1 - expected[:, 7]
    np.testing.assert_array_equal([action.data for action in chunk.actions], expected)


def test_widowx_with_the_bridge_preset():
    served = policy_for(7, None, {"primary": "external"})
    with PolicyServer(served, port=0, robot=load_robot("bridge")) as server:
        policy = inspect_robots_widowx.policy.OpenpiPolicy(host="127.0.0.1", port=port_of(server))
        policy.reset(Scene(id="1", instruction=INSTRUCTION))
        chunk = policy.act(Observation(images={"external_cam": picture(10)}))
    assert served.requests[0].observation.state is None
    np.testing.assert_array_equal([action.data for action in chunk.actions], served.chunks[0])


def test_unitree_g1_with_groots_protocol():
    pytest.importorskip("msgpack_numpy", reason="the G1's client needs msgpack-numpy: make test-clients")
    arms = {"left_arm": (0, 7), "right_arm": (8, 15), "left_hand": (7, 8), "right_hand": (15, 16)}
    robot = RobotKeys(
        cameras={"video/ego_view": "head"},
        state=("state/left_arm", "state/right_arm"),
        instruction="language",
        actions=arms,
        action_dim=16,
    )
    served = policy_for(16, 14, {"head": "external"})
    observation = Observation(
        images={"head_cam": picture(30)},
        state={
            inspect_robots_unitree_g1.STATE_KEY: np.linspace(-0.5, 0.5, 16),
            "left_leg": np.zeros(6),
            "right_leg": np.zeros(6),
            "waist": np.zeros(3),
        },
    )
    with PolicyServer(served, port=0, protocol="gr00t", robot=robot) as server:
        policy = Gr00tPolicy(host="127.0.0.1", port=port_of(server))
        policy.reset(Scene(id="1", instruction=INSTRUCTION))
        chunk = policy.act(observation)
    (request,) = served.requests
    assert request.observation.instruction == INSTRUCTION
    np.testing.assert_array_equal(request.observation.images["head"], picture(30))
    np.testing.assert_allclose(request.observation.state, np.delete(np.linspace(-0.5, 0.5, 16), [7, 15]), rtol=1e-6)
    expected = served.chunks[0].astype(np.float64)
    expected[:, [7, 15]] = np.clip(expected[:, [7, 15]], 0, 1)
    np.testing.assert_array_equal([action.data for action in chunk.actions], expected)


def port_of(server: PolicyServer) -> int:
    return int(server.url.rpartition(":")[2])
