# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 demonstrations`."""

import pytest

from helpers.failing_arm import failing_arm_in_the_table
from helpers.two_camera_arm import in_the_table
from nora15_hf.commands.dispatcher import main
from nora15_hf.data import LeRobotDataset
from nora15_hf.simulation.environment import Task


@pytest.fixture(scope="module", autouse=True)
def arms_in_the_table():
    with in_the_table(), failing_arm_in_the_table():
        yield


def record(output, *options: str) -> int:
    try:
        return main(["demonstrations", "--output", str(output), "--workers", "1", *options])
    except SystemExit as stop:
        return stop.code


def test_it_records_all_cameras_and_the_state_of_the_tasks_that_are_asked_for(tmp_path, capsys, monkeypatch):
    output = tmp_path / "demonstrations"
    # As Meta-World's hidden goals, which have to be drawn.
    monkeypatch.setattr(Task, "needed_settings", {"max_steps": 39})
    options = ["--tasks", "left", "--episodes", "2", "--first-seed", "7", "--set", "gripper=1 opens"]
    assert record(output, "--environment", "arm", *options) == 0
    dataset = LeRobotDataset(output, chunk_size=5)
    assert dataset.image_keys == ["observation.images.front", "observation.images.wrist"]
    assert (dataset.conventions["gripper"], dataset.conventions["max_steps"]) == ("1 opens", 39)
    assert dataset.conventions["demonstrations"]["first_seed"] == 7
    assert capsys.readouterr().out == f"2 episodes, {len(dataset)} frames in {output}\n"


LEFT = ["--environment", "arm", "--tasks", "left"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--environment", "arms"], "Nearest: arm"),
        (["--environment", "arm", "--tasks", "up"], "Unknown task 'up'"),
        (["--environment", "gymnasium", "--suite", "all"], "Unknown suite 'all': there is none here"),
        ([*LEFT, "--protocol", "openvla"], "Unknown protocol 'openvla'"),
        ([*LEFT, "--set", "grip=1"], "Unknown setting 'grip'. Nearest: gripper"),
        ([*LEFT, "--set", "has_expert=false"], "has no scripted expert"),
        ([*LEFT, "--set", "max_steps=many"], "The setting 'max_steps' is 'many'; expected a whole number."),
        ([*LEFT, "--set", "max_steps=true"], "The setting 'max_steps' is True; expected a whole number."),
        ([*LEFT, "--set", "with_state=no"], "The setting 'with_state' is 'no'; expected true or false."),
        ([*LEFT, "--set", "cameras=front"], "The setting 'cameras' is 'front'; expected a list."),
        ([*LEFT, "--first-seed", "10000"], "reaches 10000: a policy is evaluated on those from there on"),
        ([*LEFT, "--first-seed", "9984", "--episodes", "9"], "with 9 in reserve for failures, reaches 10000"),
    ],
)
def test_wrong_options_end_it_in_a_line(options, message, tmp_path, capsys):
    assert record(tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tasks_of_one_instruction_are_recorded_apart(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Task, "instruction", property(lambda task: "go"), raising=False)
    assert record(tmp_path / "out", "--environment", "arm", "--tasks", "left,right", "--episodes", "1") == 2
    assert "some of the tasks ['left', 'right'] have the same. Record them apart." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["max_steps=1"], "The expert of 'left' failed 6 times (seeds [0, 1, 2, 3, 4, 5])"),
        (["faults={folder}"], "ValueError: the arm is jammed"),
    ],
)
def test_a_recording_that_cannot_be_finished_is_told(settings, message, tmp_path, capsys):
    (tmp_path / "raise-0").touch()
    options = [f"--set={setting.format(folder=tmp_path)}" for setting in settings]
    output = tmp_path / "out"
    assert record(output, "--environment", "failing", "--tasks", "left", "--episodes", "1", *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert f"The recording in {output} is not complete and cannot be read" in error
