# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Closed-loop results in the card of the policy that they are of."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from transformers.utils import logging

from ..cards.card_info import Evaluation, from_dict
from ..cards.cards import CARD_FILE, INFO_KEY, eval_results, render_card, save_card
from ..embodiment.comparison import Agreement, compare
from ..embodiment.embodiment import Embodiment
from ..evaluation.results import EPISODES_FILE, EvaluationResults
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..repo_files.fingerprint import fingerprint
from ..repo_files.json_files import read_json
from .artefacts import Artefact, find_artefact
from .describe import AuthorFacts, write_card

__all__ = ["add_evaluation", "read_evaluation"]

logger = logging.get_logger(__name__)


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


def read_evaluation(file: str | Path, folder: str | Path | None = None) -> Evaluation:
    """
    Closed-loop results from a JSON file with the fields of [`Evaluation`], or from `results.json` of `nora15 evaluate`.

    Args:
        file (`str` or `Path`): The results.
        folder (`str` or `Path`, *optional*):
            Of the policy that they are of. Its weights and its contract must be those that `nora15 evaluate` recorded; what cannot
            be compared is told by a warning.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A field is missing, unknown, or has another form; or the results are of another policy than that of `folder`.
    """
    content = read_json(Path(file))
    if {"settings", "success"} <= content.keys():
        results = EvaluationResults.load(file)
        if results.settings != content["settings"]:
            raise ValueError(
                f"{file} and {EPISODES_FILE} beside it are of different evaluations. Name the results.json in the output folder of "
                "nora15 evaluate."
            )
        evaluation, evaluated = results.card_evaluation(), results.settings["policy"]
    else:
        evaluation, evaluated = _told(file, content), {}
    if folder is not None:
        _check_policy(Path(folder), file, evaluated)
    return evaluation


def _told(file: str | Path, content: Mapping[str, Any]) -> Evaluation:
    """Results that somebody wrote down."""
    expected = {entry.name for entry in fields(Evaluation)}
    if content.keys() != expected:
        raise ValueError(f"{file} has the fields {sorted(content)}, expected {sorted(expected)}.")
    try:
        results = {task: (int(successes), int(episodes)) for task, (successes, episodes) in content["results"].items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: results must map each task to [successes, episodes] ({error}).") from error
    return Evaluation(**content | {"results": results})


def _check_policy(folder: Path, file: str | Path, evaluated: Mapping[str, Any]) -> None:
    """Refuses results of another policy than that of the folder."""
    artefact = find_artefact(folder)
    if artefact not in (Artefact.POLICY, Artefact.ADAPTER):
        raise ValueError(
            f"{file} holds closed-loop results, which are those of a policy, but {folder} holds a {artefact.value}. Omit them, "
            "or name the policy's folder."
        )
    if evaluated.get("policy_fingerprint") is None:
        logger.warning(
            f"{file} does not record the weights that were evaluated, so it was not compared with {folder}. Make sure that it "
            "holds the results of this policy."
        )
        return
    differing = _differing_contract(folder, evaluated)
    if artefact is Artefact.ADAPTER:
        # Weights that adapters were merged into differ between machines by rounding.
        logger.warning(
            f"{folder} holds adapters, whose weights cannot be compared with those of the merged policy that was evaluated "
            f"({file}). Make sure that it holds the results of these adapters."
        )
    else:
        model = Nora15ForActionPrediction.from_pretrained(folder, dtype=getattr(torch, evaluated["dtype"]))
        found = fingerprint(model.state_dict())
        if found != evaluated["policy_fingerprint"]:
            differing.insert(
                0, f"weights ({evaluated['policy_fingerprint']} were evaluated, {found} are in the folder)"
            )
    if differing:
        raise ValueError(
            f"{file} holds the results of the policy {evaluated['policy']!r}, which is not the one in {folder}. They differ in: "
            f"{', '.join(differing)}. Name the results of this policy, or measure it with nora15 evaluate."
        )


def _differing_contract(folder: Path, evaluated: Mapping[str, Any]) -> list[str]:
    """What the processor in a folder has otherwise than that of the evaluated policy, as far as both sides state it."""
    processor, key = Nora15Processor.from_pretrained(folder), evaluated["dataset_key"]
    if key not in processor.norm_stats:
        return [f"dataset_key ({key!r} was evaluated, {', '.join(map(repr, processor.norm_stats))} in the folder)"]
    contract = Embodiment.from_dict(evaluated["contract"], f"the policy's contract in {EPISODES_FILE}")
    items = compare(contract, processor.embodiment(key))
    return [item.name for item in items if item.agreement not in (Agreement.EQUAL, Agreement.UNKNOWN)]
