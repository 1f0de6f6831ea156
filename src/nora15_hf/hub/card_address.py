# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A card under the name its repo has on the Hub."""

import logging
from pathlib import Path

from huggingface_hub import RepoCard

from ..cards.card_info import address, from_dict
from ..cards.cards import CARD_FILE, INFO_KEY, render_card

__all__ = ["addressed_card"]

logger = logging.getLogger(__name__)

_REFERENCES = ("base_model", "datasets", "source_datasets")


def addressed_card(folder: Path, repo_id: str) -> str:
    """
    A card that was written for a local folder, as it should read in the repo.

    A card of the quickstart calls its neighbours by their folders: `policy-sft`, `demonstrations`. On the Hub those are
    repos of the same namespace.

    Args:
        folder (`Path`): Folder of the artefact and its card.
        repo_id (`str`): The repo, `namespace/name`.

    Returns:
        `str`: The card. One of this package is written again with `repo_id` as its own name and other bare names put
        into the namespace. Of a card whose text somebody else wrote or edited, only the metadata are addressed; without
        metadata it stays as it is.
    """
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    if not text.startswith("---"):
        return text
    card = RepoCard(text, ignore_metadata_errors=False)
    facts = card.data.get(INFO_KEY)
    info = None if facts is None else from_dict(facts)
    for reference in _REFERENCES:
        if reference in card.data:
            own_name = folder.resolve().name if info is None else info.repo_id
            card.data[reference] = address(card.data[reference], repo_id, own_name)
    if info is not None and render_card(folder, info).text == card.text:
        card.data[INFO_KEY] = info.addressed(repo_id).to_dict()
        card.text = render_card(folder, info.addressed(repo_id)).text
    elif facts is not None:
        logger.warning(
            "%s was edited, or written by another version of this package: the names in its text are kept. If "
            "they should be those of the Hub, edit them or call `nora15 card` with --repo-id %s.",
            folder / CARD_FILE,
            repo_id,
        )
    return str(card)
