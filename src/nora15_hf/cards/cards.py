# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Model and dataset cards: a [`CardInfo`] rendered by `huggingface_hub` with its template in `model_cards/`."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from .card_info import NOT_STATED, CardInfo, DatasetCardInfo, Evaluation
from .card_settings import Setting, setting_text
from .dataset_configs import dataset_configs
from .wilson_interval import wilson_interval

CARD_FILE = "README.md"
# Where a card's metadata hold the facts that its text was made of.
INFO_KEY = "nora15_hf_card"

_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def save_card(folder: str | Path, info: CardInfo) -> Path:
    """
    Writes the card of a model or dataset beside it.

    Args:
        folder (`str` or `Path`): folder that the artefact was saved to.
        info ([`CardInfo`]): what is known about it.

    Returns:
        `Path`: the card, `README.md`.

    Raises:
        NotADirectoryError: `folder` does not exist.
        FileNotFoundError: the folder of a dataset holds no data yet.
    """
    if not Path(folder).is_dir():
        raise NotADirectoryError(
            f"`folder` is {str(folder)!r}, which is not an existing folder. A card describes an artefact: save the model "
            "or dataset there first, then write its card."
        )
    path = Path(folder) / CARD_FILE
    render_card(folder, info).save(path)
    return path


def render_card(folder: str | Path, info: CardInfo) -> ModelCard | DatasetCard:
    """
    The card itself, with the front matter that makes `load_dataset(folder)` work where it is a dataset's.

    Args:
        folder, info: as for [`save_card`].

    Raises:
        FileNotFoundError: the folder of a dataset holds no data yet.
    """
    card_class = DatasetCard if isinstance(info, DatasetCardInfo) else ModelCard
    template = resources.files("nora15_hf.model_cards").joinpath(info.template).read_text(encoding="utf-8")
    return card_class.from_template(
        card_metadata(folder, info),
        # Jinja drops the last line break of a template.
        template_str=template + "\n",
        info=info,
        not_stated=NOT_STATED,
        cell=_cell,
        cells=_cells,
        quoted=json.dumps,
        success_rows=_success_rows,
    )


def card_metadata(folder: str | Path, info: CardInfo) -> CardData:
    """
    The front matter of a card.

    Args:
        folder, info: as for [`save_card`].

    Raises:
        FileNotFoundError: the folder of a dataset holds no data yet.
    """
    own_tag = NOT_STATED if info.tag_field is None else vars(info)[info.tag_field]
    own_tags = [] if own_tag == NOT_STATED else [own_tag]
    tags = list(dict.fromkeys([*info.tags, *own_tags, *info.library_tags, *info.extra_tags]))
    shared: dict[str, Any] = {"license": info.license, "tags": tags, INFO_KEY: info.to_dict()}
    if isinstance(info, DatasetCardInfo):
        return DatasetCardData(
            configs=dataset_configs(folder, info.data_files),
            pretty_name=info.name,
            size_categories=next((name for limit, name in _SIZE_CATEGORIES if info.num_rows < limit), "n>1M"),
            source_datasets=None if info.demonstrations is None else [info.demonstrations],
            task_categories=["robotics"],
            **shared,
        )
    relation = "adapter" if info.is_adapter else "finetune" if info.conversion is None else None
    evaluated = info.evaluation is not None
    return ModelCardData(
        base_model=info.base_model,
        base_model_relation=None if info.base_model is None else relation,
        datasets=list(info.datasets) or None,
        eval_results=eval_results(info.evaluation) if evaluated else None,
        library_name=info.library,
        metrics=["success_rate"] if evaluated else None,
        model_name=info.name,
        pipeline_tag="robotics",
        **shared,
    )


def eval_results(evaluation: Evaluation) -> list[EvalResult]:
    """The `model-index` of closed-loop results."""
    return [
        EvalResult(
            task_type="robotics",
            task_name=task,
            dataset_type=evaluation.environment_id,
            dataset_name=evaluation.environment,
            dataset_config=task,
            metric_type="success_rate",
            metric_name=f"success rate over {episodes} episodes",
            metric_value=round(successes / episodes, 4),
        )
        for task, (successes, episodes) in evaluation.results.items()
    ]


def _success_rows(evaluation: Evaluation) -> list[tuple[str, str, str, str]]:
    """Task, rate, successes of episodes, interval."""
    totals = tuple(sum(column) for column in zip(*evaluation.results.values(), strict=True))
    rows = []
    for task, (successes, episodes) in (*evaluation.results.items(), ("**all**", totals)):
        low, high = wilson_interval(successes, episodes)
        rows.append((task, f"{successes / episodes:.1%}", f"{successes} of {episodes}", f"{low:.1%} – {high:.1%}"))
    return rows


def _cells(table: Mapping[str, Setting]) -> list[tuple[str, str]]:
    return [(_cell(name), _cell(value)) for name, value in table.items()]


def _cell(value: Setting) -> str:
    # A pipe or a line break would end the table cell.
    return setting_text(value).replace("|", r"\|").replace("\n", " ")


__all__ = ["CARD_FILE", "INFO_KEY", "card_metadata", "eval_results", "render_card", "save_card"]
