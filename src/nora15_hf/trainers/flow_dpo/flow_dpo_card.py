# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a policy that flow DPO wrote, and the curves it shows."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from matplotlib.figure import Figure
from transformers import ProcessorMixin, TrainingArguments

from ...cards.card_info import NOT_STATED, PolicyCardInfo
from ...cards.policy_card import policy_card_info
from ...nora15.modeling_nora15 import Nora15ForActionPrediction
from ...preferences.preference_record import PreferenceInfo
from ..training_card import known, origin, training_settings

CURVES_FILE = "preference_curves.png"
_SETTINGS = (
    "objective", "loss_type", "beta", "fast_beta", "fast_weight", "label_smoothing", "sft_weight", "proximal_weight",
    "proximal_bound", "num_draws", "reduction", "shared_draws", "antithetic_noise", "freeze_backbone",
    "precompute_ref_log_probs", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta2",
    "max_grad_norm", "optim", "bf16", "gradient_checkpointing", "seed",
)  # fmt: skip
_COLOURS = {"chosen": "#1a9367", "rejected": "#d97f00", "tokens": "#2f81d6"}
_LABELS = {
    "loss": "training",
    "eval_loss": "held out",
    "rewards": "flow",
    "token_rewards": "FAST tokens",
    "eval_rewards": "held out",
}
# Panel titles with the curves of each; those that a run did not log are left out.
_PANELS = {
    "loss": ("loss", "eval_loss"),
    "margin": ("rewards/margins", "token_rewards/margins", "eval_rewards/margins"),
    "accuracy": ("rewards/accuracies", "token_rewards/accuracies", "eval_rewards/accuracies"),
    "velocity error": tuple(
        f"flow_error/{name}" for name in ("chosen", "reference_chosen", "rejected", "reference_rejected")
    ),
    "token error": tuple(
        f"token_error/{name}" for name in ("chosen", "reference_chosen", "rejected", "reference_rejected")
    ),
}


def plot_preference_curves(log_history: Sequence[dict[str, float]], file: str | Path) -> Path | None:
    """
    Draws loss, margin, accuracy and the errors of chosen and rejected, each against the training step.

    Args:
        log_history (`Sequence[dict[str, float]]`): `trainer.state.log_history`.
        file (`str` or `Path`): where to.

    Returns:
        `Path`, or `None` when nothing has been logged yet.
    """
    curves = {
        title: {name: points for name in names if (points := _points(log_history, name))}
        for title, names in _PANELS.items()
    }
    curves = {title: panel for title, panel in curves.items() if panel}
    if not curves:
        return None
    width = 3.4 * len(curves)
    figure = Figure(figsize=(width, 2.9))
    # Room for the ticks, in inches: a layout that looks for it draws everything twice.
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.15 / width, bottom=0.17, top=0.9, wspace=0.3)
    for (title, panel), axis in zip(curves.items(), figure.subplots(1, len(curves), squeeze=False)[0], strict=True):
        for name, points in panel.items():
            group, _, side = name.partition("/")
            is_error = group.endswith("error")
            colour = _COLOURS["rejected" if is_error and side.endswith("rejected") else "chosen"]
            style = "--" if side.startswith("reference") or group.startswith("eval_") else "-"
            axis.plot(
                *zip(*points, strict=True),
                style,
                color=_COLOURS["tokens"] if group == "token_rewards" else colour,
                linewidth=1.2,
                label=side.replace("_", " ") if is_error else _LABELS[group],
            )
        axis.set_title(title, fontsize="medium", loc="left")
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if len(panel) > 1:
            axis.legend(frameon=False, fontsize="x-small")
    figure.savefig(file, dpi=90, metadata={"Software": None})
    return Path(file)


def _points(log_history: Sequence[dict[str, float]], name: str) -> list[tuple[int, float]]:
    return [(log["step"], log[name]) for log in log_history if name in log]


def flow_dpo_card_info(
    policy: Nora15ForActionPrediction,
    processor: ProcessorMixin,
    args: TrainingArguments,
    *,
    steps: int,
    rows: Dataset,
    preferences: PreferenceInfo | None,
    **facts: Any,
) -> PolicyCardInfo:
    """
    What a run of flow DPO knows about its policy.

    Args:
        policy ([`Nora15ForActionPrediction`]), processor ([`Nora15Processor`]), args ([`FlowDPOConfig`]): of the run.
        steps (`int`): optimiser steps done.
        rows ([`~datasets.Dataset`]): preferences that were trained on.
        preferences ([`PreferenceInfo`], *optional*): how they came about; `None` where it is not known.
        facts: other fields of [`PolicyCardInfo`], `repo_id` among them.
    """
    told = known("how the preferences came about", lambda: preference_facts(rows, preferences), {})
    weights = {}
    if preferences is not None:
        weights = known("the rewards", lambda: preferences.record.settings.reward_weights, {})
    return policy_card_info(
        policy.config,
        processor,
        stage="dpo",
        num_parameters=policy.num_parameters(),
        scheduler=type(policy.scheduler).__name__,
        training=training_settings(args, _SETTINGS, steps) | {"pairs": len(rows)} | told,
        rewards=weights,
        **(origin(policy.config.name_or_path) | facts),
    )


def preference_facts(rows: Dataset, preferences: PreferenceInfo | None) -> dict[str, Any]:
    """
    Rows of the card's table that tell how preferences came about: from their record, else what the rows show.

    Args:
        rows ([`~datasets.Dataset`]): What was trained on.
        preferences ([`PreferenceInfo`], *optional*): Of the rows as the trainer got them.
    """
    if preferences is None:
        shown = {"preferences": "from several sets, or without a record of how they were made"}
        if "rewards" in rows.features:
            shown["preferences: rewards"] = ", ".join(rows.features["rewards"])
        return shown | {"preferences: dataset keys": ", ".join(sorted(rows.unique("dataset_key")))}
    settings = vars(preferences.record.settings)
    told = {
        f"preferences: {key.replace('_', ' ')}": settings[key]
        for key in ("policy", "policy_fingerprint", "sampler", "num_candidates", "pairing", "min_margin")
    }
    told["preferences: demonstrations"] = preferences.record.provenance.get("demonstrations", NOT_STATED)
    told["preferences: counts"] = asdict(preferences.record.counts)
    told["preferences: standardised rewards"] = settings["reward"]["standardize"]
    if preferences.sampled_by_policy is not None:
        told["candidates are the starting policy's own"] = preferences.sampled_by_policy
    return told


__all__ = ["CURVES_FILE", "flow_dpo_card_info", "plot_preference_curves"]
