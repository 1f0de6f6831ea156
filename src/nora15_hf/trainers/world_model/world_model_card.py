# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The facts of a world model's card that its training run gives."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id

from ...cards.card_info import NOT_STATED, WorldModelCardInfo
from ...cards.card_settings import Setting
from ...cards.policy_card import ACTION_CONVENTIONS, stated
from ...clips.episode_clips import EpisodeClips
from ...data.feature_names import feature_names
from ...vjepa2_ac import VJEPA2ACModel
from ..training_card import known
from .world_model_training_config import WorldModelTrainingConfig

# By the names of `world_model_metrics`.
_MEASURES = {
    "latent_std": "standard deviation of the latents across frames",
    "latent_rank": "effective rank of the latents",
    "energy_demonstrated": "distance to the true latent after the demonstrated chunk",
    "energy_other_chunk": "distance after another frame's chunk",
    "energy": "distance after",
    "energy_still": "distance of the frame before the chunk",
    "beats_other_chunk": "demonstrated chunk comes closer than another frame's",
    "beats": "demonstrated chunk comes closer than",
    "noise_monotone": "mean distance grows with every noise level",
}


def world_model_card_info(
    model: VJEPA2ACModel,
    args: WorldModelTrainingConfig,
    clips: EpisodeClips,
    metrics: Mapping[str, float],
    steps: int,
    **facts: Any,
) -> WorldModelCardInfo:
    """
    Args:
        model ([`VJEPA2ACModel`]), args ([`WorldModelTrainingConfig`]), clips ([`EpisodeClips`]): Of the run.
        metrics (`Mapping[str, float]`): Of the last evaluation; empty before one.
        steps (`int`): Optimiser steps done.
        facts: Other fields of [`WorldModelCardInfo`], `repo_id` and `name` among them.
    """
    conventions, dataset = clips.conventions, clips.dataset
    told: dict[str, Any] = {
        "num_parameters": model.num_parameters(),
        "image_size": model.config.encoder_config.crop_size,
        "action_dim": model.config.action_dim,
        "horizon": args.sensitivity_horizon,
        "encoder": "frozen in this training",
        "frame_step": f"one frame, 1/{dataset.fps:g} s",
        "action_space": known("the names of the action dimensions", lambda: _action_space(clips), NOT_STATED),
        "action_scale": conventions.action_scale,
        "state_input": conventions.state_input,
        "pose_dim": model.config.state_dim if conventions.action_convention == "metric" else None,
        "training": {
            "dataset": conventions.dataset,
            "dataset fingerprint": conventions.dataset_fingerprint,
            "camera": conventions.image_key,
            "episodes": clips.num_episodes,
            "frames per clip": clips.num_frames,
            "autoregressive steps": args.auto_steps,
            "loss exponent": args.loss_exponent,
            "optimiser steps": steps,
            "clips per step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "learning rate": args.learning_rate,
            "schedule": str(args.lr_scheduler_type.value),
            "weight decay": args.weight_decay,
            "precision": "bfloat16 compute, float32 weights" if args.bf16 else "float32",
            "seed": args.seed,
        },
        "metrics": held_out_measures(metrics),
        "datasets": (conventions.dataset,) if _is_repo_id(conventions.dataset) else (),
    }
    return WorldModelCardInfo(**(told | facts))


def _action_space(clips: EpisodeClips) -> str:
    source, key = clips.conventions.action_source, clips.conventions.action_key
    if key is None:
        return source
    names = feature_names(clips.dataset.info["features"][key]) or []
    meaning = stated([key], {key: clips.dataset.conventions}, ACTION_CONVENTIONS)
    details = [", ".join(names), "" if meaning == NOT_STATED else meaning]
    return ": ".join([source, *filter(None, details)])


def held_out_measures(metrics: Mapping[str, float]) -> dict[str, Setting]:
    """
    Of an evaluation's figures those that a card shows, under names that tell what they are.

    Args:
        metrics (`Mapping[str, float]`): What the trainer's `evaluate` returns, with or without its prefix `eval_`.
    """
    found = {key.removeprefix("eval_"): value for key, value in metrics.items()}
    return {
        _measure_name(key): _measure_value(key, value)
        for key, value in found.items()
        if not key.endswith(("runtime", "_per_second", "epoch"))
    }


def _measure_name(key: str) -> str:
    kind, _, noise = key.partition("_noise_")
    if noise:
        return f"{_MEASURES[kind]} that chunk with noise of {noise}"
    return _MEASURES.get(key, key.replace("_", " "))


def _measure_value(key: str, value: float) -> Setting:
    if key == "noise_monotone":
        return bool(value)
    return f"{value:.1%}" if key.startswith("beats_") else round(value, 4)


def _is_repo_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


__all__ = ["held_out_measures", "world_model_card_info"]
