# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Pushes to a repo of the Hub: everything in one commit, and nothing of an earlier push that would be read instead."""

import os
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from transformers import PreTrainedModel

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_DATA = ("data/*", "meta/*", "videos/*")


def make_repo(
    api: HfApi, repo_id: str, *, repo_type: str = "model", private: bool | None = None, revision: str | None = None
) -> str:
    """
    Makes a repo and a branch of it, where they are missing.

    Args:
        api ([`~huggingface_hub.HfApi`]): With the token to use.
        repo_id (`str`): The repo; without a namespace, in that of the token's user.
        repo_type (`str`, *optional*, defaults to `"model"`): Or `"dataset"`.
        private (`bool`, *optional*): Visibility of a new repo; the namespace's default otherwise.
        revision (`str`, *optional*): Branch, made from `main`.

    Returns:
        `str`: The repo's name with its namespace.
    """
    repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
    if revision is not None:
        api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
    return repo_id


def commit_files(
    api: HfApi,
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    repo_type: str = "model",
    revision: str | None = None,
    commit_message: str,
    commit_description: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """
    Adds files to a repo in one commit, which also removes what they replace: in a dataset all other data files, in a
    model the other weights of the folders that get new ones. Left there, an old `model.safetensors` would be loaded
    instead of new shards.

    Args:
        api ([`~huggingface_hub.HfApi`]), repo_id (`str`): See [`make_repo`].
        files (`Mapping[str, Path | bytes]`): Path in the repo to a local file, or to its content.
        repo_type (`str`, *optional*, defaults to `"model"`): Or `"dataset"`.
        revision (`str`, *optional*): Branch. Default: `main`.
        commit_message (`str`), commit_description (`str`, *optional*): Of the commit.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request with the commit.

    Returns:
        [`~huggingface_hub.CommitInfo`]: The commit; the present one when nothing has changed.
    """
    present = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
    replaced = _replaced([file.rfilename for file in present.siblings], files, repo_type)
    return api.create_commit(
        repo_id,
        [
            *map(CommitOperationDelete, replaced),
            *(CommitOperationAdd(path, source) for path, source in files.items()),
        ],
        repo_type=repo_type,
        revision=revision,
        commit_message=commit_message,
        commit_description=commit_description,
        create_pr=create_pr,
        # What is removed was decided for this state of the repo only.
        parent_commit=present.sha,
    )


def push_model_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    **commit_options,
) -> CommitInfo:
    """All files of a folder in one commit to a model repo; arguments as those of [`make_repo`] and [`commit_files`]."""
    api = HfApi(token=token)
    repo_id = make_repo(api, repo_id, private=private, revision=revision)
    files = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
    return commit_files(api, repo_id, files, revision=revision, **commit_options)


def _replaced(present: list[str], files: Mapping[str, Path | bytes], repo_type: str) -> list[str]:
    """Files of the repo that a loader would take together with the new ones, or instead of them."""
    if repo_type == "dataset":
        replaced = [path for path in present if _matches(path, _DATA)]
    else:
        # Weights elsewhere in the repo belong to something else, as an adapter in a folder of its own.
        folders = {PurePosixPath(path).parent for path in files if _matches(path, _WEIGHTS)}
        replaced = [path for path in present if _matches(path, _WEIGHTS) and PurePosixPath(path).parent in folders]
    return [path for path in replaced if path not in files]


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


class OneCommitPushMixin:
    """`push_to_hub` of a model or a processor that saves more than one folder of files."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        with_code: bool = False,
    ) -> CommitInfo:
        """
        Saves everything and uploads it, sub-folders included, in one commit.

        The commit also removes weights which earlier pushes were split into: left in the repo, an old
        `model.safetensors` would be loaded instead of new shards. Arguments as those of transformers' `push_to_hub`;
        `with_code` as in `save_pretrained`.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size, with_code=with_code)
            return push_model_folder(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                commit_message=commit_message
                or f"Upload {'model' if isinstance(self, PreTrainedModel) else 'processor'}",
                commit_description=commit_description,
                create_pr=create_pr,
            )


__all__ = ["OneCommitPushMixin", "commit_files", "make_repo", "push_model_folder"]
