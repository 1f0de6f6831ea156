# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Cards of the artefacts of a quickstart run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cards.card_info import (
    DemonstrationCardInfo,
    Evaluation,
    PolicyCardInfo,
    PreferenceCardInfo,
    Setting,
    WorldModelCardInfo,
)
from ..cards.cards import (
    write_demonstration_card,
    write_policy_card,
    write_preference_card,
    write_world_model_card,
)
from ..preferences.preference_record import PreferenceRecord
from ..preferences.rewards import REWARD_PRESETS
from ..trainers.world_model.world_model_card import held_out_measures
from ..vjepa2_ac import VJEPA2ACModel
from .config import QuickstartConfig
from .evaluation_stages import POLICY_FOLDERS
from .policy_stages import CHUNK_SIZE, load_policy, open_demonstrations
from .preference_stage import REWARD_PRESET
from .report_data import ReportData

ACTION_SPACE = "hand dx, dy, dz (about 1 cm per unit and step), gripper effort; each in [-1, 1]"
GRIPPER = "effort in [-1, 1], +1 closes"
NORMALIZATION = "every dimension from the minimum and maximum of the demonstrations to [-1, 1]"
LIMITS = (
    "Trained from random weights on a handful of simulated tasks within minutes: it shows the road, it is not a policy to "
    "put on a robot.",
)


def write_cards(
    output: Path, config: QuickstartConfig, report: ReportData, stage_results: Mapping[str, dict[str, Any]]
) -> None:
    """Writes `README.md` into every artefact's folder."""
    for arm, folder in POLICY_FOLDERS.items():
        write_policy_card(output / folder, _policy_info(output, config, report, arm, folder))
    write_world_model_card(output / "world-model", _world_model_info(output, config, stage_results["world-model"]))
    write_preference_card(output / "preferences", _preference_info(output, config))
    write_demonstration_card(output / "demonstrations", _demonstration_info(output, config))


def _policy_info(output: Path, config: QuickstartConfig, report: ReportData, arm: str, folder: str) -> PolicyCardInfo:
    model, processor = load_policy(output / folder)
    settings = report.conventions
    post_trained = arm != "sft"
    training: dict[str, Setting] = dict(settings["policy"])
    if post_trained:
        training |= {f"post-training {name}": value for name, value in settings["post-training"].items()}
    return PolicyCardInfo(
        repo_id=folder,
        name=f"NORA-1.5 tiny, Meta-World, {folder.removeprefix('policy-')}",
        stage=folder.removeprefix("policy-"),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        image_size=processor.image_size,
        chunk_size=processor.chunk_size,
        action_dim=processor.action_dim,
        n_action_steps=config.num_action_steps,
        action_space=ACTION_SPACE,
        gripper=GRIPPER,
        normalization=NORMALIZATION,
        statistics_keys=tuple(processor.norm_stats),
        decoder=f"flow matching, {type(model.scheduler).__name__}, {model.config.num_inference_steps} steps",
        example_instruction=config.task(config.tasks[0]).instruction,
        training=training | {"seed": config.seed},
        base_model=POLICY_FOLDERS["sft"] if post_trained else None,
        datasets=("demonstrations", "preferences") if arm == "dpo" else ("demonstrations",),
        rewards=REWARD_PRESETS[REWARD_PRESET] if arm == "dpo" else {},
        evaluation=Evaluation(
            environment=f"Meta-World {settings['simulator']['metaworld_version']}",
            environment_id="metaworld",
            results=report.success[arm],
            conventions=settings["evaluation"] | settings["simulator"],
        ),
        limits=LIMITS,
    )


def _world_model_info(output: Path, config: QuickstartConfig, result: dict[str, Any]) -> WorldModelCardInfo:
    model = VJEPA2ACModel.from_pretrained(output / "world-model")
    return WorldModelCardInfo(
        repo_id="world-model",
        name="V-JEPA 2-AC tiny, Meta-World",
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        image_size=config.image_size,
        action_dim=model.config.action_dim,
        horizon=CHUNK_SIZE,
        encoder="random weights, trained on the demonstrations with a moving-average target and pixel reconstruction",
        frame_step="one control step, 1/80 s",
        action_space=ACTION_SPACE,
        action_scale=NORMALIZATION,
        state_input="zeros",
        training={
            "encoder steps x batch": f"{config.encoder_steps} x {config.encoder_batch_size}",
            "predictor steps x batch": f"{config.predictor_steps} x {config.predictor_batch_size}",
            "predictor learning rate": config.predictor_learning_rate,
            "seed": config.seed,
        },
        metrics=held_out_measures(result["metrics"]),
        datasets=("demonstrations",),
        limits=LIMITS,
    )


def _preference_info(output: Path, config: QuickstartConfig) -> PreferenceCardInfo:
    record = PreferenceRecord.read(output / "preferences")
    settings, counts = record.settings, record.counts
    return PreferenceCardInfo(
        repo_id="preferences",
        name="Preferences over action chunks, Meta-World",
        num_rows=counts.pairs,
        num_candidates=config.num_candidates,
        chunk_size=settings.chunk_size,
        action_dim=settings.action_dim,
        demonstrations="demonstrations",
        policy="policy-sft",
        world_model="world-model",
        rewards=REWARD_PRESETS[REWARD_PRESET],
        selection="best against worst of the candidates",
        min_margin=settings.min_margin,
        num_dropped=counts.ties + counts.too_close,
        provenance={
            "solver steps": settings.sampler["num_steps"],
            "seed": settings.seed,
            "policy fingerprint": settings.policy_fingerprint,
            "states": counts.states,
        },
        limits=LIMITS,
    )


def _demonstration_info(output: Path, config: QuickstartConfig) -> DemonstrationCardInfo:
    dataset = open_demonstrations(output, config)
    conventions = dict(dataset.conventions)
    recording = conventions.pop("demonstrations")
    noise = recording["expert_noise"]
    return DemonstrationCardInfo(
        repo_id="demonstrations",
        name="Meta-World demonstrations",
        source="by Meta-World's scripted experts, whose hand is disturbed while their wish is recorded",
        robot_type=dataset.info["robot_type"],
        fps=dataset.fps,
        num_frames=len(dataset),
        image_size=config.image_size,
        tasks={config.task(task).instruction: config.episodes for task in config.tasks},
        features={
            "observation.image": "camera picture",
            "observation.state": conventions["state"],
            "action": "what the expert wanted at this frame; to be imitated",
            "action.executed": "what moved the robot: the expert's action plus noise; for world models",
        },
        action_space=ACTION_SPACE,
        gripper=GRIPPER,
        conventions={name: value for name, value in conventions.items() if not isinstance(value, dict)},
        recording={
            "first seed": recording["first_seed"],
            "failed episodes (dropped and replaced)": sum(map(len, recording["failed_seeds"].values())),
            "noise on executed actions": f"normal, standard deviation {noise['std']}, on dx, dy, dz",
            "pushes": f"probability {noise['burst_probability']} per step, {noise['burst_steps']} steps",
        },
        limits=("Simulated, one camera, one robot; goal markers of the simulator are hidden.",),
    )


__all__ = ["write_cards"]
