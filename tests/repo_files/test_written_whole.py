# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Files and folders appear whole or not at all."""

import json

import pytest

from nora15_hf.repo_files.json_files import write_json
from nora15_hf.repo_files.written_whole import written_whole


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    file = tmp_path / "record.json"
    write_json(file, {"old": 1})
    with written_whole(file) as part:
        part.write_text("new")
        assert json.loads(file.read_text()) == {"old": 1}
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_block_leaves_what_was_there(tmp_path):
    file = tmp_path / "record.json"
    write_json(file, [1])

    def interrupted():
        with written_whole(file) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(file.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_with_all_its_files(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    with written_whole(folder) as part:
        part.mkdir()
        (part / "a").write_text("a")
        (part / "b").write_text("b")
        assert not any(folder.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_is_no_part_of_the_result(tmp_path):
    folder = tmp_path / "repo"
    with written_whole(folder) as part:
        left_behind = part
        part.mkdir()
    left_behind.mkdir()
    (left_behind / "half").write_text("half")
    folder.rmdir()
    with written_whole(folder) as part:
        part.mkdir()
        (part / "whole").write_text("whole")
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_processes_do_not_write_to_one_place(tmp_path):
    with written_whole(tmp_path / "file", process=0) as first, written_whole(tmp_path / "file", process=1) as second:
        first.write_text("0")
        second.write_text("1")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["0"]
