# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 demo --export-space`: a folder that a Space can be made of, and that starts the same demo."""

import runpy
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT
from nora15_hf.apps.space import SDK_VERSION
from nora15_hf.commands import main
from nora15_hf.commands.demo import ARGUMENTS
from nora15_hf.commands.parser import CommandParser


def test_the_folder_is_a_space_that_starts_the_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["demo", "me/policy", "--world-model", "me/imagines", "--tasks", "faucet-open", "--set", "max_steps=9"]
    wheel = "nora15_hf[demo,sim] @ https://example.com/nora15_hf-0.1.0-py3-none-any.whl"
    assert main([*options, "--export-space", "space", "--requirement", wheel]) == 0
    assert {path.name for path in Path("space").iterdir()} == {
        "README.md",
        "app.py",
        "packages.txt",
        "requirements.txt",
    }
    assert Path("space/requirements.txt").read_text() == f"{wheel}\n"
    _, head, _ = Path("space/README.md").read_text().split("---\n", 2)
    settings = yaml.safe_load(head)
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert settings["models"] == ["me/policy", "me/imagines"]
    assert f"gradio=={settings['sdk_version']}" in (ROOT / "requirements" / "constraints.txt").read_text().split()
    assert settings["sdk_version"] == SDK_VERSION

    started = []
    monkeypatch.setattr("nora15_hf.commands.main", lambda arguments: started.append(arguments))
    with pytest.raises(SystemExit):
        runpy.run_path("space/app.py", run_name="__main__")
    ((name, *arguments),) = started
    parsed, _ = CommandParser(ARGUMENTS, description="demo").parse(arguments)
    assert (name, parsed.policy, parsed.world_model) == ("demo", "me/policy", "me/imagines")
    assert (parsed.host, parsed.port, parsed.tasks, parsed.set) == ("0.0.0.0", 7860, ["faucet-open"], {"max_steps": 9})


def test_a_space_cannot_read_folders_and_spoils_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("policy").mkdir()
    assert main(["demo", "policy", "--world-model", "me/w", "--export-space", "space"]) == 2
    assert "cannot read the folder 'policy': push it first" in capsys.readouterr().err
    assert not Path("space").exists()
