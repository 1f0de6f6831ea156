# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The pip commands in messages and cards install the package from where it came from."""

import json
from email.message import Message
from types import SimpleNamespace

import pytest

from nora15_hf.simulation import installation

EDITABLE = {"url": "file:///home/me/my%20robot", "dir_info": {"editable": True}}
WHEEL = {"url": "file:///tmp/nora15_hf-0.2.0-py3-none-any.whl", "archive_info": {}}
GIT = {"url": "https://forge.example/me/nora15_hf", "vcs_info": {"vcs": "git", "commit_id": "4d7a"}}


@pytest.mark.parametrize(
    ("origin", "repository", "extra", "public"),
    [
        (None, None, 'pip install "nora15_hf[sim]"', "pip install nora15_hf"),
        (EDITABLE, None, 'pip install -e "/home/me/my robot[sim]"', None),
        (
            WHEEL,
            "https://forge.example/me/nora15_hf",
            'pip install "nora15_hf[sim] @ file:///tmp/nora15_hf-0.2.0-py3-none-any.whl"',
            'pip install "nora15_hf @ git+https://forge.example/me/nora15_hf"',
        ),
        (
            GIT,
            None,
            'pip install "nora15_hf[sim] @ git+https://forge.example/me/nora15_hf"',
            'pip install "nora15_hf @ git+https://forge.example/me/nora15_hf"',
        ),
    ],
    ids=["index", "editable", "wheel", "git"],
)
def test_commands_name_the_source_of_the_installation(monkeypatch, origin, repository, extra, public):
    metadata = Message()
    metadata["Project-URL"] = "Homepage, https://example.org"
    if repository:
        metadata["Project-URL"] = f"Repository, {repository}"
    installed = SimpleNamespace(read_text=lambda name: origin and json.dumps(origin), metadata=metadata)
    monkeypatch.setattr(installation, "distribution", lambda name: installed)
    assert installation.extra_command("sim") == extra
    assert installation.public_command() == public
