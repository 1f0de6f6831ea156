# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop results in the card of the policy that they are of."""

from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCard

from ..cards.card_info import Evaluation, from_dict
from ..cards.cards import CARD_FILE, INFO_KEY, eval_results, render_card, save_card
from .describe import AuthorFacts, write_card

__all__ = ["add_evaluation"]


def add_evaluation(folder: str | Path, evaluation: Evaluation) -> Path:
    """
    Puts results into the `model-index` and the text of a card.

    Args:
        folder (`str` or `Path`): Of a policy or of adapters. Without a card, one is written.
        evaluation ([`Evaluation`]): The results; earlier ones of the same environment are replaced.

    Returns:
        `Path`: the card. Of one whose text somebody else wrote or edited, only the metadata change.
    """
    folder = Path(folder)
    path = folder / CARD_FILE
    if not path.is_file():
        return write_card(folder, AuthorFacts(evaluation=evaluation))
    card = ModelCard.load(path)
    facts = card.data.get(INFO_KEY)
    info = None if facts is None else from_dict(facts)
    if info is not None and render_card(folder, info).text == card.text:
        return save_card(folder, replace(info, evaluation=evaluation))
    others = [result for result in card.data.eval_results or () if result.dataset_type != evaluation.environment_id]
    card.data.eval_results = [*others, *eval_results(evaluation)]
    card.data.model_name = card.data.model_name or folder.resolve().name
    card.save(path)
    return path
