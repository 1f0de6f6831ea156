# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Where a dataset's files are: a local folder, or a repo of the Hub from which only what is needed is fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from ..repo_files.verified_download import load_verified


@dataclass(frozen=True)
class DatasetFiles:
    """The folder with a dataset's files, and the repo they come from.

    Args:
        root (`Path`): Local folder.
        repo_id (`str`, *optional*): Dataset repo; `None` for a local dataset.
        token (`str`, *optional*): Hub token.
    """

    root: Path
    repo_id: str | None = None
    token: str | None = None

    @property
    def revision(self) -> str | None:
        """Commit of the repo, after which the folder of a snapshot is named; `None` for a local dataset."""
        return None if self.repo_id is None else self.root.name

    def fetch(self, patterns: Sequence[str]) -> None:
        """
        Make files present in `root`, at the very commit the metadata came from. Nothing to do for a local dataset.

        Raises:
            OSError: A file arrived damaged twice.
        """
        if self.repo_id is not None and patterns:
            _download(self.repo_id, self.revision, self.token, patterns)


def locate_dataset(root_or_repo: str | Path, revision: str | None = None, token: str | None = None) -> DatasetFiles:
    """A local folder unchanged, otherwise the `meta/` files of a dataset repo on the Hub.

    Args:
        root_or_repo (`str` or `Path`): Local folder (wins when both exist) or repo id such as `"user/name"`.
        revision (`str`, *optional*): Branch, tag (LeRobot tags each repo `v2.1`, `v3.0`) or commit. Hub only.
        token (`str`, *optional*): Hub token for private repos.

    Raises:
        FileNotFoundError: The name is neither a folder nor a readable dataset repo.
        OSError: A file arrived damaged twice.
        ValueError: A revision was asked of a local folder.
    """
    folder = Path(root_or_repo)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"`revision` {revision!r} was given for the local folder {folder}, which has no revisions. "
                "Omit it, or pass a repo id of the Hub."
            )
        return DatasetFiles(folder)
    if isinstance(root_or_repo, Path):
        raise FileNotFoundError(
            f"`root_or_repo`: there is no folder {folder}. Pass the dataset's root, which holds meta/."
        )
    try:
        root = _download(root_or_repo, revision, token, ["meta/**"])
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"`root_or_repo` {root_or_repo!r} is neither a local folder nor a dataset repo that can be read. "
            "Check the spelling; a private repo also needs `token`."
        ) from error
    return DatasetFiles(root, root_or_repo, token)


def _download(repo_id: str, revision: str | None, token: str | None, patterns: Sequence[str]) -> Path:
    download = partial(
        snapshot_download,
        repo_id,
        repo_type="dataset",
        revision=revision,
        token=token,
        allow_patterns=list(patterns),
    )
    return Path(load_verified(download, repo_id, repo_type="dataset"))


__all__ = ["DatasetFiles", "locate_dataset"]
