# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Uploads a folder in one commit and removes the weights or data files of an earlier push that it replaces. Only safetensors,
JSON, parquet, videos, images and text are uploaded. The state of a training is not uploaded, and a pickle or an access token in the
folder is an error. Log in with `hf auth login` first.
"""

from dataclasses import dataclass, field
from pathlib import Path

from . import option_types


@dataclass
class PushArguments:
    """What [`~nora15_hf.hub.push_folder`] needs."""

    folder: Path = field(
        metadata={
            "positional": True,
            "parse": option_types.existing_folder,
            "help": "policy, world model, adapter, preference dataset or demonstrations",
        }
    )
    repo: str = field(
        metadata={
            "positional": True,
            "parse": option_types.hub_id,
            "help": "Hub id of the repo, which is created if it does not exist",
        }
    )
    private: bool | None = field(default=None, metadata={"flag": True, "help": "make a new repo private"})
    revision: str | None = field(
        default=None, metadata={"help": "branch, created from main if it does not exist (default: main)"}
    )
    message: str | None = field(default=None, metadata={"help": "title of the commit"})
    with_code: bool = field(
        default=False,
        metadata={
            "flag": True,
            "help": "add the model's code, so that others can load it with trust_remote_code=True without this package",
        },
    )
    dry_run: bool = field(
        default=False, metadata={"flag": True, "help": "list the files and their sizes, and send nothing"}
    )


ARGUMENTS = (PushArguments,)


def run(options: PushArguments) -> None:
    from ..hub import plan_push, push_folder

    if options.dry_run:
        print(plan_push(options.folder, options.repo, with_code=options.with_code))
        return
    commit = push_folder(
        options.folder,
        options.repo,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
        with_code=options.with_code,
    )
    print(commit.commit_url)


__all__ = ["ARGUMENTS", "PushArguments", "run"]
