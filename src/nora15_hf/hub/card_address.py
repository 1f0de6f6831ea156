# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A card under the name its repo has on the Hub."""

import re

from huggingface_hub import RepoCard

__all__ = ["addressed_card"]

_REFERENCES = ("base_model", "datasets", "source_datasets")
_CALLS = re.compile(
    r"""((?:^repo = |load_dataset\(|LeRobotDataset\(|from_pretrained\((?:base, )?)")([\w.-]+)(?=")""", re.M
)

# What a card's tables and sentences call other repos.
_MENTIONS = re.compile(
    r"^(\| (?:started from|base model|trained on|observations from|candidates from|world model) \| )(.+)(?= \|$)", re.M
)
_NAME = re.compile(r"[\w.-]+")


def addressed_card(text: str, folder_name: str, repo_id: str) -> str:
    """
    A card that was written for a local folder, as it should read in the repo.

    A card of the quickstart calls its neighbours by their folders: `policy-sft`, `demonstrations`. On the Hub those are
    repos of the same namespace.

    Args:
        text (`str`): The card.
        folder_name (`str`): What the card calls its own artefact.
        repo_id (`str`): The repo, `namespace/name`.

    Returns:
        `str`: The card, if it has metadata, with `repo_id` in its usage snippets, and other bare names there, in its tables
        and in its metadata put into the namespace. Names that have a namespace already stay as they are.
    """
    if not text.startswith("---"):
        return text
    namespace = repo_id.split("/")[0]

    def address(name: str) -> str:
        if "/" in name:
            return name
        return repo_id if name == folder_name else f"{namespace}/{name}"

    card = RepoCard(text, ignore_metadata_errors=False)
    for reference in _REFERENCES:
        named = card.data.get(reference)
        if named is not None:
            card.data[reference] = address(named) if isinstance(named, str) else [address(name) for name in named]
    card.text = _CALLS.sub(lambda match: match[1] + address(match[2]), card.text)
    card.text = _MENTIONS.sub(
        lambda match: (
            match[1] + ", ".join(address(name) if _NAME.fullmatch(name) else name for name in match[2].split(", "))
        ),
        card.text,
    )
    return str(card)
