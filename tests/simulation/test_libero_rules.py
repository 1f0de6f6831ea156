# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The rules of LIBERO evaluations, which need no LIBERO: tasks, protocols, pictures, rotations."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import nora15_hf
from nora15_hf.nora15.image_processing_nora15 import resize_lanczos3 as resize_of_the_processor
from nora15_hf.simulation import opengl
from nora15_hf.simulation.environment_table import find_environment
from nora15_hf.simulation.installation import extra_command
from nora15_hf.simulation.libero.libero_tasks import LIBERO_SUITES, LIBERO_TASKS
from nora15_hf.simulation.libero.pictures import resize_lanczos3, shown_picture
from nora15_hf.simulation.libero.protocols import PROTOCOLS
from nora15_hf.simulation.libero.rotations import about_vertical, axis_angle, rotation_vector

MILK = "pick_up_the_milk_and_place_it_in_the_basket"


def task_of(suite, name=MILK):
    return LIBERO_TASKS[f"{suite}/{name}"]


def test_suites_and_their_variants():
    own = {name: len(tasks) for name, tasks in LIBERO_SUITES.items() if name.count("_") == 1}
    assert own == {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
    assert len(LIBERO_SUITES) == 5 + 4 * 4
    assert len(LIBERO_TASKS) == 130 + 160
    assert LIBERO_SUITES["libero_goal_swap"][7] == "libero_goal_swap/turn_on_the_stove"


def test_instructions_are_those_of_the_evaluation_script():
    """The name of the file; where a variant changes words or task, the sentence that it is about."""
    assert task_of("libero_object").instruction == "pick up the milk and place it in the basket"
    assert task_of("libero_object_swap").instruction == "pick up the milk and place it in the basket"
    assert task_of("libero_object_lan").instruction == "grab milk and put into basket"
    assert task_of("libero_object_task").instruction == "pick the butter and place it in the basket"
    kitchen = task_of("libero_90", "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet")
    assert kitchen.instruction == "close the top drawer of the cabinet"
    assert kitchen.scene == "libero_90/KITCHEN_SCENE10"


def test_statistics_are_looked_up_by_the_suite():
    assert task_of("libero_object").dataset_keys == ("libero_object", "libero_object_no_noops")
    assert task_of("libero_object_task").dataset_keys == ("libero_object", "libero_object_no_noops")


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (
            lambda entry: entry.select_tasks(suites=["libero_objects"]),
            "Unknown suite 'libero_objects'. Nearest: libero_object",
        ),
        (lambda entry: entry.select_tasks([f"libero_object/{MILK}s"]), f"Nearest: libero_object/{MILK}"),
        (lambda entry: entry.check_protocol("openpvla"), "Protocols: openvla, nora"),
    ],
)
def test_unknown_names_get_the_nearest(choose, message):
    with pytest.raises(ValueError, match=message):
        choose(find_environment("libero"))


def test_rules_of_the_protocols():
    openvla, nora = (PROTOCOLS[name].rules() for name in ("openvla", "nora"))
    assert next(iter(PROTOCOLS)) == "openvla"
    assert openvla["step_limits"] == {
        "libero_spatial": 220,
        "libero_object": 280,
        "libero_goal": 300,
        "libero_10": 520,
        "libero_90": 400,
    }
    # 500 chunks of 5 actions would be 2500 steps; robosuite ends an episode after 1000, the waiting steps included.
    assert set(nora["step_limits"].values()) == {990}
    assert (openvla["n_action_steps"], nora["n_action_steps"]) == (None, 5)
    assert (openvla["success_checked_every"], nora["success_checked_every"]) == (1, 5)
    for rules in (openvla, nora):
        assert (rules["waiting_steps"], rules["environment_seed"]) == (10, 0)
        assert rules["waiting_action"] == [0, 0, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("protocol", "gripper", "sent"),
    [
        ("openvla", 1.0, -1),
        ("openvla", 0.51, -1),
        ("openvla", 0.5, 0),
        ("openvla", 0.49, 1),
        ("nora", 0.7, -1),
        ("nora", 0.5, 1),
        ("nora", -0.2, 1),
    ],
)
def test_the_gripper_is_made_binary_and_inverted(protocol, gripper, sent):
    action = np.array([0.2, -1.5, 0, 0, 0, 3, gripper], dtype=np.float32)
    expected = [0.2, -1, 0, 0, 0, 1, sent]
    np.testing.assert_allclose(PROTOCOLS[protocol].simulator_action(action), expected, atol=1e-7)


@pytest.mark.parametrize("size", [84, 224, 256])
def test_pictures_are_resized_as_the_processor_does(size):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    expected = (
        resize_of_the_processor(torch.from_numpy(image).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0).numpy()
    )
    difference = np.abs(resize_lanczos3(image, size).astype(int) - expected)
    # Sums in another order: what lies at a half is rounded to either side.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_pictures_are_turned_by_half_a_turn_and_went_through_jpeg():
    rendered = np.full((256, 256, 3), 90, dtype=np.uint8)
    rendered[:64, 192:] = (250, 20, 20)
    rendered[::2, :64] += 4  # less than JPEG keeps
    shown = shown_picture(rendered, 224)
    assert shown.shape == (224, 224, 3)
    np.testing.assert_allclose(shown[-50:-6, 6:50].reshape(-1, 3).mean(0), (250, 20, 20), atol=3)
    assert np.abs(shown[:100, :100].astype(int) - 90).max() <= 3
    assert not np.array_equal(shown_picture(rendered, 256), rendered[::-1, ::-1])


def test_axis_angle_of_a_quaternion():
    np.testing.assert_array_equal(axis_angle([0, 0, 0, 1]), np.zeros(3))
    np.testing.assert_allclose(axis_angle([0, np.sin(0.3), 0, np.cos(0.3)]), [0, 0.6, 0], atol=1e-12)
    # The hand that points downwards; the negative quaternion means the same, as an angle beyond half a turn.
    np.testing.assert_allclose(axis_angle([1, 0, 0, 0]), [np.pi, 0, 0], atol=1e-12)
    np.testing.assert_allclose(axis_angle([0, -np.sin(0.3), 0, -np.cos(0.3)]), [0, -(2 * np.pi - 0.6), 0], atol=1e-12)


def test_rotation_vector_of_a_matrix():
    np.testing.assert_allclose(rotation_vector(about_vertical(0.7)), [0, 0, 0.7], atol=1e-12)
    np.testing.assert_array_equal(rotation_vector(np.eye(3)), np.zeros(3))


def test_missing_opengl_names_the_package(monkeypatch):
    monkeypatch.setattr(opengl, "opengl_works", lambda platform: False)
    with pytest.raises(OSError, match=r"apt-get install libegl1 libgl1.*or set renderer='osmesa'"):
        opengl.require_opengl("egl", "set renderer='osmesa'")


def test_missing_extra_names_the_pip_command():
    """The table lists LIBERO's tasks without it; only its environment needs it."""
    code = (
        "import sys, importlib.metadata as metadata\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "def version(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = version\n"
        "import simulation.environment_table\n"
        "import simulation.libero.libero_env"
    )
    outcome = subprocess.run([sys.executable, "-c", code, *nora15_hf.__path__], capture_output=True, text=True)
    assert outcome.stderr.splitlines()[-1].startswith("ImportError")
    assert extra_command("libero") in outcome.stderr
