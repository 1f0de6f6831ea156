# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Cards of the artefacts of a quickstart run."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..cards.card_info import Evaluation
from ..cards.card_settings import Setting
from ..cards.policy_card import ACTION_CONVENTIONS, stated
from ..evaluation.demonstrations import RECORDING
from ..hub import AuthorFacts, write_card
from ..preferences.rewards import REWARD_PRESETS
from ..simulation.environment import EnvironmentSpec, camera_feature
from ..simulation.expert_episodes import ACTION, EXECUTED_ACTION, STATE
from ..trainers.world_model.world_model_card import held_out_measures
from .config import QuickstartConfig
from .evaluation_stages import POLICY_FOLDERS
from .policy_stages import CHUNK_SIZE, open_demonstrations
from .preference_stage import REWARD_PRESET
from .report_data import ReportData

LIMITS = (
    "Trained from random weights on a handful of simulated tasks within minutes: it shows that the pipeline works, it is not "
    "a policy to put on a robot.",
)


def write_cards(
    output: Path,
    config: QuickstartConfig,
    report: ReportData,
    stage_results: Mapping[str, dict[str, Any]],
    spec: EnvironmentSpec,
) -> None:
    """Writes `README.md` into every artefact's folder."""
    conventions = open_demonstrations(output, config).conventions
    for arm, folder in POLICY_FOLDERS.items():
        write_card(output / folder, _policy_facts(config, report, arm, spec))
    write_card(output / "world-model", _world_model_facts(config, spec, stage_results["world-model"]))
    write_card(output / "preferences", _preference_facts(spec))
    write_card(output / "demonstrations", _demonstration_facts(conventions, spec))


def _policy_facts(config: QuickstartConfig, report: ReportData, arm: str, spec: EnvironmentSpec) -> AuthorFacts:
    settings, stage = report.conventions, POLICY_FOLDERS[arm].removeprefix("policy-")
    post_trained = arm != "sft"
    training: dict[str, Setting] = dict(settings["policy"])
    if post_trained:
        training |= {f"post-training {name}": value for name, value in settings["post-training"].items()}
    return AuthorFacts(
        name=f"NORA-1.5 tiny, {spec.title}, {stage}",
        stage=stage,
        gripper=spec.gripper,
        example_instruction=config.task(config.tasks[0]).instruction,
        base_model=POLICY_FOLDERS["sft"] if post_trained else None,
        datasets=("demonstrations", "preferences") if arm == "dpo" else ("demonstrations",),
        evaluation=Evaluation(
            environment=f"{spec.title} {version(spec.packages[0])}",
            environment_id=spec.name,
            results=report.success[arm],
            conventions=settings["evaluation"] | settings["simulator"],
        ),
        limits=LIMITS,
        others={
            "n_action_steps": config.num_action_steps,
            "training": training | {"seed": config.seed},
            "started_from": "random weights",
            "rewards": REWARD_PRESETS[REWARD_PRESET] if arm == "dpo" else {},
        },
    )


def _world_model_facts(config: QuickstartConfig, spec: EnvironmentSpec, result: Mapping[str, Any]) -> AuthorFacts:
    return AuthorFacts(
        name=f"V-JEPA 2-AC tiny, {spec.title}",
        action_space=stated([spec.name], {spec.name: spec.conventions}, ACTION_CONVENTIONS),
        datasets=("demonstrations",),
        limits=LIMITS,
        others={
            "horizon": CHUNK_SIZE,
            "encoder": "random weights, trained on the demonstrations with a moving-average target and pixel reconstruction",
            "frame_step": f"one control step, 1/{spec.control_rate:g} s",
            "training": {
                "encoder steps x batch": f"{config.encoder_steps} x {config.encoder_batch_size}",
                "predictor steps x batch": f"{config.predictor_steps} x {config.predictor_batch_size}",
                "predictor learning rate": config.predictor_learning_rate,
                "seed": config.seed,
            },
            "metrics": held_out_measures(result["metrics"]),
        },
    )


def _preference_facts(spec: EnvironmentSpec) -> AuthorFacts:
    return AuthorFacts(
        name=f"Preferences over action chunks, {spec.title}",
        base_model="policy-sft",
        datasets=("demonstrations",),
        limits=LIMITS,
        others={"world_model": "world-model"},
    )


def _demonstration_facts(conventions: Mapping[str, Any], spec: EnvironmentSpec) -> AuthorFacts:
    recording = conventions[RECORDING]
    noise = recording["expert_noise"]
    state = {} if spec.state_dim is None else {STATE: conventions.get("state", "state of the robot")}
    return AuthorFacts(
        name=f"{spec.title} demonstrations",
        gripper=spec.gripper,
        limits=("Simulated, one robot.",),
        others={
            "source": f"by {spec.title}'s scripted experts, whose hand is disturbed while their wish is recorded",
            "features": {
                **{camera_feature(camera): "camera picture" for camera in spec.cameras},
                **state,
                ACTION: "what the expert wanted at this frame; to be imitated",
                EXECUTED_ACTION: "what moved the robot: the expert's action plus noise; for world models",
            },
            "recording": {
                "first seed": recording["first_seed"],
                "failed episodes (dropped and replaced)": sum(map(len, recording["failed_seeds"].values())),
                "noise on executed actions": f"normal, standard deviation {noise['std']}, on "
                + ", ".join(spec.action_names[: spec.hand_dims]),
                "pushes": f"probability {noise['burst_probability']} per step, {noise['burst_steps']} steps",
            },
        },
    )


__all__ = ["write_cards"]
