# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
The pip commands that install this package and its extras, for error messages and cards.

No command is written down: pip records where a package came from (`direct_url.json`), and that place works again. This module is in
`simulation` because simulator processes import nothing of the package outside that folder.
"""

import json
from importlib.metadata import distribution
from urllib.parse import urlsplit
from urllib.request import url2pathname


def extra_command(extra: str) -> str:
    """The command that adds an extra to this installation, for example `pip install "nora15_hf[sim]"`."""
    origin = _origin()
    if origin is None:
        return f'pip install "nora15_hf[{extra}]"'
    if origin.get("dir_info", {}).get("editable"):
        return f'pip install -e "{url2pathname(urlsplit(origin["url"]).path)}[{extra}]"'
    return f'pip install "nora15_hf[{extra}] @ {_address(origin)}"'


def public_command() -> str | None:
    """
    The command that installs the package on any machine, for texts that leave this one.

    Returns:
        `str`, *optional*: `None` if the package was installed from a local folder or file and its metadata name no `Repository`.
    """
    origin = _origin()
    if origin is None:
        return "pip install nora15_hf"
    if "vcs_info" in origin:
        return f'pip install "nora15_hf @ {_address(origin)}"'
    links = distribution("nora15_hf").metadata.get_all("Project-URL", [])
    repositories = [address for label, _, address in (link.partition(", ") for link in links) if label == "Repository"]
    return f'pip install "nora15_hf @ git+{repositories[0]}"' if repositories else None


def _origin() -> dict | None:
    """What pip recorded about the source of the installation (PEP 610); `None` for a package index."""
    recorded = distribution("nora15_hf").read_text("direct_url.json")
    return None if recorded is None else json.loads(recorded)


def _address(origin: dict) -> str:
    return f"{origin['vcs_info']['vcs']}+{origin['url']}" if "vcs_info" in origin else origin["url"]


__all__ = ["extra_command", "public_command"]
