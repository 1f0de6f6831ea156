# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`make` says in one line why it cannot set up its environment, and leaves nothing that looks like a finished one."""

import subprocess
from pathlib import Path

import pytest

from helpers.paths import ROOT

# A Python that lacks what $LACKS says. The environment that it creates has a pip that cannot install anything.
PYTHON = r"""#!/bin/sh
case "$*" in
  *version_info*) [ "$LACKS" != version ] ;;
  *ensurepip*) [ "$LACKS" != venv ] ;;
  "-m venv "*) mkdir -p "$3/bin" && printf '#!/bin/sh\nexit 1\n' > "$3/bin/python" && chmod +x "$3/bin/python" ;;
esac
"""


@pytest.mark.parametrize(
    ("lacks", "message", "left"),
    [
        ("version", "nora15_hf needs Python 3.11 or newer", False),
        ("venv", "Install its module venv (Debian: apt-get install python3-venv)", False),
        ("network", "The first installation and new versions need a network", True),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, lacks: str, message: str, left: bool):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = tmp_path / "venv"
    installed = environment / ".installed"
    outcome = subprocess.run(
        ["make", "--silent", f"VENV={environment}", f"PYTHON={python}", str(installed)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "LACKS": lacks},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode != 0
    (line,) = outcome.stdout.splitlines()
    assert message in line
    assert environment.exists() is left
    assert not installed.exists()
