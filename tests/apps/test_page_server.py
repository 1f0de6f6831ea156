# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 demo` and `nora15 view` refuse before anything is loaded, in one line with exit code 2."""

import socket
import sys

import pytest

from nora15_hf.commands import main

COMMANDS = (["demo", "me/policy", "--world-model", "me/w"], ["view", "me/preferences"])


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=["demo", "view"])
def test_a_missing_extra(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "nora15_hf.apps.page_server", raising=False)
    assert "need the extra `demo`. Install it with: pip install" in refused(capsys, *command)


@pytest.mark.parametrize("command", COMMANDS, ids=["demo", "view"])
def test_a_port_in_use_and_no_browser(command, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed: make test-demo")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is in use. Choose another one with --port." in refused(
            capsys, *command, "--port", str(port)
        )
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr("webbrowser._tryorder", None)
    monkeypatch.setattr("webbrowser._browsers", {})
    line = refused(capsys, *command, "--port", "0", "--open-browser")
    assert "No browser was found here. Leave out --open-browser and open http://127.0.0.1:" in line
