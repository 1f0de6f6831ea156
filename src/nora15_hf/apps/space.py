# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The folder of a Hugging Face Space that shows a demo."""

from collections.abc import Sequence
from pathlib import Path

from ..repo_files.written_whole import written_whole

SDK_VERSION = "6.31.0"
"""Of Gradio; that of requirements/constraints.txt."""

APP = '''"""The demo of {policy}: `nora15 demo` with the options below."""

from nora15_hf.commands import main

if __name__ == "__main__":
    raise SystemExit(main({arguments}))
'''

README = """---
title: {title}
emoji: 🦾
colorFrom: blue
colorTo: green
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: apache-2.0
models:
- {policy}
- {world_model}
---

# {title}

The robot policy [{policy}](https://huggingface.co/{policy}) draws chunks of actions, the world model
[{world_model}](https://huggingface.co/{world_model}) imagines where each leads and ranks them, and the best is executed in a
simulator. Written by `nora15 demo --export-space`; the same page on your machine:

```bash
{command}
```
"""

# For simulators that draw with OpenGL; Spaces have no screen.
DEBIAN_PACKAGES = "libegl1\nlibgl1\nlibosmesa6\n"


def write_space(
    folder: str | Path, *, policy: str, world_model: str, arguments: Sequence[str], requirement: str
) -> list[Path]:
    """
    Writes `README.md` with the Space's settings, `app.py`, `requirements.txt` and `packages.txt`.

    Args:
        folder (`str` or `Path`): Made if it is missing.
        policy (`str`), world_model (`str`): Hub ids.
        arguments (`Sequence[str]`): Of `nora15`, from `"demo"` on.
        requirement (`str`): What pip installs to have this package with its extra `demo`.

    Returns:
        `list[Path]`: The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    served = [*arguments, "--host", "0.0.0.0", "--port", "7860"]
    texts = {
        "README.md": README.format(
            title=policy.split("/")[-1],
            gradio=SDK_VERSION,
            policy=policy,
            world_model=world_model,
            command=" ".join(["nora15", *arguments]),
        ),
        "app.py": APP.format(policy=policy, arguments=served),
        "requirements.txt": f"{requirement}\n",
        "packages.txt": DEBIAN_PACKAGES,
    }
    for name, text in texts.items():
        with written_whole(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


__all__ = ["write_space"]
