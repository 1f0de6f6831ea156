# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Uploads a folder to its repo in one commit."""

from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

from ..data.lerobot_layout import INFO_PATH
from ..repo_files.json_files import read_json
from ..repo_files.one_commit import commit_files, make_repo
from .artefacts import Artefact
from .card_address import addressed_card
from .push_plan import PushPlan, plan_push

__all__ = ["push_folder"]


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    with_code: bool = False,
    tag: str | None = None,
) -> CommitInfo:
    """
    Uploads a model, a processor, an adapter or a dataset, complete or not at all.

    All files arrive in one commit, which also removes weights or data files of an earlier push that have no
    counterpart in the folder: an old `model.safetensors` beside new shards would be loaded instead of them. Files that
    the repo already has are not sent again, so that an interrupted upload is repeated with the same call.

    Args:
        folder (`str` or `Path`): What `save_pretrained`, `build_preferences` or `LeRobotWriter` wrote. The state of a
            training (`checkpoint-*`, optimiser, random numbers) stays out.
        repo_id (`str`): The repo, made if missing; without a namespace, in that of the token's user.
        private (`bool`, *optional*): Visibility of a new repo; the namespace's default otherwise.
        revision (`str`, *optional*): Branch, made from `main` if missing. Default: `main`.
        token (`str` or `bool`, *optional*): Default: the one that `hf auth login` saved, or `HF_TOKEN`.
        commit_message (`str`, *optional*): Default: names the artefact.
        with_code (`bool`, *optional*, defaults to `False`): For policies and world models: add their code and
            `auto_map`, so that `trust_remote_code=True` works without this package.
        tag (`str`, *optional*): Tag of the commit; a tag of this name on another commit is moved.

    Returns:
        [`~huggingface_hub.CommitInfo`]: The commit; the present one when nothing has changed.

    Raises:
        NotADirectoryError, ValueError: See [`plan_push`].
        ConnectionError: The Hub refused or was lost; nothing of the push is visible unless the answer alone was lost.
    """
    plan = plan_push(folder, repo_id, with_code=with_code)
    api = HfApi(token=token)
    try:
        return _push(api, plan, private, revision, commit_message or f"Upload {plan.artefact.value}", tag)
    except (HfHubHTTPError, httpx.HTTPError, ConnectionError, RuntimeError) as error:
        # RuntimeError is what the client makes of a failed upload of one file; its cause tells why.
        reason = f"{error} {error.__cause__}" if isinstance(error, RuntimeError) and error.__cause__ else str(error)
        raise ConnectionError(
            f"{plan.folder} could not be pushed to {plan.artefact.repo_type} repo {repo_id!r}: {reason}\nRun the same "
            "command again: files that have arrived are not sent twice, and nothing is visible before the commit."
        ) from error


def _push(
    api: HfApi, plan: PushPlan, private: bool | None, revision: str | None, commit_message: str, tag: str | None
) -> CommitInfo:
    repo_type = plan.artefact.repo_type
    repo_id = make_repo(api, plan.repo_id, repo_type=repo_type, private=private, revision=revision)
    files = _addressed(plan, repo_id)
    commit = commit_files(api, repo_id, files, repo_type=repo_type, revision=revision, commit_message=commit_message)
    if plan.artefact is Artefact.DEMONSTRATIONS and revision is None:
        # LeRobot looks a dataset up under the tag of its format.
        _move_tag(api, repo_id, repo_type, read_json(plan.folder / INFO_PATH)["codebase_version"], commit)
    if tag is not None:
        _move_tag(api, repo_id, repo_type, tag, commit)
    return commit


def _move_tag(api: HfApi, repo_id: str, repo_type: str, name: str, commit: CommitInfo) -> None:
    if any(tag.name == name for tag in api.list_repo_refs(repo_id, repo_type=repo_type).tags):
        api.delete_tag(repo_id, repo_type=repo_type, tag=name)
    api.create_tag(repo_id, repo_type=repo_type, tag=name, revision=commit.oid)


def _addressed(plan: PushPlan, repo_id: str) -> dict[str, Path | bytes]:
    """The files, with the repo's name in the card."""
    if "README.md" not in plan.files:
        return plan.files
    return plan.files | {"README.md": addressed_card(plan.folder, repo_id).encode()}
