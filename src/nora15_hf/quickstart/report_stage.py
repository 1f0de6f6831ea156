# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's last stage: report, results and cards from the results of the finished stages."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..evaluation.success import SuccessTable, compare_paired
from ..preferences.pairs import candidate_numbers
from ..preferences.preference_dataset import load_preferences
from ..repo_files.settings import flat_settings
from ..runtime.cpu_threads import current_threads
from ..simulation.environment import FIRST_EVALUATION_SEED, EnvironmentSpec
from ..stages.post_training import load_policy
from ..stages.stage_runner import StageCost
from ..trainers.policy_setup import TINY_NORMALIZATION_MODE
from .config import QuickstartConfig
from .evaluation_stages import POLICY_FOLDERS, rollouts_file
from .policy_stages import demonstrated_states, open_demonstrations
from .preference_stage import REWARD_PRESET
from .report_data import (
    ARM_LABELS,
    Control,
    CurvePanel,
    Outcomes,
    PairedOutcome,
    PreferenceExample,
    ReportData,
    Rollout,
    Setting,
)

NUM_EXAMPLES = 6
PACKAGES = ("nora15_hf", "torch", "transformers", "trl", "diffusers", "datasets", "numpy")
CONTROL_TEXTS = {
    "swapped_instruction": (
        "Swapped instruction",
        "The policy sees the scene of one task but receives the instruction of the other task in the same scene. Only tasks "
        "that share a scene are counted.",
    ),
    "shuffled_images": (
        "Shuffled images",
        "The policy receives the correct instruction but sees images from episodes of other tasks.",
    ),
}


def collect_report(
    output: Path,
    config: QuickstartConfig,
    command: str,
    stage_results: Mapping[str, dict[str, Any]],
    stages: list[StageCost],
    spec: EnvironmentSpec,
) -> ReportData:
    """
    Args:
        output (`Path`): The run's folder.
        config ([`QuickstartConfig`]): The run.
        command (`str`): The command line that reproduces it.
        stage_results (`dict[str, dict]`): Result of each stage by its name.
        stages (`list[StageCost]`): What they cost.
        spec ([`EnvironmentSpec`]): Of the simulator.
    """
    episodes = {arm: stage_results[f"evaluation-{arm}"]["episodes"] for arm in ARM_LABELS}
    outcomes = {arm: _as_results(records) for arm, records in episodes.items()}
    comparison = compare_paired(outcomes["continued_sft"], outcomes["dpo"])
    return ReportData(
        title="From demonstrations to a preference-tuned policy",
        command=command,
        success={arm: _outcomes(results) for arm, results in outcomes.items()},
        paired=PairedOutcome(
            both=comparison.both,
            only_dpo=comparison.only_second,
            only_continued_sft=comparison.only_first,
            neither=comparison.neither,
            p_value=comparison.p_value,
        ),
        controls=[
            _control(name, _as_results(records), outcomes["sft"])
            for name, records in stage_results["controls"].items()
        ],
        curves=_curve_panels(stage_results),
        rewards=_rewards(output),
        examples=_examples(output, config, spec),
        rollouts=[rollout for arm in ("random", "sft", "dpo") for rollout in _rollouts(output, arm, episodes[arm])],
        stages=stages,
        conventions=run_conventions(output, config, spec),
        versions={"Python": platform.python_version()}
        | {package: version(package) for package in (*PACKAGES, *spec.packages)},
        action_names=list(spec.action_names),
    )


def run_conventions(output: Path, config: QuickstartConfig, spec: EnvironmentSpec) -> dict[str, dict[str, Setting]]:
    """Every setting that affects the numbers, in groups."""
    model, _ = load_policy(output / POLICY_FOLDERS["sft"])
    return {
        "simulator": {name: value for name, value in flat_settings(spec.conventions).items() if name != "max_steps"},
        "evaluation": {
            "tasks": ", ".join(config.tasks),
            "episodes per task and trained policy": config.evaluation_episodes,
            "episodes per task of a control and of random weights": config.control_episodes,
            "seeds": f"{FIRST_EVALUATION_SEED} to {FIRST_EVALUATION_SEED + config.evaluation_episodes - 1}",
            "step limit": config.max_steps,
            "actions executed per chunk": config.num_action_steps,
            "solver": type(model.scheduler).__name__,
            "solver steps": model.config.num_inference_steps,
            "temperature of the flow's noise": config.temperature,
        },
        "demonstrations": {"per task": config.episodes, "seeds": "from 0 on"},
        "policy": {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "chunk size": model.config.chunk_size,
            "normalisation": TINY_NORMALIZATION_MODE,
            "supervised steps x batch": f"{config.sft_steps} x {config.sft_batch_size}",
            "learning rate": config.sft_learning_rate,
        },
        "post-training": {
            "reward": REWARD_PRESET,
            "states": config.preference_states,
            "candidates per state": config.num_candidates,
            "steps x batch": f"{config.dpo_steps} x {config.dpo_batch_size}",
            "learning rate": config.dpo_learning_rate,
            "beta (mean reduction)": config.dpo_beta,
            "trained": "action expert; backbone frozen",
        },
        "run": {
            "seed": config.seed,
            "threads": current_threads().describe(),
            "threads chosen by": current_threads().chosen_by,
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "device": str(model.device),
        },
    }


def _as_results(records: list[dict[str, Any]]) -> list[SimpleNamespace]:
    return [SimpleNamespace(**record) for record in records]


def _outcomes(results: list[SimpleNamespace]) -> Outcomes:
    return {task: (count.successes, count.n) for task, count in SuccessTable.from_results(results).tasks.items()}


def _control(name: str, spoiled: list[SimpleNamespace], sft: list[SimpleNamespace]) -> Control:
    """A control compared with the intact policy on the same episodes."""
    title, explanation = CONTROL_TEXTS[name]
    same_episodes = {(result.task, result.seed) for result in spoiled}
    intact = [result for result in sft if (result.task, result.seed) in same_episodes]
    return Control(name=title, explanation=explanation, intact=_outcomes(intact), spoiled=_outcomes(spoiled))


def _curve_panels(stage_results: Mapping[str, dict[str, Any]]) -> dict[str, list[CurvePanel]]:
    sft = stage_results["policy-sft"]["curves"]
    encoder = stage_results["world-model"]["encoder_curves"]
    predictor = stage_results["world-model"]["predictor_curves"]
    dpo = stage_results["policy-dpo"]["curves"]
    return {
        "Supervised training": [
            CurvePanel(
                title="FAST-token cross-entropy",
                explanation="Nats per token of the discrete decoder; decreases as the policy learns to predict chunks.",
                curves={"cross-entropy": sft["lm_loss"]},
            ),
            CurvePanel(
                title="Flow-matching loss",
                explanation="Mean squared velocity error of the decoder that closed-loop evaluation uses.",
                curves={"velocity error": sft["flow_loss"]},
            ),
        ],
        "World model": [
            CurvePanel(
                title="Encoder and predictor together",
                explanation="Distance to the moving-average target's latents, and the pixel error that prevents their collapse.",
                curves={
                    "next-frame latents": encoder["prediction_loss"],
                    "pixel reconstruction": encoder["reconstruction_loss"],
                },
            ),
            CurvePanel(
                title="Collapse metric",
                explanation="Standard deviation of latents across frames: at 0 all frames would look the same to the model.",
                curves={"latent std": encoder["latent_std"]},
            ),
            CurvePanel(
                title="Predictor on the frozen encoder",
                explanation="Mean absolute latent error one step ahead of true frames, and over frames imagined from imagined ones.",
                curves={
                    "teacher forcing": predictor["teacher_forcing_loss"],
                    "autoregressive": predictor["autoregressive_loss"],
                },
            ),
        ],
        "Flow DPO": [
            CurvePanel(
                title="Accuracy",
                explanation="How often the chosen chunk gained more likelihood than the rejected; 0.5 is chance.",
                curves={"accuracy": dpo["rewards/accuracies"]},
                reference=("chance", 0.5),
            ),
            CurvePanel(
                title="Margin",
                explanation="Implicit reward of chosen minus rejected; also grows when the policy collapses.",
                curves={"margin": dpo["rewards/margins"]},
            ),
            CurvePanel(
                title="Flow errors",
                explanation="If both policy curves rise far above the reference, the policy forgets (collapse).",
                curves={
                    "chosen": dpo["flow_error/chosen"],
                    "rejected": dpo["flow_error/rejected"],
                    "reference, chosen": dpo["flow_error/reference_chosen"],
                    "reference, rejected": dpo["flow_error/reference_rejected"],
                },
            ),
        ],
    }


def _rewards(output: Path) -> dict[str, np.ndarray]:
    preferences = load_preferences(output / "preferences").select_columns(["rewards", "reward"])
    columns = preferences.to_dict()
    names = {"world_model": "world model, end goal", "ground_truth": "distance to the demonstration"}
    rewards = {label: np.array([row[name] for row in columns["rewards"]]) for name, label in names.items()}
    return rewards | {"combination": np.array(columns["reward"])}


def _examples(output: Path, config: QuickstartConfig, spec: EnvironmentSpec) -> list[PreferenceExample]:
    """Pairs from all over the dataset, one from each equal part of it."""
    dataset = open_demonstrations(output, config)
    _, processor = load_policy(output / POLICY_FOLDERS["sft"])
    preferences = load_preferences(output / "preferences")
    spread = np.linspace(0, len(preferences) - 1, min(NUM_EXAMPLES, len(preferences))).astype(int)
    preferences = preferences.select(spread)
    examples = []
    for row, state in zip(preferences, demonstrated_states(dataset, preferences), strict=True):
        drawing = {}
        if spec.hand_projection is not None:
            hand = dataset[state]["state"][:3]
            drawing["origin"] = tuple(spec.hand_projection.on_picture(hand))
            drawing["action_axes"] = spec.hand_projection.action_axes(hand)
        candidates = np.asarray(row["candidates"])
        sides = np.array([row["chosen"], row["rejected"]])
        chosen, rejected = candidate_numbers(np.stack([candidates, candidates]), sides)
        examples.append(
            PreferenceExample(
                image=np.asarray(row["images"][0].convert("RGB")),
                instruction=row["instruction"],
                chosen=processor.unnormalize_actions(candidates[chosen], config.environment),
                rejected=processor.unnormalize_actions(candidates[rejected], config.environment),
                demonstrated=processor.unnormalize_actions(np.asarray(row["actions"]), config.environment),
                rewards={name: (values[chosen], values[rejected]) for name, values in row["rewards"].items()},
                **drawing,
            )
        )
    return examples


def _rollouts(output: Path, arm: str, episodes: list[dict[str, Any]]) -> list[Rollout]:
    with np.load(rollouts_file(output, arm)) as recorded:
        return [Rollout(arm=arm, frames=frames, **episodes[int(position)]) for position, frames in recorded.items()]


__all__ = ["collect_report", "run_conventions"]
