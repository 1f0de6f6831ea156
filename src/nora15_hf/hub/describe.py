# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a card can say about a folder from its own files, completed by what only its author knows."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments

from ..cards.card_info import (
    NOT_STATED,
    AdapterCardInfo,
    DemonstrationCardInfo,
    Evaluation,
    PolicyCardInfo,
    PreferenceCardInfo,
    Stage,
    WorldModelCardInfo,
)
from ..cards.card_settings import Setting
from ..cards.cards import (
    write_adapter_card,
    write_demonstration_card,
    write_policy_card,
    write_preference_card,
    write_world_model_card,
)
from ..clips.clip_conventions import CLIPS_FILE, ClipConventions
from ..data.lerobot_layout import CONVENTIONS_KEY, INDEX_FEATURES
from ..data.lerobot_metadata import load_metadata
from ..nora15.configuration_nora15 import Nora15Config
from ..nora15.processing_nora15 import Nora15Processor
from ..preferences.pairs import PAIRINGS
from ..preferences.preference_record import PreferenceRecord
from ..repo_files.stored_tensors import read_header
from ..vjepa2_ac.configuration_vjepa2_ac import VJEPA2ACConfig
from .artefacts import Artefact, find_artefact, read_json

__all__ = ["AuthorFacts", "read_evaluation", "write_card"]

# `trainers.resume.RUN_FILE`, by name: the trainers write cards and import this package.
_RUN_FILE = "run.json"

# Of `TrainingArguments`, what a reader wants to know; of a trainer's own configuration, everything.
_SHARED_SETTINGS = (
    "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "num_train_epochs",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim", "bf16", "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AuthorFacts:
    """
    What no file of an artefact tells; everything may be left out, and the card then says that it is not stated.

    Args:
        repo_id (`str`): what a reader passes to `from_pretrained` or `load_dataset`; the folder's name by default.
        stage (`str`): `"sft"`, `"continued-sft"` or `"dpo"`; told from the training's record by default.
        name (`str`): title; the last part of `repo_id` by default.
        base_model (`str`): repo that training started from.
        datasets (`tuple[str, ...]`): repos trained on; of a preference dataset, where its states come from.
        action_space (`str`), gripper (`str`): meaning and unit of the action dimensions, and of the gripper's sign.
        example_instruction (`str`): used in the usage snippet.
        evaluation ([`Evaluation`]): closed-loop results, see [`read_evaluation`].
        limits (`tuple[str, ...]`): sentences added to the general limits.
        license (`str`): Hub licence identifier.
    """

    repo_id: str | None = None
    stage: Stage | None = None
    name: str | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    action_space: str | None = None
    gripper: str | None = None
    example_instruction: str | None = None
    evaluation: Evaluation | None = None
    limits: tuple[str, ...] = ()
    license: str = "apache-2.0"


def write_card(folder: str | Path, facts: AuthorFacts | None = None) -> Path:
    """
    Writes `README.md` of a policy, a LoRA adapter, a world model, a preference dataset or demonstrations.

    Sizes, conventions, statistics keys, hyper-parameters (`run.json` of a training), provenance and counts are read from
    the folder.

    Args:
        folder (`str` or `Path`): What `save_pretrained`, a trainer, `build_preferences` or `LeRobotWriter` wrote.
        facts ([`AuthorFacts`], *optional*): The rest.

    Returns:
        `Path`: the card.

    Raises:
        NotADirectoryError, FileNotFoundError: The folder or a file of the artefact is missing.
        ValueError: It holds no artefact with a card, or a name that is no Hub id where one is needed.
    """
    folder, facts = Path(folder), facts or AuthorFacts()
    artefact = find_artefact(folder)
    if artefact not in _WRITERS:
        raise ValueError(
            f"{folder} holds a {artefact.value}, which has no card of its own: it is described in the card of the model it "
            f"belongs to. Cards exist for {', '.join(kind.value for kind in _WRITERS)}."
        )
    repo_id = facts.repo_id or folder.resolve().name
    names = {"repo_id": repo_id, "name": facts.name or repo_id.rpartition("/")[2]}
    shared = names | {"limits": facts.limits, "license": facts.license}
    return _WRITERS[artefact](folder, facts, shared)


def read_evaluation(file: str | Path) -> Evaluation:
    """
    Closed-loop results from a JSON file with the fields of [`Evaluation`].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A field is missing, unknown, or has another form.
    """
    content = read_json(Path(file))
    expected = {field.name for field in fields(Evaluation)}
    if content.keys() != expected:
        raise ValueError(f"{file} has the fields {sorted(content)}, expected {sorted(expected)}.")
    try:
        results = {task: (int(successes), int(episodes)) for task, (successes, episodes) in content["results"].items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: results must map each task to [successes, episodes] ({error}).") from error
    return Evaluation(**content | {"results": results})


def _write_policy_card(folder: Path, facts: AuthorFacts, shared: dict[str, Any]) -> Path:
    config = Nora15Config.from_pretrained(folder)
    processor = Nora15Processor.from_pretrained(folder)
    keys = tuple(processor.norm_stats)
    conventions = processor.conventions.get(keys[0], {}) if keys else {}
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")["_class_name"]
    run = _run(folder)
    info = PolicyCardInfo(
        stage=facts.stage or _stage(run),
        num_parameters=_num_parameters(folder),
        image_size=processor.image_size,
        chunk_size=config.chunk_size,
        action_dim=config.action_dim,
        n_action_steps=config.chunk_size,
        action_space=facts.action_space or conventions.get("action", NOT_STATED),
        gripper=facts.gripper or conventions.get("gripper", NOT_STATED),
        normalization=_normalization(processor),
        state_dim=config.state_dim,
        statistics_keys=keys,
        decoder=f"flow matching, {scheduler}, {config.num_inference_steps} steps",
        example_instruction=facts.example_instruction or "open the faucet",
        training=run or {"hyper-parameters": NOT_STATED},
        base_model=facts.base_model,
        started_from=NOT_STATED,
        datasets=facts.datasets,
        evaluation=facts.evaluation,
        **shared,
    )
    return write_policy_card(folder, info)


def _write_adapter_card(folder: Path, facts: AuthorFacts, shared: dict[str, Any]) -> Path:
    config = read_json(folder / "adapter_config.json")
    base_model = facts.base_model or config["base_model_name_or_path"]
    try:
        validate_repo_id(base_model)
    except HFValidationError as error:
        raise ValueError(
            f"{folder / 'adapter_config.json'} names the base model {base_model!r}, which is no Hub id. Push that policy, "
            "and tell its id with base_model (--base-model)."
        ) from error
    targets = config["target_modules"]
    info = AdapterCardInfo(
        base_model=base_model,
        num_parameters=_num_parameters(folder),
        rank=config["r"],
        alpha=config["lora_alpha"],
        target_modules=targets if isinstance(targets, str) else tuple(sorted(targets)),
        modules_to_save=tuple(config["modules_to_save"] or ()),
        training=_run(folder),
        datasets=facts.datasets,
        evaluation=facts.evaluation,
        **shared,
    )
    return write_adapter_card(folder, info)


def _write_world_model_card(folder: Path, facts: AuthorFacts, shared: dict[str, Any]) -> Path:
    config = VJEPA2ACConfig.from_pretrained(folder)
    normalized = config.action_convention == "normalized"
    clips = ClipConventions.from_pretrained(folder) if (folder / CLIPS_FILE).is_file() else None
    read = {} if clips is None else {"dataset": clips.dataset, "camera": clips.image_key}
    info = WorldModelCardInfo(
        num_parameters=_num_parameters(folder),
        image_size=config.encoder_config.crop_size,
        action_dim=config.action_dim,
        horizon=5,
        encoder=NOT_STATED,
        frame_step=NOT_STATED,
        action_space=facts.action_space or (NOT_STATED if clips is None else clips.action_source),
        action_scale=(
            clips.action_scale
            if clips is not None
            else "as the policy's processor normalises them"
            if normalized
            else "metres and radians"
        ),
        state_input=clips.state_input if clips is not None else "zeros" if normalized else "end-effector pose",
        training=read | _run(folder) or {"hyper-parameters": NOT_STATED},
        metrics={"held-out measures": NOT_STATED},
        base_model=facts.base_model,
        datasets=facts.datasets,
        **shared,
    )
    return write_world_model_card(folder, info)


def _write_preference_card(folder: Path, facts: AuthorFacts, shared: dict[str, Any]) -> Path:
    record = PreferenceRecord.read(folder)
    settings, counts = record.settings, record.counts
    told = {
        "sampler": settings.sampler,
        "noise-injected negatives": settings.num_noisy_negatives,
        "seed": settings.seed,
        "dataset key": settings.dataset_key,
        "policy fingerprint": settings.policy_fingerprint,
        "states": counts.states,
    }
    provenance = {name: value for name, value in record.provenance.items() if name != "packages"}
    info = PreferenceCardInfo(
        num_rows=counts.pairs,
        num_candidates=settings.chunks_per_state,
        chunk_size=settings.chunk_size,
        action_dim=settings.action_dim,
        demonstrations=facts.datasets[0] if facts.datasets else None,
        policy=facts.base_model or settings.policy or None,
        world_model=settings.world_model,
        rewards=settings.reward_weights,
        selection=PAIRINGS[settings.pairing],
        min_margin=settings.min_margin,
        num_dropped=counts.ties + counts.too_close,
        provenance=told | provenance,
        **shared,
    )
    return write_preference_card(folder, info)


def _write_demonstration_card(folder: Path, facts: AuthorFacts, shared: dict[str, Any]) -> Path:
    metadata = load_metadata(folder)
    info = metadata.info
    conventions = dict(info.get(CONVENTIONS_KEY, {}))
    tasks: dict[str, int] = {}
    for instructions in metadata.episodes.tasks:
        for instruction in instructions:
            tasks[instruction] = tasks.get(instruction, 0) + 1
    features = {name: feature for name, feature in info["features"].items() if name not in INDEX_FEATURES}
    cameras = [feature["shape"] for feature in features.values() if feature["dtype"] in ("image", "video")]
    card = DemonstrationCardInfo(
        source=f"recorded on {info['robot_type']}",
        robot_type=info["robot_type"],
        fps=info["fps"],
        num_frames=info["total_frames"],
        image_size=cameras[0][0] if cameras else 0,
        tasks=tasks,
        features={name: f"{feature['dtype']} {list(feature['shape'])}" for name, feature in features.items()},
        action_space=facts.action_space or conventions.get("action", NOT_STATED),
        gripper=facts.gripper or conventions.get("gripper", NOT_STATED),
        conventions={name: value for name, value in conventions.items() if not isinstance(value, dict)},
        recording={"episodes": info["total_episodes"]},
        **shared,
    )
    return write_demonstration_card(folder, card)


_WRITERS: dict[Artefact, Callable[[Path, AuthorFacts, dict[str, Any]], Path]] = {
    Artefact.POLICY: _write_policy_card,
    Artefact.ADAPTER: _write_adapter_card,
    Artefact.WORLD_MODEL: _write_world_model_card,
    Artefact.PREFERENCES: _write_preference_card,
    Artefact.DEMONSTRATIONS: _write_demonstration_card,
}


def _num_parameters(folder: Path) -> int:
    """Numbers in the folder's safetensors files, read from their headers."""
    return sum(
        math.prod(tensor.shape) for file in folder.glob("*.safetensors") for tensor in read_header(file).values()
    )


def _run(folder: Path) -> dict[str, Setting]:
    """Hyper-parameters of the training that wrote the folder, as far as its record is there."""
    if not (folder / _RUN_FILE).is_file():
        return {}
    arguments: Mapping[str, Any] = read_json(folder / _RUN_FILE)["arguments"]
    shared = {field.name for field in fields(TrainingArguments)}
    return {
        name.replace("_", " "): value
        for name, value in arguments.items()
        if value is not None and (name in _SHARED_SETTINGS or name not in shared)
    }


def _stage(run: Mapping[str, Setting]) -> Stage:
    if not run:
        return NOT_STATED
    return "dpo" if "beta" in run else "sft"


def _normalization(processor: Nora15Processor) -> str:
    ranges = {
        "q01_q99": "every dimension from its 1 % and 99 % quantiles to [-1, 1]",
        "min_max": "every dimension from its minimum and maximum to [-1, 1]",
        "mean_std": "every dimension to mean 0 and standard deviation 1",
    }
    masks = {key: statistics.mask.tolist() for key, statistics in processor.norm_stats.items()}
    raw = {key: [index for index, scaled in enumerate(mask) if not scaled] for key, mask in masks.items()}
    left = {key: dimensions for key, dimensions in raw.items() if dimensions}
    text = ranges[processor.normalization_mode]
    return f"{text}; left as they are: {json.dumps(left)}" if left else text
