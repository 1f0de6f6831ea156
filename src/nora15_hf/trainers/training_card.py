# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Cards that a training writes: whatever is wrong with them, the training goes on."""

import logging
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard
from transformers import TrainingArguments

from ..cards.card_info import NOT_STATED, ModelCardInfo, check_repo_id
from ..cards.card_settings import Setting
from ..cards.cards import CARD_FILE, card_metadata, save_card
from ..repo_files.fingerprint import artefact_name

logger = logging.getLogger(__name__)

Fact = TypeVar("Fact")

# What transformers' and TRL's trainers call a fact, and the field of the card that it is.
_FIELDS = {
    "license": "license",
    "tags": "extra_tags",
    "dataset": "datasets",
    "dataset_name": "datasets",
    "finetuned_from": "base_model",
    "limits": "limits",
}
_SEVERAL = ("extra_tags", "datasets", "limits")


class TrainingCardMixin:
    """
    A trainer whose folder has a card of this library's, which `_card_info` tells. Stands before [`~transformers.Trainer`] or
    one of its subclasses among the bases.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._told_facts: dict[str, Any] = {}

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | list[str] | None = None,
        tags: str | list[str] | None = None,
        **facts: Any,
    ) -> None:
        """
        Writes this library's card into the output folder, as every checkpoint does. What cannot be told is left out, with the
        reason in the log: a card never ends a training.

        Args:
            model_name (`str`, *optional*): Title; by default the name of the repo or folder.
            dataset_name (`str` or `list[str]`, *optional*): Hub ids of what was trained on; `dataset` is the same.
            tags (`str` or `list[str]`, *optional*): Further tags.
            facts: `license`, `finetuned_from` (Hub id of the model at the start) and `limits` (sentences). What was told once
                stays in every later card of the run.

        Raises:
            ValueError: Another fact, which this card has no place for, or a name that is no Hub id.
        """
        for name, value in (facts | {"dataset_name": dataset_name, "tags": tags}).items():
            if name not in _FIELDS:
                raise ValueError(
                    f"{name} is not part of this library's cards, which accept {', '.join(_FIELDS)}. Omit it."
                )
            if value is not None:
                self._told_facts |= _told(name, value)
        if self.is_world_process_zero():
            self._write_card(Path(self.args.output_dir), model_name)

    def _write_card(self, folder: Path, title: str | None = None) -> None:
        save_training_card(folder, partial(self._card_info, title))


def _told(name: str, value: Any) -> dict[str, Any]:
    field = _FIELDS[name]
    values = (value,) if isinstance(value, str) else tuple(value)
    if field in ("datasets", "base_model"):
        for repo_id in values:
            check_repo_id(name, repo_id)
    return {field: values if field in _SEVERAL else value}


def known(fact: str, read: Callable[[], Fact], default: Fact | None = None) -> Fact | None:
    """
    A fact for a card; where it cannot be read, the reason is logged and the card does without it.

    Args:
        fact (`str`): how the log calls it.
        read (callable): reads it.
        default (*optional*): what is returned when that fails.
    """
    try:
        return read()
    # Datasets are anybody's, and a card is no reason to lose a training.
    except Exception as error:
        logger.warning("The card is written without %s: %s: %s", fact, type(error).__name__, error)
        return default


def save_training_card(folder: str | Path, build: Callable[[], ModelCardInfo]) -> Path | None:
    """
    Writes the card of a model in training. It never raises: a card that cannot be rendered keeps its metadata and its
    title, one that cannot be built is not written, and the reason is logged.

    Args:
        folder (`str` or `Path`): made if missing.
        build (callable): returns the [`ModelCardInfo`].

    Returns:
        `Path` of the card, `None` when there is none.
    """
    info = known("anything new, the card stays as it was", build)
    if info is None:
        return None

    def write() -> Path:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return save_card(folder, info)

    return known("its text", write) or known("its metadata", lambda: _save_title(Path(folder), info))


def _save_title(folder: Path, info: ModelCardInfo) -> Path:
    text = f"# {info.name}\n\nThe rest of this card could not be written; the log of the training says why.\n"
    ModelCard(f"---\n{card_metadata(folder, info).to_yaml()}\n---\n\n{text}").save(folder / CARD_FILE)
    return folder / CARD_FILE


def card_names(output_dir: str, hub_model_id: str | None, title: str | None) -> dict[str, str]:
    """`repo_id` and `name` of a card: the title by default is the last part of the repo id, or the folder's name."""
    name = title or (hub_model_id or Path(output_dir).resolve().name).rpartition("/")[2]
    return {"repo_id": hub_model_id or name, "name": name}


def origin(name_or_path: str | None) -> dict[str, str | None]:
    """
    What a policy card says of where a training started: a Hub id, or of a local folder its name. "Not stated" where that is
    no repo id, and nothing without a name, as random weights have none.
    """
    if not name_or_path:
        return {}
    base_model = known("the base model", lambda: check_repo_id("base_model", artefact_name(name_or_path)))
    return {"base_model": base_model, "started_from": NOT_STATED}


def training_settings(args: TrainingArguments, names: Iterable[str], steps: int) -> dict[str, Setting]:
    """
    Hyper-parameters for a card; those that are off are left out.

    Args:
        args (`TrainingArguments`): of the run.
        names (`Iterable[str]`): fields of `args`.
        steps (`int`): optimiser steps done.
    """
    values: dict[str, Any] = {name: vars(args)[name] for name in names}
    values = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
    batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {name.replace("_", " "): value for name, value in values.items() if value not in (None, [], False, 0.0)} | {
        "steps": steps,
        "batch size": batch_size,
    }


__all__ = ["TrainingCardMixin", "card_names", "known", "origin", "save_training_card", "training_settings"]
