# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a simulator has to offer, so that policies can be evaluated in it, and experts recorded."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np

from .hand_projection import HandProjection

LISTED_NAMES = 20
FIRST_EVALUATION_SEED = 10_000
"""Training uses the seeds below it, evaluation those from there."""


@dataclass(frozen=True)
class Observation:
    """What a policy gets to see and read.

    Attributes:
        images (`dict[str, np.ndarray]`): camera name to uint8 RGB `(height, width, 3)`, in the order of the spec's cameras.
        state (`np.ndarray` or `None`): float32 `(S,)`, physical units; `None` from a simulator that has no state.
        instruction (`str`): what the policy is told.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray | None
    instruction: str

    @property
    def first_image(self) -> np.ndarray:
        """The picture of the first camera."""
        return next(iter(self.images.values()))


@dataclass(frozen=True)
class Task:
    """Something to do in an environment.

    Attributes:
        name (`str`): unique in the environment.
        instruction (`str`): unique among the tasks that are recorded together: datasets know a task by it.
        scene (`str`): tasks with the same value start from the same kind of scene, so that only the instruction tells them
            apart. They are the pairs of the control "swapped instructions must cost success".
    """

    name: str
    instruction: str
    scene: str

    @property
    def needed_settings(self) -> dict[str, Any]:
        """Settings of the environment that the task requires; none unless a subclass defines some."""
        return {}

    @property
    def dataset_keys(self) -> tuple[str, ...]:
        """
        Names under which published policies keep the statistics of this task's data, the best first. Of a policy that has
        several datasets, evaluation takes the first of these that it has; none unless a subclass knows some.
        """
        return ()


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """What is true of all episodes of an environment under some settings.

    Attributes:
        name (`str`): its key in the table of environments.
        title (`str`): its name as people write it.
        robot_type (`str`): for the header of recorded datasets.
        packages (`tuple[str, ...]`): distributions whose versions decide what happens; the simulator's own first.
        tasks (`Mapping[str, Task]`): by name.
        cameras (`Mapping[str, tuple[int, int]]`): camera name to height and width of its pictures. The order is that in
            which a policy gets them. A camera is recorded as [`camera_feature`] tells.
        action_names (`tuple[str, ...]`): one per dimension of an action.
        action_units (`tuple[str, ...]`, *optional*): one per dimension.
        delta_actions (`tuple[bool, ...]`, *optional*): per dimension whether it is a change in one step, not a target.
        gripper (`str`, *optional*): what the gripper's number means.
        action_limits (`tuple`): low and high; every number of an action is clipped to these. Numbers, or tuples with one per
            dimension.
        state_dim (`int` or `None`): width of the state, `None` without one.
        state_names (`tuple[str, ...]`, *optional*), state_units (`tuple[str, ...]`, *optional*): one per dimension.
        camera_roles (`Mapping[str, str]`, *optional*): camera name to where it is mounted, as `"external"` or `"wrist"`.
        control_rate (`float`): steps per second of simulated time.
        max_steps (`int`): steps of an episode at most.
        initial_states (`int`, *optional*): official initial states of a task, where the benchmark has a fixed number. The
            episode of seed `FIRST_EVALUATION_SEED + k` then begins in the k-th; evaluation runs so many episodes of a task
            by default, and refuses more.
        n_action_steps (`int`, *optional*): actions of a chunk that are executed before the policy looks again, where the
            benchmark's protocol says so; the whole chunk otherwise.
        has_expert (`bool`): environments are [`ExpertEnvironment`]s.
        hand_dims (`int`): so many actions from the first on move the hand; recorded experts are disturbed in these.
        hand_projection ([`HandProjection`], *optional*): where the hand is on the picture of the first camera.
        conventions (`Mapping[str, Any]`): everything that moves success rates, every setting included under its own name,
            as plain JSON values. `"simulator"` is added, the `name`.
        binding_conventions (`tuple[str, ...]`): names of those that a policy must meet as in its training.
    """

    name: str
    title: str
    robot_type: str
    packages: tuple[str, ...]
    tasks: Mapping[str, Task]
    cameras: Mapping[str, tuple[int, int]]
    action_names: tuple[str, ...]
    state_dim: int | None
    control_rate: float
    max_steps: int
    conventions: Mapping[str, Any]
    binding_conventions: tuple[str, ...]
    action_units: tuple[str, ...] | None = None
    delta_actions: tuple[bool, ...] | None = None
    gripper: str | None = None
    state_names: tuple[str, ...] | None = None
    state_units: tuple[str, ...] | None = None
    camera_roles: Mapping[str, str] = field(default_factory=dict)
    action_limits: tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]] = (-1.0, 1.0)
    initial_states: int | None = None
    n_action_steps: int | None = None
    has_expert: bool = False
    hand_dims: int = 3
    hand_projection: HandProjection | None = field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "conventions", {"simulator": self.name, **self.conventions})
        binding = dict.fromkeys(("simulator", *self.binding_conventions))
        object.__setattr__(self, "binding_conventions", tuple(binding))
        missing = [name for name in self.binding_conventions if name not in self.conventions]
        if missing:
            raise ValueError(
                f"binding_conventions of {self.name!r} names {missing}, which `conventions` does not hold."
            )

    @property
    def action_dim(self) -> int:
        """Width A of an action."""
        return len(self.action_names)

    def task(self, name: str) -> Task:
        """A task by its name.

        Raises:
            ValueError: unknown; the message names the nearest ones.
        """
        return find_task(self.tasks, name)

    def tasks_sharing_scene(self, name: str) -> list[str]:
        """The other tasks that start from the same kind of scene as `name`, in the order of the table."""
        scene = self.task(name).scene
        return [task.name for task in self.tasks.values() if task.scene == scene and task.name != name]


class Environment(Protocol):
    """Episodes of one task that depend on nothing but their seed.

    The class in the table of environments is called with a task's name and the settings as keyword arguments, and
    `describe(**settings)` returns its [`EnvironmentSpec`] without building anything.

    Attributes:
        spec ([`EnvironmentSpec`]): under this environment's settings.
        task ([`Task`]): of all its episodes.
        num_steps (`int`): since the reset.
        success (`bool`): the task has succeeded in this or an earlier step of the episode.
        done (`bool`): the episode takes no more steps; true at the step limit at the latest. Success alone need not end it.
    """

    spec: EnvironmentSpec
    task: Task
    num_steps: int
    success: bool
    done: bool

    @classmethod
    def describe(cls, **settings: Any) -> EnvironmentSpec:
        """The spec under some settings, every one of which has a default."""

    def reset(self, seed: int) -> None:
        """Begin the episode that `seed` names, 0 or more; evaluation uses those from `FIRST_EVALUATION_SEED` on."""

    def step(self, action: np.ndarray) -> None:
        """Execute one action, float32 `(A,)` in physical units, clipped to the spec's limits."""

    def observation(self) -> Observation:
        """The current observation. Rendering is costly, so it is only requested when it is needed."""

    def close(self) -> None:
        """Free what the simulator holds."""


class ExpertEnvironment(Environment, Protocol):
    """An environment with a scripted expert for its task."""

    def expert_action(self) -> np.ndarray:
        """What the scripted expert does in the present state: float32 `(A,)` within the spec's limits."""


def check_observation(observation: Observation, spec: EnvironmentSpec) -> None:
    """Refuse what an environment shows if it is not what its spec promises.

    Raises:
        ValueError: another camera, size, type or width of the state; both sides are named.
    """
    promised = {camera: ((*size, 3), "uint8") for camera, size in spec.cameras.items()}
    shown = {camera: (image.shape, str(image.dtype)) for camera, image in observation.images.items()}
    if spec.state_dim is not None:
        promised["state"] = ((spec.state_dim,), "float32")
    if observation.state is not None:
        shown["state"] = (observation.state.shape, str(observation.state.dtype))
    if list(promised.items()) != list(shown.items()):
        raise ValueError(f"The environment {spec.name!r} shows {shown}, but its spec declares {promised}.")


def camera_feature(camera: str) -> str:
    """The dataset feature that holds a camera's pictures, in LeRobot's naming: a robot's only camera is `"image"`."""
    return "observation.image" if camera == "image" else f"observation.images.{camera}"


def camera_name(feature: str) -> str:
    """The inverse of [`camera_feature`]."""
    return feature.removeprefix("observation.images.").removeprefix("observation.")


def find_task(tasks: Mapping[str, Task], name: str) -> Task:
    """Look a task up by its name; an unknown one raises a `ValueError` that names the nearest."""
    if name not in tasks:
        raise unknown_name("task", name, tasks)
    return tasks[name]


def unknown_name(kind: str, name: str, known: Collection[str]) -> ValueError:
    """The error for a name that is not in a table, with the nearest names and, of a short table, all."""
    if not known:
        return ValueError(f"Unknown {kind} {name!r}: there is none here.")
    nearest = ", ".join(get_close_matches(name, known, n=3, cutoff=0.0))
    listed = f" {kind.capitalize()}s: {', '.join(known)}." if len(known) <= LISTED_NAMES else ""
    return ValueError(f"Unknown {kind} {name!r}. Nearest: {nearest}.{listed}")


__all__ = [
    "FIRST_EVALUATION_SEED",
    "Environment",
    "EnvironmentSpec",
    "ExpertEnvironment",
    "Observation",
    "Task",
    "camera_feature",
    "camera_name",
    "check_observation",
    "find_task",
    "unknown_name",
]
