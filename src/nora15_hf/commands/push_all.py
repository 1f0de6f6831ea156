# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Pushes every artefact of a quickstart, or of any folder of folders, to repos of one namespace, named after their folders.

    nora15 push-all --folder outputs/quickstart --namespace me --dry-run
    nora15 push-all --folder outputs/quickstart --namespace me --private

Log in with `hf auth login` first. The same command resumes an interrupted push; files that have arrived are not sent twice.
"""

from dataclasses import dataclass, field
from pathlib import Path

from . import option_types
from .execution import run_script

__all__ = ["ARGUMENTS", "PushAllArguments", "main", "run"]


@dataclass
class PushAllArguments:
    """What goes where."""

    folder: Path = field(
        metadata={"parse": option_types.existing_folder, "help": "Folder that holds one folder per artefact."}
    )
    namespace: str = field(metadata={"parse": option_types.namespace, "help": "User or organisation on the Hub."})
    private: bool = field(default=False, metadata={"help": "Make new repos private."})
    with_code: bool = field(
        default=False, metadata={"help": "Add the code of policies and world models, for users without this package."}
    )
    dry_run: bool = field(default=False, metadata={"help": "List files and sizes without uploading anything."})


ARGUMENTS = (PushAllArguments,)


def artefact_folders(folder: Path) -> list[Path]:
    """The folders below `folder` that hold an artefact; others, such as reports and hidden ones, are passed over."""
    from ..hub import find_artefact

    found = []
    for candidate in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
        try:
            find_artefact(candidate)
        except ValueError:
            continue
        found.append(candidate)
    if not found:
        raise ValueError(f"`folder` {folder} contains no folder with an artefact. Run `nora15 quickstart` first.")
    return found


def run(options: PushAllArguments) -> None:
    from ..hub import plan_push, push_folder

    for folder in artefact_folders(options.folder):
        repo_id = f"{options.namespace}/{folder.name}"
        with_code = options.with_code and (folder / "config.json").is_file()
        plan = plan_push(folder, repo_id, with_code=with_code)
        print(plan, end="\n\n")
        if not options.dry_run:
            commit = push_folder(folder, repo_id, private=options.private or None, with_code=with_code)
            print(commit.commit_url, end="\n\n")


def main(arguments: list[str] | None = None) -> None:
    run_script(ARGUMENTS, run, __doc__, arguments)


if __name__ == "__main__":
    main()
