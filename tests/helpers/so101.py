# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A pick-and-place task of `lerobot_env_so101`, with the scripted expert that the package has."""

from lerobot_env_so101.scripted.pick_place import PickPlaceController

SETTINGS = {
    "gym_ids": "lerobot_env_so101:lerobot_env_so101/SO101PickPlace-v0",
    "image_keys": "front=render",
    "state_key": "agent_pos",
    "success_key": "succeed",
    "instruction": "put the cube on the target",
    "action_names": "dx,dy,dz,gripper",
    "expert": "helpers.so101:so101_expert",
    "gym_kwargs": {"random_block_position": True, "action_scale": 0.025},
}


def so101_expert(env):
    """The controller of one episode; called without arguments, it looks at the environment."""
    controller = PickPlaceController(SETTINGS["gym_kwargs"]["action_scale"])
    return lambda: controller.act(env.ik_point_pos, env._data.sensor("block_pos").data, env.goal_pos)


__all__ = ["SETTINGS", "so101_expert"]
