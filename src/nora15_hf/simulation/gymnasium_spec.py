# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What an environment of gymnasium shows and takes, found by building it, and how its parts are read."""

import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

import numpy as np

from .environment import EnvironmentSpec, Task, unknown_name

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise ImportError("gymnasium is not installed. Install it with: pip install gymnasium") from error

logger = logging.getLogger(__name__)

OBSERVATION, RENDER, TERMINATED = "observation", "render", "terminated"


@dataclass(frozen=True)
class _Found:
    """What all ids of one evaluation have in common."""

    cameras: dict[str, tuple[int, int]]
    state_dim: int | None
    action_limits: tuple[tuple[float, ...], tuple[float, ...]]
    max_steps: int
    control_rate: float


def gymnasium_spec(settings: Mapping[str, Any]) -> EnvironmentSpec:
    """Describe what `settings` name: all arguments of [`GymnasiumEnv`] but the task, several names as lists."""
    return _spec_of(json.dumps(settings))


# The environments of a worker have the same settings: one of each id is built to describe them all.
@cache
def _spec_of(settings_text: str) -> EnvironmentSpec:
    settings = json.loads(settings_text)
    if not settings["gym_ids"]:
        raise ValueError(
            "`gym_ids` is missing: name an environment of gymnasium.make, for example gym_pusht:gym_pusht/PushT-v0."
        )
    if (settings["instruction"] is None) == (settings["instruction_key"] is None):
        raise ValueError("Pass either `instruction`, the text itself, or `instruction_key`, where it is found.")
    if settings["instruction"] is not None and settings["instruction"].keys() != set(settings["gym_ids"]):
        raise ValueError(
            f"`instruction` must hold one text for each of `gym_ids`, by id; it has {settings['instruction']}."
        )
    if settings["expert"] is not None:
        find_expert(settings["expert"])
    tasks, packages, found = {}, {}, {}
    for gym_id in settings["gym_ids"]:
        env = make(gym_id, settings)
        found[gym_id], instruction = _examine(env, gym_id, settings)
        tasks[gym_id] = Task(gym_id, instruction, scene=gym_id)
        top_level = type(env.unwrapped).__module__.partition(".")[0]
        packages |= dict.fromkeys(packages_distributions().get(top_level, ()))
        env.close()
    first_id, first = next(iter(found.items()))
    for gym_id, other in found.items():
        if other != first:
            raise ValueError(
                f"Evaluate different environments separately: {first_id!r} has {first}, but {gym_id!r} has {other}."
            )
    action_dim = len(first.action_limits[0])
    action_names = settings["action_names"] or [f"action_{dimension}" for dimension in range(action_dim)]
    for name, names, dim in (
        ("action", action_names, action_dim),
        ("state", settings["state_names"], first.state_dim),
    ):
        if names is not None and len(names) != dim:
            raise ValueError(
                f"`{name}_names` has {len(names)} names, but {first_id!r} has {dim} dimensions of {name}s."
            )
    return EnvironmentSpec(
        name="gymnasium",
        title="gymnasium",
        robot_type="gymnasium",
        packages=(*packages, "gymnasium"),
        tasks=tasks,
        cameras=first.cameras,
        action_names=tuple(action_names),
        action_limits=first.action_limits,
        state_dim=first.state_dim,
        state_names=None if settings["state_names"] is None else tuple(settings["state_names"]),
        control_rate=first.control_rate,
        max_steps=first.max_steps,
        has_expert=settings["expert"] is not None,
        hand_dims=settings["hand_dims"],
        conventions=settings | {"max_steps": first.max_steps, "control_rate": first.control_rate},
        binding_conventions=("image_keys", "state_key", "gym_kwargs"),
    )


def make(gym_id: str, settings: Mapping[str, Any]) -> gymnasium.Env:
    """Build an environment that ends its episodes at the step limit of the settings.

    Raises:
        ValueError: unknown id (the nearest are named), it cannot be built, or its actions are not a `Box` with one axis.
        ImportError: what it needs is not installed.
    """
    try:
        with _blamed_on(gym_id, settings, "made"):
            env = gymnasium.make(
                gym_id, max_episode_steps=settings["max_steps"], disable_env_checker=True, **settings["gym_kwargs"]
            )
    except gymnasium.error.UnregisteredEnv:
        known = unknown_name("environment of gymnasium", gym_id.rpartition(":")[2], gymnasium.registry)
        raise ValueError(f"{known} If it is registered by importing a package, write package:{gym_id}.") from None
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"The action space of {gym_id!r} is {space}; a policy's actions need a Box with one axis.")
    return env


@contextmanager
def _blamed_on(gym_id: str, settings: Mapping[str, Any], action: str) -> Iterator[None]:
    """What somebody else's environment raises, as an error that says whose it is and how to see it alone."""
    try:
        yield
    except gymnasium.error.UnregisteredEnv:
        raise
    except Exception as error:
        told = " ".join(str(error).split()).removesuffix(".")
        reason = f"{gym_id!r} cannot be {action}: {type(error).__name__}: {told}."
        if isinstance(error, (ImportError, gymnasium.error.DependencyNotInstalled)):
            raise ImportError(f"{reason} Install what it needs.") from error
        made_with = "".join(f", {name}={value!r}" for name, value in settings["gym_kwargs"].items())
        raise ValueError(
            f"{reason} See it alone in Python: gymnasium.make({gym_id!r}{made_with}).reset(seed=0); the arguments after the id are "
            "the setting gym_kwargs."
        ) from error


def _examine(env: gymnasium.Env, gym_id: str, settings: Mapping[str, Any]) -> tuple[_Found, str]:
    """What the environment shows and takes, and its instruction."""
    with _blamed_on(gym_id, settings, "reset and drawn"):
        observation, info = env.reset(seed=0)
        drawn = {RENDER: np.asarray(env.render())} if env.render_mode == "rgb_array" else {}
    # Copies, since some environments write every observation into the same arrays.
    seen = {key: np.array(part) for key, part in flat(observation).items()}
    instruction = told_instruction(env, settings, gym_id, seen, info)
    shown = seen | drawn

    def part(setting: str, key: str, meaning: str, is_meant: Callable[[np.ndarray], bool]) -> np.ndarray:
        if key in shown and is_meant(shown[key]):
            return shown[key]
        there = "; ".join(f"{name!r} {value.dtype} {value.shape}" for name, value in shown.items())
        raise ValueError(
            f"`{setting}` names {key!r}, but there is no {meaning} of that name. {gym_id!r} shows {there}."
        )

    cameras = {
        camera: part("image_keys", key, "picture, uint8 (height, width, 3),", _is_picture).shape[:2]
        for camera, key in settings["image_keys"].items()
    }
    state_dim = None
    if settings["state_key"] is not None:
        state_dim = len(part("state_key", settings["state_key"], "state, numbers (S,),", _is_state))

    with _blamed_on(gym_id, settings, "stepped"):
        _, _, _, _, info = env.step(within(env.action_space, np.zeros(env.action_space.shape)))
        again, _ = env.reset(seed=0)
    if settings["success_key"] not in (TERMINATED, *info):
        raise ValueError(
            f"`success_key` is {settings['success_key']!r}, but the info after a step of {gym_id!r} holds "
            f"{', '.join(info) or 'nothing'}. {TERMINATED!r} means that episodes terminate only with success."
        )
    if not all(np.array_equal(seen[key], value) for key, value in flat(again).items()):
        logger.warning(
            f"Two episodes of {gym_id!r} with the same seed begin differently: results cannot be reproduced, nor can policies "
            "be compared on the same episodes."
        )
    limits = {
        "max_steps": env.spec.max_episode_steps,
        "control_rate": settings["control_rate"] or env.metadata.get("render_fps"),
    }
    for name, limit in limits.items():
        if limit is None:
            raise ValueError(f"`{name}` is missing, and {gym_id!r} does not define it.")
    action_limits = (tuple(env.action_space.low.tolist()), tuple(env.action_space.high.tolist()))
    return _Found(cameras, state_dim, action_limits, **limits), instruction


def _is_picture(value: np.ndarray) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3


def _is_state(value: np.ndarray) -> bool:
    return np.issubdtype(value.dtype, np.number) and value.ndim == 1


def find_expert(path: str) -> Callable[[gymnasium.Env], Callable[[], np.ndarray]]:
    """The scripted expert that the setting `expert` names.

    Raises:
        ValueError: it is not `"module:name"`, or the module has no such name.
        ImportError: there is no such module.
    """
    module, _, name = path.partition(":")
    if not (module and name):
        raise ValueError(f"`expert` is {path!r}; expected 'module:name'.")
    known = vars(importlib.import_module(module))
    if name not in known:
        raise unknown_name("expert", path, [f"{module}:{each}" for each in known if not each.startswith("_")])
    return known[name]


def flat(observation: Any, name: str = "") -> dict[str, Any]:
    """Parts of an observation by their keys, see [`GymnasiumEnv`]."""
    if not isinstance(observation, Mapping):
        return {name or OBSERVATION: observation}
    parts = {}
    for key, part in observation.items():
        parts |= flat(part, f"{name}.{key}" if name else key)
    return parts


def told_instruction(
    env: gymnasium.Env, settings: Mapping[str, Any], gym_id: str, seen: Mapping[str, Any], info: Mapping[str, Any]
) -> str:
    """The instruction of an episode that has just begun; `seen` and `info` are those of its reset."""
    key = settings["instruction_key"]
    if key is None:
        return settings["instruction"][gym_id]
    told = {**seen, **info}
    if key in told:
        return str(told[key])
    if not env.has_wrapper_attr(key):
        raise ValueError(
            f"`instruction_key` is {key!r}, which is neither an attribute of {gym_id!r} nor in its observation or info: "
            f"{', '.join(told)}."
        )
    return str(env.get_wrapper_attr(key))


def has_succeeded(settings: Mapping[str, Any], terminated: bool, info: Mapping[str, Any]) -> bool:
    """Whether a step that returned `terminated` and `info` was a success."""
    return bool(terminated if settings["success_key"] == TERMINATED else info[settings["success_key"]])


def within(space: gymnasium.spaces.Box, action: np.ndarray) -> np.ndarray:
    """An action `(A,)` clipped to the action space, in its dtype."""
    return np.clip(action, space.low, space.high).astype(space.dtype)


__all__ = ["RENDER", "find_expert", "flat", "gymnasium_spec", "has_succeeded", "make", "told_instruction", "within"]
