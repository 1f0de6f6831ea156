# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Training of the world model's predictor on transformers' Trainer."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Trainer

from ..data.clips import EpisodeClips
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor, normalize_latents
from .world_model_config import WorldModelConfig
from .world_model_metrics import action_sensitivity, latent_statistics


@dataclass
class WorldModelLosses:
    """
    Losses of a batch of clips and the latents they compare.

    Args:
        teacher_forcing, autoregressive (`torch.Tensor`, scalars): The two terms; their sum is the loss.
        teacher_forced_latents (`torch.Tensor` of shape `(B, T - 1, P, D)`): Predictions of frames 1 ... T - 1.
        imagined_latents (`torch.Tensor` of shape `(B, auto_steps, P, D)`): Imagined frames 1 ... auto_steps.
    """

    teacher_forcing: torch.Tensor
    autoregressive: torch.Tensor
    teacher_forced_latents: torch.Tensor
    imagined_latents: torch.Tensor

    @property
    def loss(self) -> torch.Tensor:
        return self.teacher_forcing + self.autoregressive


def world_model_losses(
    model: VJEPA2ACModel,
    latents: torch.Tensor,
    actions: torch.Tensor,
    states: torch.Tensor | None = None,
    auto_steps: int = 2,
    loss_exponent: float = 1.0,
) -> WorldModelLosses:
    """
    Teacher-forcing and autoregressive loss on layer-normed latents (V-JEPA 2 paper, arXiv 2506.09985, Eq. 2-4; no
    gradient is stopped). The autoregressive pass starts from the teacher-forcing pass's keys and values of frame 0,
    which are the same numbers: one frame less to compute.

    Args:
        model ([`VJEPA2ACModel`]): The world model.
        latents (`torch.Tensor` of shape `(B, T, P, D)`): Layer-normed latents of clips.
        actions (`torch.Tensor` of shape `(B, T - 1, A)`): Actions between the frames.
        states (`torch.Tensor` of shape `(B, T, S)`, *optional*): Poses; zeros when absent.
        auto_steps (`int`, *optional*, defaults to 2): Frames that the autoregressive pass imagines, below T.
        loss_exponent (`float`, *optional*, defaults to 1.0): Exponent p of mean(|difference|^p) / p.

    Raises:
        ValueError: `auto_steps` of T or more; shapes that do not fit; missing states in the metric convention.
    """
    if not 1 <= auto_steps < latents.shape[1]:
        raise ValueError(
            f"`auto_steps`={auto_steps}, but clips of {latents.shape[1]} frames have {latents.shape[1] - 1} frames to "
            "imagine. Lower auto_steps or make longer clips."
        )
    past_states = None if states is None else states[:, :-1]
    past_states = model.check_inputs(latents[:, :-1], actions, past_states)
    predictor = model.predictor
    predictions, cache = predictor(latents[:, :-1], actions, past_states, return_cache=True)
    teacher_forced = normalize_latents(predictions)

    frame_tokens = model.config.num_condition_tokens + model.config.num_patches
    cache = [(keys[:, :, :frame_tokens], values[:, :, :frame_tokens]) for keys, values in cache]
    imagined = [teacher_forced[:, :1]]
    for step in range(1, auto_steps):
        now = slice(step, step + 1)
        prediction, cache = predictor(
            imagined[-1], actions[:, now], past_states[:, now], past=cache, return_cache=True
        )
        imagined.append(normalize_latents(prediction))
    imagined = torch.cat(imagined, dim=1)

    def distance(predicted: torch.Tensor) -> torch.Tensor:
        difference = predicted - latents[:, 1 : 1 + predicted.shape[1]]
        return difference.abs().pow(loss_exponent).mean() / loss_exponent

    return WorldModelLosses(distance(teacher_forced), distance(imagined), teacher_forced, imagined)


class WorldModelTrainer(Trainer):
    r"""
    Trains the predictor of a [`VJEPA2ACModel`] on clips; the encoder is frozen.

    Besides the Trainer's own metrics it logs, each the mean since the last log, `teacher_forcing_loss` and
    `autoregressive_loss`. `evaluate` adds `latent_std` and `latent_rank` (collapse, [`latent_statistics`]) and
    `beats_other_chunk`, `beats_noise_1`, `energy_*` ([`action_sensitivity`]) of the held-out episodes.

    Args:
        model ([`VJEPA2ACModel`]): Float32 weights; bf16 compute through `args.bf16`.
        args ([`WorldModelConfig`]): The arguments.
        train_dataset ([`EpisodeClips`]): Training episodes.
        processor ([`VJEPA2ACProcessor`]): Makes pixel values of frames; saved with the model.
        eval_dataset ([`EpisodeClips`], *optional*): Held-out episodes.
        kwargs: As for `Trainer`.
    """

    args: WorldModelConfig

    def __init__(
        self,
        model: VJEPA2ACModel,
        args: WorldModelConfig,
        train_dataset: EpisodeClips,
        processor: VJEPA2ACProcessor,
        eval_dataset: EpisodeClips | None = None,
        **kwargs,
    ):
        if args.auto_steps >= train_dataset.num_frames:
            raise ValueError(
                f"auto_steps={args.auto_steps} needs clips of more frames than that, but train_dataset has "
                f"num_frames={train_dataset.num_frames}."
            )
        found = train_dataset.actions[0].shape[-1]
        if found != model.config.action_dim:
            raise ValueError(
                f"train_dataset has actions of {found} dimensions, the model's config.action_dim is "
                f"{model.config.action_dim}."
            )
        coarse = sorted({str(p.dtype) for p in model.predictor.parameters() if p.dtype != torch.float32})
        if coarse:
            raise ValueError(
                f"The predictor's parameters are {', '.join(coarse)}: small updates would be rounded away. Load the "
                "model with dtype=torch.float32 and pass bf16=True to compute in bf16."
            )
        model.encoder.requires_grad_(False)
        # Not passed on as `processing_class`: transformers' Trainer expects a tokenizer inside every processor.
        self.processor = processor
        super().__init__(model=model, args=args, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs)
        if args.precompute_latents:
            self.train_dataset = train_dataset.encoded(self.encode_frames)
            self.eval_dataset = None if eval_dataset is None else eval_dataset.encoded(self.encode_frames)
        self._loss_parts: dict[str, list[torch.Tensor]] = defaultdict(list)

    @torch.no_grad()
    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Latents `(F, P, D)`, float32 on the CPU, of the uint8 frames `(F, height, width, 3)` of an episode."""
        latents = []
        for batch in frames.split(self.args.encode_batch_size):
            pixel_values = self.processor(batch.to(self.args.device))["pixel_values"]
            latents.append(self.model.encode(pixel_values)[0].cpu())
        return torch.cat(latents)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of the two losses of [`world_model_losses`]."""
        if "latents" in inputs:
            latents = inputs["latents"]
        else:
            with torch.no_grad():
                latents = self.model.encode(self.processor(inputs["frames"])["pixel_values"])
        losses = world_model_losses(
            self.model,
            latents,
            inputs["actions"],
            auto_steps=self.args.auto_steps,
            loss_exponent=self.args.loss_exponent,
        )
        parts = {"teacher_forcing_loss": losses.teacher_forcing, "autoregressive_loss": losses.autoregressive}
        if model.training:
            for name, value in parts.items():
                self._loss_parts[name].append(value.detach())
        return (losses.loss, parts) if return_outputs else losses.loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The loss alone: predictions of latents are too large to gather."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss, None, None

    def evaluate(self, eval_dataset: EpisodeClips | None = None, ignore_keys=None, metric_key_prefix: str = "eval"):
        """Losses of the held-out clips, then the collapse and action-sensitivity metrics of their episodes."""
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        clips = self.eval_dataset if eval_dataset is None else eval_dataset
        if clips.latents is None:
            clips = clips.encoded(self.encode_frames)
        extra = latent_statistics(torch.cat(clips.latents))
        extra |= action_sensitivity(
            self.model.eval(),
            list(zip(clips.latents, clips.actions, strict=True)),
            action_std=torch.cat(self.train_dataset.actions).std(0),
            horizon=self.args.sensitivity_horizon,
            num_cases=self.args.sensitivity_cases,
        )
        extra = {f"{metric_key_prefix}_{name}": value for name, value in extra.items()}
        self.log(extra)
        return metrics | extra

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves model and processor: a folder that `AutoModel` and `AutoProcessor` load."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.processor.save_pretrained(self.args.output_dir if output_dir is None else output_dir)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the loss parts collected since the last call."""
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._loss_parts.items()}
            self._loss_parts.clear()
        super().log(logs, *args, **kwargs)


__all__ = ["WorldModelLosses", "WorldModelTrainer", "world_model_losses"]
