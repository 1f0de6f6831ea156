# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The facts of a card that a folder's own files give, completed by those that only its author knows."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..cards.card_info import (
    NOT_STATED,
    AdapterCardInfo,
    CardInfo,
    DemonstrationCardInfo,
    Evaluation,
    PolicyCardInfo,
    PreferenceCardInfo,
    Stage,
    WorldModelCardInfo,
)
from ..cards.card_settings import Setting
from ..cards.cards import save_card
from ..cards.policy_card import ACTION_CONVENTIONS, policy_card_info, stated
from ..clips.clip_conventions import CLIPS_FILE, ClipConventions
from ..data.lerobot_layout import INDEX_FEATURES, is_camera, is_depth_map, picture_shape, stored_conventions
from ..data.lerobot_metadata import LeRobotMetadata, load_metadata
from ..data.lerobot_writer import DATA_FILES as DEMONSTRATION_DATA_FILES
from ..data.parquet_images import first_image_format
from ..nora15.configuration_nora15 import Nora15Config
from ..nora15.processing_nora15 import Nora15Processor
from ..preferences.pairs import PAIRINGS
from ..preferences.preference_figures import FIGURES_FOLDER
from ..preferences.preference_record import DATA_FILES as PREFERENCE_DATA_FILES
from ..preferences.preference_record import PreferenceRecord
from ..repo_files.json_files import read_json
from ..repo_files.stored_tensors import read_header
from ..trainers.resume import RUN_FILE
from ..vjepa2_ac.configuration_vjepa2_ac import VJEPA2ACConfig
from .artefacts import Artefact, find_artefact

__all__ = ["AuthorFacts", "write_card"]

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
        evaluation ([`Evaluation`]): closed-loop results, see [`~nora15_hf.hub.read_evaluation`].
        limits (`tuple[str, ...]`): sentences added to the general limits.
        license (`str`): Hub licence identifier.
        others (`Mapping[str, Any]`): Further fields of the artefact's [`~nora15_hf.cards.card_info.CardInfo`], in place of
            what the folder tells.
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
    others: Mapping[str, Any] = field(default_factory=dict)


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
        ValueError: It holds no artefact with a card, a name is no Hub id where one is needed, or a fact is given that its card
            does not state.
    """
    folder, facts = Path(folder), facts or AuthorFacts()
    artefact = find_artefact(folder)
    if artefact not in _READERS:
        raise ValueError(
            f"{folder} holds a {artefact.value}, which has no card of its own: it is described in the card of the model that it "
            f"belongs to. Cards exist for {', '.join(kind.value for kind in _READERS)}."
        )
    info = _READERS[artefact](folder, facts)
    repo_id = facts.repo_id or folder.resolve().name
    told = vars(facts) | {"repo_id": repo_id, "name": facts.name or repo_id.rpartition("/")[2]}
    stated_facts = {name: value for name, value in told.items() if name != "others" and value not in (None, ())}
    known = {entry.name for entry in fields(info)}
    unknown = sorted(stated_facts.keys() - known - _READ_ELSEWHERE.get(artefact, set()))
    if unknown:
        raise ValueError(f"The card of {folder} ({artefact.value}) does not state {', '.join(unknown)}. Omit it.")
    known_facts = {name: value for name, value in stated_facts.items() if name in known}
    return save_card(folder, replace(info, **known_facts, **facts.others))


def _policy(folder: Path, facts: AuthorFacts) -> PolicyCardInfo:
    run = _run(folder)
    return policy_card_info(
        Nora15Config.from_pretrained(folder),
        Nora15Processor.from_pretrained(folder),
        repo_id=folder.name,
        num_parameters=_num_parameters(folder),
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json")["_class_name"],
        stage=_stage(run),
        training=run or {"hyper-parameters": NOT_STATED},
        started_from=NOT_STATED,
    )


def _adapter(folder: Path, facts: AuthorFacts) -> AdapterCardInfo:
    config = read_json(folder / "adapter_config.json")
    base_model = facts.base_model or config["base_model_name_or_path"]
    targets = config["target_modules"]
    try:
        return AdapterCardInfo(
            repo_id=folder.name,
            name=folder.name,
            base_model=base_model,
            num_parameters=_num_parameters(folder),
            rank=config["r"],
            alpha=config["lora_alpha"],
            target_modules=targets if isinstance(targets, str) else tuple(sorted(targets)),
            modules_to_save=tuple(config["modules_to_save"] or ()),
            has_processor=(folder / "processor_config.json").is_file(),
            training=_run(folder),
        )
    except ValueError as error:
        raise ValueError(
            f"{folder / 'adapter_config.json'} names the base model {base_model!r}, which is not a Hub id. Push that policy, "
            "and pass its id as base_model (--base-model)."
        ) from error


def _world_model(folder: Path, facts: AuthorFacts) -> WorldModelCardInfo:
    config = VJEPA2ACConfig.from_pretrained(folder)
    normalized = config.action_convention == "normalized"
    told: dict[str, Any] = {
        "action_space": NOT_STATED,
        "action_scale": "as the policy's processor normalises them" if normalized else "metres and radians",
        "state_input": "zeros" if normalized else "end-effector pose",
    }
    training = _run(folder)
    if (folder / CLIPS_FILE).is_file():
        clips = ClipConventions.from_pretrained(folder)
        told = {
            "action_space": clips.action_source,
            "action_scale": clips.action_scale,
            "state_input": clips.state_input,
        }
        training = {"dataset": clips.dataset, "camera": clips.image_key} | training
    return WorldModelCardInfo(
        repo_id=folder.name,
        name=folder.name,
        num_parameters=_num_parameters(folder),
        image_size=config.encoder_config.crop_size,
        action_dim=config.action_dim,
        horizon=5,
        encoder=NOT_STATED,
        frame_step=NOT_STATED,
        pose_dim=None if normalized else config.state_dim,
        training=training or {"hyper-parameters": NOT_STATED},
        metrics={"held-out measures": NOT_STATED},
        **told,
    )


def _preferences(folder: Path, facts: AuthorFacts) -> PreferenceCardInfo:
    record = PreferenceRecord.read(folder)
    settings, counts = record.settings, record.counts
    source = settings.pairs_from
    told = {
        "sampler": settings.sampler,
        "noise-injected negatives": settings.num_noisy_negatives,
        "seed": settings.seed,
        "dataset key": settings.dataset_key,
        "precision": settings.dtype,
        "policy fingerprint": settings.policy_fingerprint,
        "states": counts.states,
    }
    provenance = {name: value for name, value in record.provenance.items() if name != "packages"}
    return PreferenceCardInfo(
        repo_id=folder.name,
        name=folder.name,
        data_files=PREFERENCE_DATA_FILES,
        num_rows=counts.pairs,
        num_candidates=settings.chunks_per_state,
        chunk_size=settings.chunk_size,
        action_dim=settings.action_dim,
        demonstrations=facts.datasets[0] if facts.datasets else None,
        policy=facts.base_model or settings.policy or None,
        world_model=settings.world_model,
        rewards=settings.reward_weights if source is None else {},
        selection=PAIRINGS[settings.pairing] if source is None else source["pairs"],
        min_margin=settings.min_margin,
        num_dropped=counts.ties + counts.too_close,
        provenance=told | provenance,
        **_decisions(record),
        figures=tuple(sorted(f"{FIGURES_FOLDER}/{file.name}" for file in (folder / FIGURES_FOLDER).glob("*.png"))),
    )


def _decisions(record: PreferenceRecord) -> dict[str, Any]:
    """Fields of [`PreferenceCardInfo`] about what each reward decided; sets of earlier versions do not tell."""
    if record.decisions is None:
        return {}
    return {
        "decisions": {name: list(record.decisions.row(name)[1:]) for name in record.decisions.rewards},
        "agreement": record.decisions.kendall_tau,
        "warning": record.decisions.warning(),
    }


def _demonstrations(folder: Path, facts: AuthorFacts) -> DemonstrationCardInfo:
    metadata = load_metadata(folder)
    info = metadata.info
    conventions = stored_conventions(info)
    by_key = {folder.name: conventions}
    features = {name: feature for name, feature in info["features"].items() if name not in INDEX_FEATURES}
    robot_type = info.get("robot_type") or NOT_STATED
    tasks = metadata.episodes.tasks
    return DemonstrationCardInfo(
        repo_id=folder.name,
        name=folder.name,
        data_files=DEMONSTRATION_DATA_FILES,
        num_rows=info["total_frames"],
        source="robot not stated" if robot_type == NOT_STATED else f"recorded on {robot_type}",
        version=info["codebase_version"],
        robot_type=robot_type,
        num_episodes=info["total_episodes"],
        fps=info["fps"],
        cameras={name: _pictures(metadata, name, feature) for name, feature in features.items() if is_camera(feature)},
        tasks=dict.fromkeys(metadata.tasks.values(), NOT_STATED)
        if tasks is None
        else dict(Counter(instruction for instructions in tasks for instruction in instructions)),
        features={name: f"{feature['dtype']} {list(feature['shape'])}" for name, feature in features.items()},
        action_space=stated(by_key, by_key, ACTION_CONVENTIONS),
        gripper=stated(by_key, by_key, ("gripper",)),
        conventions={name: value for name, value in conventions.items() if not isinstance(value, dict)},
        recording={"episodes": info["total_episodes"]},
    )


def _pictures(metadata: LeRobotMetadata, key: str, feature: Mapping[str, Any]) -> str:
    """Size, kind and storage of a camera's images, each as stored or "not stated"."""
    shape = picture_shape(feature)
    size = f"size {NOT_STATED}" if shape is None else f"{shape[1]} × {shape[0]} (width × height)"
    colours = {1: "one channel", 3: "RGB", 4: "four channels"}
    kind = (
        "depth map"
        if is_depth_map(feature)
        else ""
        if shape is None
        else colours.get(shape[2], f"{shape[2]} channels")
    )
    if feature["dtype"] == "video":
        codec = ((feature.get("info") or {}) | (feature.get("video_info") or {})).get("video.codec")
        storage = f"video, {codec or f'codec {NOT_STATED}'}"
    else:
        storage = first_image_format(metadata, key) or f"image format {NOT_STATED}"
    return ", ".join(filter(None, [f"{size} {kind}".rstrip(), storage]))


_READERS: dict[Artefact, Callable[[Path, AuthorFacts], CardInfo]] = {
    Artefact.POLICY: _policy,
    Artefact.ADAPTER: _adapter,
    Artefact.WORLD_MODEL: _world_model,
    Artefact.PREFERENCES: _preferences,
    Artefact.DEMONSTRATIONS: _demonstrations,
}

# Facts that a reader states under another name: who sampled the candidates, and where their states come from.
_READ_ELSEWHERE = {Artefact.PREFERENCES: {"base_model", "datasets"}}


def _num_parameters(folder: Path) -> int:
    """Numbers in the folder's safetensors files, read from their headers."""
    return sum(
        math.prod(tensor.shape) for file in folder.glob("*.safetensors") for tensor in read_header(file).values()
    )


def _run(folder: Path) -> dict[str, Setting]:
    """Hyper-parameters of the training that wrote the folder, as far as its record is there."""
    if not (folder / RUN_FILE).is_file():
        return {}
    arguments: Mapping[str, Any] = read_json(folder / RUN_FILE)["arguments"]
    shared = {entry.name for entry in fields(TrainingArguments)}
    return {
        name.replace("_", " "): value
        for name, value in arguments.items()
        if value is not None and (name in _SHARED_SETTINGS or name not in shared)
    }


def _stage(run: Mapping[str, Setting]) -> Stage:
    if not run:
        return NOT_STATED
    return "dpo" if "beta" in run else "sft"
