# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Model and dataset cards: what is known about an artefact, rendered by `huggingface_hub` from `model_cards/*.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from ..data.dataset_configs import dataset_configs
from ..data.lerobot_writer import DATA_FILES as DEMONSTRATION_DATA_FILES
from ..evaluation.success import wilson_interval
from ..preferences.preference_dataset import DATA_FILES as PREFERENCE_DATA_FILES
from ..preferences.preference_figures import FIGURES_FOLDER
from .card_info import (
    NOT_STATED,
    AdapterCardInfo,
    DemonstrationCardInfo,
    Evaluation,
    PolicyCardInfo,
    PreferenceCardInfo,
    WorldModelCardInfo,
)
from .card_settings import Setting, setting_text

__all__ = [
    "write_adapter_card",
    "write_demonstration_card",
    "write_policy_card",
    "write_preference_card",
    "write_world_model_card",
]

_STAGE_SUMMARIES = {
    "sft": "It was trained on demonstrations with the joint loss: cross-entropy on FAST tokens plus flow matching.",
    "continued-sft": "It is the control of a preference run: the supervised policy, trained further on demonstrations "
    "for the same number of steps at the same learning rate.",
    "dpo": "It was trained on demonstrations and then post-trained with direct preference optimisation on pairs of its "
    "own action chunks.",
    NOT_STATED: "How it was trained is not stated.",
}


_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_policy_card(folder: str | Path, info: PolicyCardInfo) -> Path:
    """
    Write `README.md` of a policy repo.

    Args:
        folder (`str` or `Path`): folder that the policy and its processor were saved to.
        info (`PolicyCardInfo`): what is known about the policy.

    Returns:
        `Path`: the card.

    Raises:
        NotADirectoryError: `folder` does not exist.
    """
    folder = _existing(folder)
    card_data = ModelCardData(
        base_model=info.base_model,
        base_model_relation=None if info.base_model is None else "finetune",
        datasets=list(info.datasets) or None,
        eval_results=None if info.evaluation is None else _eval_results(info.evaluation),
        library_name="transformers",
        license=info.license,
        metrics=None if info.evaluation is None else ["success_rate"],
        model_name=info.name,
        pipeline_tag="robotics",
        tags=["nora15", "nora15_hf", "robotics", "vision-language-action", "flow-matching"]
        + ([] if info.stage == NOT_STATED else [info.stage]),
    )
    default_key = len(info.statistics_keys) == 1
    card = ModelCard.from_template(
        card_data,
        template_str=_template("policy.md"),
        info=info,
        summary=_STAGE_SUMMARIES[info.stage],
        parameters=f"{info.num_parameters:,}",
        base_model=info.base_model or info.started_from,
        datasets=", ".join(info.datasets) or NOT_STATED,
        executed=_executed(info.n_action_steps, info.chunk_size),
        instruction=json.dumps(info.example_instruction),
        dataset_key_argument="" if default_key else f", dataset_key={json.dumps(info.statistics_keys[0])}",
        statistics_keys=", ".join(f"`{key}`" for key in info.statistics_keys),
        rewards=_cells(info.rewards),
        training=_cells(info.training),
        evaluation=info.evaluation,
        success_rows=[] if info.evaluation is None else _success_rows(info.evaluation),
        evaluation_conventions=[] if info.evaluation is None else _cells(info.evaluation.conventions),
        **_library_versions(),
    )
    return _save(card, folder)


def write_adapter_card(folder: str | Path, info: AdapterCardInfo) -> Path:
    """
    Write `README.md` of a LoRA adapter's repo.

    Args:
        folder (`str` or `Path`): folder that the adapter was saved to.
        info (`AdapterCardInfo`): what is known about the adapter.

    Returns:
        `Path`: the card.

    Raises:
        NotADirectoryError: `folder` does not exist.
    """
    folder = _existing(folder)
    card_data = ModelCardData(
        base_model=info.base_model,
        base_model_relation="adapter",
        datasets=list(info.datasets) or None,
        eval_results=None if info.evaluation is None else _eval_results(info.evaluation),
        library_name="peft",
        license=info.license,
        metrics=None if info.evaluation is None else ["success_rate"],
        model_name=info.name,
        pipeline_tag="robotics",
        tags=["nora15", "nora15_hf", "robotics", "vision-language-action", "lora"],
    )
    is_pattern = isinstance(info.target_modules, str)
    card = ModelCard.from_template(
        card_data,
        template_str=_template("lora_adapter.md"),
        info=info,
        parameters=f"{info.num_parameters:,}",
        datasets=", ".join(info.datasets) or NOT_STATED,
        targets="the layers named below" if is_pattern else ", ".join(info.target_modules),
        target_pattern=_cell(f"`{info.target_modules}`" if is_pattern else info.target_modules),
        replaced=", ".join(info.modules_to_save) or "nothing",
        training=_cells(info.training),
        success_rows=[] if info.evaluation is None else _success_rows(info.evaluation),
        evaluation_conventions=[] if info.evaluation is None else _cells(info.evaluation.conventions),
        peft_version=metadata.version("peft"),
        **_library_versions(),
    )
    return _save(card, folder)


def write_world_model_card(folder: str | Path, info: WorldModelCardInfo) -> Path:
    """
    Write `README.md` of a world-model repo.

    Args:
        folder (`str` or `Path`): folder that the world model and its processor were saved to.
        info (`WorldModelCardInfo`): what is known about the world model.

    Returns:
        `Path`: the card.

    Raises:
        NotADirectoryError: `folder` does not exist.
    """
    folder = _existing(folder)
    card_data = ModelCardData(
        base_model=info.base_model,
        base_model_relation=None if info.base_model is None else "finetune",
        datasets=list(info.datasets) or None,
        library_name="transformers",
        license=info.license,
        model_name=info.name,
        pipeline_tag="robotics",
        tags=["vjepa2_ac", "nora15_hf", "robotics", "world-model", "reward-model"],
    )
    card = ModelCard.from_template(
        card_data,
        template_str=_template("world_model.md"),
        info=info,
        parameters=f"{info.num_parameters:,}",
        datasets=", ".join(info.datasets) or NOT_STATED,
        training=_cells(info.training),
        metrics=_cells(info.metrics),
        **_library_versions(),
    )
    return _save(card, folder)


def write_preference_card(folder: str | Path, info: PreferenceCardInfo) -> Path:
    """
    Write `README.md` of a preference dataset, with the front matter that makes `load_dataset(folder)` work.

    Args:
        folder (`str` or `Path`): folder of the dataset.
        info (`PreferenceCardInfo`): what is known about the dataset.

    Returns:
        `Path`: the card.

    Raises:
        NotADirectoryError: `folder` does not exist.
        FileNotFoundError: the folder holds no data yet.
    """
    folder = _existing(folder)
    card_data = DatasetCardData(
        configs=dataset_configs(folder, PREFERENCE_DATA_FILES),
        license=info.license,
        pretty_name=info.name,
        size_categories=_size_category(info.num_rows),
        source_datasets=None if info.demonstrations is None else [info.demonstrations],
        tags=["nora15_hf", "robotics", "preferences", "dpo"],
        task_categories=["robotics"],
    )
    card = DatasetCard.from_template(
        card_data,
        template_str=_template("preferences.md"),
        info=info,
        rows=f"{info.num_rows:,}",
        not_stated=NOT_STATED,
        rewards=_cells(info.rewards),
        min_margin=_cell(info.min_margin),
        provenance=_cells(info.provenance),
        figures=sorted(file.name for file in (folder / FIGURES_FOLDER).glob("*.png")),
        figures_folder=FIGURES_FOLDER,
    )
    return _save(card, folder)


def write_demonstration_card(folder: str | Path, info: DemonstrationCardInfo) -> Path:
    """
    Write `README.md` of a LeRobot dataset, with the front matter that makes `load_dataset(folder)` work.

    Args:
        folder (`str` or `Path`): root of the LeRobot dataset.
        info (`DemonstrationCardInfo`): what is known about the dataset.

    Returns:
        `Path`: the card.

    Raises:
        NotADirectoryError: `folder` does not exist.
        FileNotFoundError: the folder holds no data yet.
    """
    folder = _existing(folder)
    card_data = DatasetCardData(
        configs=dataset_configs(folder, DEMONSTRATION_DATA_FILES),
        license=info.license,
        pretty_name=info.name,
        size_categories=_size_category(info.num_frames),
        tags=["LeRobot", "nora15_hf", "robotics", info.robot_type],
        task_categories=["robotics"],
    )
    card = DatasetCard.from_template(
        card_data,
        template_str=_template("demonstrations.md"),
        info=info,
        episodes=f"{sum(info.tasks.values()):,}",
        frames=f"{info.num_frames:,}",
        tasks=_cells(info.tasks),
        features=_cells(info.features),
        conventions=_cells(info.conventions),
        simulated="simulator" in info.conventions,
        recording=_cells(info.recording),
    )
    return _save(card, folder)


def _template(name: str) -> str:
    # Jinja drops the last line break of a template
    return resources.files("nora15_hf.model_cards").joinpath(name).read_text(encoding="utf-8") + "\n"


def _existing(folder: str | Path) -> Path:
    if not Path(folder).is_dir():
        raise NotADirectoryError(
            f"`folder` is {str(folder)!r}, which is not an existing folder. A card describes an artefact: save the model "
            "or dataset there first, then write its card."
        )
    return Path(folder)


def _save(card: ModelCard | DatasetCard, folder: Path) -> Path:
    path = folder / "README.md"
    card.save(path)
    return path


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZE_CATEGORIES if rows < limit), "n>1M")


def _eval_results(evaluation: Evaluation) -> list[EvalResult]:
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


def _success_rows(evaluation: Evaluation) -> list[dict[str, str | int]]:
    successes, episodes = (sum(column) for column in zip(*evaluation.results.values(), strict=True))
    rows = []
    for task, (task_successes, task_episodes) in (*evaluation.results.items(), ("**all**", (successes, episodes))):
        low, high = wilson_interval(task_successes, task_episodes)
        rows.append(
            {
                "task": task,
                "rate": f"{task_successes / task_episodes:.1%}",
                "successes": task_successes,
                "episodes": task_episodes,
                "interval": f"{low:.1%} – {high:.1%}",
            }
        )
    return rows


def _executed(n_action_steps: int, chunk_size: int) -> str:
    return f"all {chunk_size}" if n_action_steps == chunk_size else f"the first {n_action_steps} of the {chunk_size}"


def _library_versions() -> dict[str, str]:
    return {
        "library_version": metadata.version("nora15_hf"),
        "transformers_version": metadata.version("transformers"),
    }


def _cells(table: Mapping[str, Setting]) -> list[tuple[str, str]]:
    return [(_cell(name), _cell(value)) for name, value in table.items()]


def _cell(value: Setting) -> str:
    # a pipe or a line break would end the table cell
    return setting_text(value).replace("|", r"\|").replace("\n", " ")
