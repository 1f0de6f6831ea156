# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a policy that flow DPO wrote, and the curves it shows."""

from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from matplotlib.figure import Figure
from peft import PeftModel

from ...cards.card_info import PolicyCardInfo
from ...cards.cards import write_policy_card
from ...preferences.preference_record import PreferenceInfo
from ...repo_files.fingerprint import artefact_name

if TYPE_CHECKING:
    from .flow_dpo_trainer import FlowDPOTrainer

CURVES_FILE = "preference_curves.png"
_NOT_STATED = "not stated; ask who recorded the data"
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
    figure = Figure(figsize=(3.4 * len(curves), 2.9), layout="constrained")
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


def write_flow_dpo_card(trainer: "FlowDPOTrainer", name: str) -> Path:
    """
    Writes `README.md` and the curves into the output folder of a run.

    The data and the rewards behind them are taken from the record of the preference dataset, where it is known, see
    [`~nora15_hf.preferences.PreferenceInfo`]; the meaning of the action dimensions from the processor's `conventions`.

    Args:
        trainer ([`FlowDPOTrainer`]): at any step.
        name (`str`): of the model.
    """
    folder = Path(trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    card = write_policy_card(folder, _card_info(trainer, name))
    if plot_preference_curves(trainer.state.log_history, folder / CURVES_FILE) is not None:
        text = card.read_text(encoding="utf-8")
        section = (
            "## Preference training curves\n\n"
            f"![Loss, margin, accuracy and errors against the training step]({CURVES_FILE})\n\n"
            "Accuracy and margin say that the policy tells chosen from rejected, not that it acts better. When both errors "
            "rise above the reference's (dashed), the policy is forgetting.\n\n"
        )
        heading = "## Intended use and limits"
        card.write_text(text.replace(heading, section + heading, 1), encoding="utf-8")
    return card


def _card_info(trainer: "FlowDPOTrainer", name: str) -> PolicyCardInfo:
    processor = trainer.processing_class
    model = trainer.accelerator.unwrap_model(trainer.model)
    policy = model.get_base_model() if isinstance(model, PeftModel) else model
    config = policy.config
    keys = tuple(processor.norm_stats)
    conventions = {field: value for key in keys for field, value in processor.conventions.get(key, {}).items()}
    known = trainer.preference_info
    base_model = artefact_name(config.name_or_path) if config.name_or_path else None
    repo_id = trainer.hub_model_id or name
    adapters = (
        f"This repo holds adapters for {base_model}: load both with "
        f"`nora15_hf.trainers.load_merged_policy(base, {repo_id!r})`, not as the snippet above does."
    )
    instruction = trainer.train_dataset[0]["instruction"]
    return PolicyCardInfo(
        repo_id=repo_id,
        name=name,
        stage="dpo",
        num_parameters=sum(parameter.numel() for parameter in policy.parameters()),
        image_size=processor.image_size,
        chunk_size=config.chunk_size,
        action_dim=config.action_dim,
        n_action_steps=config.chunk_size,
        action_space=str(conventions.get("action_space", conventions.get("action", _NOT_STATED))),
        gripper=str(conventions.get("gripper", _NOT_STATED)),
        normalization=f"{processor.normalization_mode} of the dataset, to [-1, 1]",
        state_dim=config.state_dim,
        statistics_keys=keys,
        decoder=f"flow matching, {type(policy.scheduler).__name__}, {config.num_inference_steps} steps",
        example_instruction=instruction,
        training=_training(trainer, known),
        base_model=base_model,
        rewards={} if known is None else known.record.settings.reward_weights,
        limits=(adapters,) if isinstance(model, PeftModel) else (),
    )


def _training(trainer: "FlowDPOTrainer", known: PreferenceInfo | None) -> dict[str, Any]:
    args = trainer.args
    values = {setting: vars(args)[setting] for setting in _SETTINGS}
    values = {
        setting: value.value if isinstance(value, Enum) else value
        for setting, value in values.items()
        if value not in (None, False, 0.0)
    }
    values["steps"] = trainer.state.global_step
    values["batch size"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    values["pairs"] = len(trainer.train_dataset)
    return values | preference_facts(trainer.train_dataset, known)


def preference_facts(rows: Dataset, known: PreferenceInfo | None) -> dict[str, Any]:
    """
    Rows of the card's table that tell how preferences came about: from their record, else what the rows show.

    Args:
        rows ([`~datasets.Dataset`]): What was trained on.
        known ([`PreferenceInfo`], *optional*): Of the rows as the trainer got them.
    """
    if known is None:
        shown = {"preferences": "from several sets, or without a record of how they were made"}
        if "rewards" in rows.features:
            shown["preferences: rewards"] = ", ".join(rows.features["rewards"])
        return shown | {"preferences: dataset keys": ", ".join(sorted(rows.unique("dataset_key")))}
    settings = vars(known.record.settings)
    told = {
        f"preferences: {key.replace('_', ' ')}": settings[key]
        for key in ("policy", "policy_fingerprint", "sampler", "num_candidates", "pairing", "min_margin")
    }
    told["preferences: demonstrations"] = known.record.provenance.get("demonstrations", _NOT_STATED)
    told["preferences: counts"] = asdict(known.record.counts)
    told["preferences: standardised rewards"] = settings["reward"]["standardize"]
    if known.sampled_by_policy is not None:
        told["candidates are the starting policy's own"] = known.sampled_by_policy
    return told


__all__ = ["CURVES_FILE", "plot_preference_curves", "write_flow_dpo_card"]
