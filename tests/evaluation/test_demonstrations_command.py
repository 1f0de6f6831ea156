# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 demonstrations`."""

import pytest

from helpers.two_camera_arm import in_the_table
from nora15_hf.commands.dispatcher import main
from nora15_hf.data import LeRobotDataset


@pytest.fixture(scope="module", autouse=True)
def arm_in_the_table():
    with in_the_table():
        yield


def test_it_records_all_cameras_and_the_state_of_the_tasks_that_are_asked_for(tmp_path, capsys):
    output = tmp_path / "demonstrations"
    options = [
        "--tasks",
        "left",
        "--episodes",
        "2",
        "--first-seed",
        "7",
        "--workers",
        "1",
        "--set",
        "gripper=1 opens",
    ]
    assert main(["demonstrations", "--output", str(output), "--environment", "arm", *options]) == 0
    dataset = LeRobotDataset(output, chunk_size=5)
    assert dataset.image_keys == ["observation.images.front", "observation.images.wrist"]
    assert dataset.conventions["gripper"] == "1 opens"
    assert dataset.conventions["demonstrations"]["first_seed"] == 7
    assert capsys.readouterr().out == f"2 episodes, {len(dataset)} frames in {output}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--environment", "arms"], "Nearest: arm"),
        (["--environment", "arm", "--tasks", "up"], "Unknown task 'up'"),
        (["--environment", "arm", "--tasks", "left", "--protocol", "openvla"], "Unknown protocol 'openvla'"),
        (["--environment", "arm", "--tasks", "left", "--set", "grip=1"], "Unknown setting 'grip'. Nearest: gripper"),
        (["--environment", "arm", "--tasks", "left", "--set", "has_expert=false"], "has no scripted expert"),
    ],
)
def test_wrong_options_end_it_in_a_line(options, message, tmp_path, capsys):
    try:
        code = main(["demonstrations", "--output", str(tmp_path / "out"), *options])
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    assert message in capsys.readouterr().err
