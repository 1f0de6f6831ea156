# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Training of the world model's predictor on transformers' Trainer."""

from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from ...cards.card_info import WorldModelCardInfo
from ...clips.clip_conventions import ClipConventions
from ...clips.episode_clips import EpisodeClips
from ...runtime.shared_work import ProcessPlace
from ...vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from ..argument_checks import check_arguments, check_dataset, check_model, check_training, refuse_options
from ..complete_push import CompletePushCallback
from ..continued_run import ContinuedRunMixin
from ..mean_metrics import MeanMetricsMixin
from ..saved_arguments import NoPickledArgumentsMixin
from ..training_card import TrainingCardMixin, card_names
from .latent_cache import LatentCache, cache_settings
from .world_model_card import world_model_card_info
from .world_model_metrics import action_sensitivity, latent_statistics, latent_std
from .world_model_training_config import WorldModelTrainingConfig

# The Trainer's uploads leave out what begins with an underscore.
LATENTS_FOLDER = "_latents"


class WorldModelTrainer(ContinuedRunMixin, TrainingCardMixin, MeanMetricsMixin, NoPickledArgumentsMixin, Trainer):
    r"""
    Trains the predictor of a [`VJEPA2ACModel`] on clips; the encoder is frozen.

    Besides the Trainer's own metrics it logs, each the mean over all processes since the last log:

    | key | meaning |
    |---|---|
    | `teacher_forcing_loss`, `autoregressive_loss` | the two terms of the loss |
    | `latent_std`, `predicted_latent_std` | standard deviation across the frames of a batch, of the truth and of the predictions: predictions that collapse fall below the truth |

    `evaluate` adds `latent_std`, `latent_rank` ([`latent_statistics`]) and the action sensitivity of the held-out
    episodes ([`ActionSensitivity.metrics`]), all with `eval_` in front.

    Args:
        model ([`VJEPA2ACModel`]): Float32 weights; bf16 compute through `args.bf16`.
        args ([`WorldModelTrainingConfig`]): The arguments.
        train_dataset ([`EpisodeClips`]): Training episodes.
        eval_dataset ([`EpisodeClips`], *optional*): Held-out episodes.
        processing_class ([`VJEPA2ACProcessor`]): Makes pixel values of frames; saved with the model.
        callbacks, optimizers: As in [`~transformers.Trainer`].
        kwargs: Other arguments of [`~transformers.Trainer`].

    Raises:
        TypeError: `model`, `args` or a dataset of another type.
        ValueError: An argument of `Trainer` that has no meaning here, clips that do not fit the model, those that it was trained on, or the arguments, cached latents of another encoder or dataset, or what
            [`~nora15_hf.trainers.argument_checks.check_training`] refuses.
    """

    args: WorldModelTrainingConfig

    def __init__(
        self,
        model: VJEPA2ACModel,
        args: WorldModelTrainingConfig,
        *,
        train_dataset: EpisodeClips,
        eval_dataset: EpisodeClips | None = None,
        processing_class: VJEPA2ACProcessor,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        **kwargs,
    ):
        refuse_options(kwargs)
        check_arguments(args, WorldModelTrainingConfig)
        check_model(model, VJEPA2ACModel)
        check_dataset("train_dataset", train_dataset, EpisodeClips)
        if eval_dataset is not None:
            check_dataset("eval_dataset", eval_dataset, EpisodeClips)
            train_dataset.conventions.check_same_clips(eval_dataset.conventions)
        if args.auto_steps >= train_dataset.num_frames:
            raise ValueError(
                f"auto_steps={args.auto_steps} needs clips of more frames than that, but train_dataset has "
                f"num_frames={train_dataset.num_frames}."
            )
        found = train_dataset.actions.shape[-1]
        if found != model.config.action_dim:
            raise ValueError(
                f"train_dataset has actions of {found} dimensions, the model's config.action_dim is "
                f"{model.config.action_dim}."
            )
        conventions = train_dataset.conventions
        if conventions.action_convention != model.config.action_convention:
            raise ValueError(
                f"train_dataset's actions are {conventions.action_convention}, the model's config.action_convention is "
                f"{model.config.action_convention!r}. Make the clips with ClipConventions.metric for a metric model and "
                "with of_dataset or of_policy for one of normalised actions."
            )
        if (known := ClipConventions.of_model(model)) is not None:
            known.check_same_clips(conventions, names=("the model's own", "the new"))
        model.encoder.requires_grad_(False)
        # Not passed on as `processing_class`: transformers' Trainer expects a tokenizer inside every processor.
        self.processor = processing_class
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
            **kwargs,
        )
        check_training(self)
        self.add_callback(CompletePushCallback(self, self._write_files))
        if args.precompute_latents:
            self.train_dataset = self._with_cached_latents(train_dataset)
            self.eval_dataset = None if eval_dataset is None else self._with_cached_latents(eval_dataset)
        self._eval_metrics: dict[str, float] = {}

    def data_fingerprint(self) -> str:
        """See [`EpisodeClips.fingerprint`]."""
        return self.train_dataset.fingerprint()

    def _with_cached_latents(self, clips: EpisodeClips) -> EpisodeClips:
        """Encodes what is not cached yet, all processes together, and reads latents instead of frames from then on."""
        args = self.args
        folder = args.latent_cache_dir or Path(args.output_dir) / LATENTS_FOLDER
        settings = cache_settings(
            clips, self.model, self.processor, args.latent_dtype, self.accelerator.mixed_precision
        )
        with args.main_process_first(desc="opening the latent cache"):
            cache = LatentCache(folder, settings)
        cache.build(
            clips,
            self.encode_frames,
            place=ProcessPlace(args.process_index, args.world_size),
            num_workers=args.dataloader_num_workers,
            device=args.device,
        )
        self.accelerator.wait_for_everyone()
        return cache.read(clips)

    @torch.no_grad()
    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Latents `(F, P, D)`, float32 on the CPU, of uint8 frames `(F, height, width, 3)`."""
        return torch.cat([self._encode(batch)[0].cpu() for batch in frames.split(self.args.encode_batch_size)])

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        with self.accelerator.autocast():
            return self.model.encode(self.processor(frames.to(self.args.device, non_blocking=True))["pixel_values"])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of the two losses of [`VJEPA2ACModel.clip_losses`]."""
        inputs = dict(inputs)
        if "frames" in inputs:
            with torch.no_grad():
                inputs["latents"] = self._encode(inputs.pop("frames"))
        losses = model(**inputs, auto_steps=self.args.auto_steps, loss_exponent=self.args.loss_exponent)
        parts = {
            "teacher_forcing_loss": losses.teacher_forcing_loss.detach(),
            "autoregressive_loss": losses.autoregressive_loss.detach(),
        }
        if model.training:
            parts["latent_std"] = latent_std(inputs["latents"][:, 1:].flatten(0, 1))
            parts["predicted_latent_std"] = latent_std(losses.teacher_forced_latents.detach().flatten(0, 1))
            self._record(parts)
        return (losses.loss, parts) if return_outputs else losses.loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The loss alone: predictions of latents are too large to gather."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss, None, None

    def evaluate(self, eval_dataset: EpisodeClips | None = None, ignore_keys=None, metric_key_prefix: str = "eval"):
        """Losses of the held-out clips, then the collapse and action-sensitivity metrics of their episodes."""
        clips = self.eval_dataset if eval_dataset is None else eval_dataset
        check_dataset("eval_dataset", clips, EpisodeClips)
        self.train_dataset.conventions.check_same_clips(clips.conventions)
        if not clips.has_latents and self.args.precompute_latents:
            clips = self._with_cached_latents(clips)
        metrics = super().evaluate(clips, ignore_keys, metric_key_prefix)
        if not clips.has_latents:
            clips = clips.encoded_on_demand(self.encode_frames)
        episodes = clips.latent_episodes()
        sensitivity = action_sensitivity(
            self.model.eval(),
            episodes,
            action_std=self.train_dataset.actions.std(0),
            horizon=self.args.sensitivity_horizon,
            num_cases=self.args.sensitivity_cases,
        )
        latents = torch.stack([episodes[episode].latents[frame] for episode, frame in sensitivity.starts])
        extra = {name: value.item() for name, value in latent_statistics(latents).items()} | sensitivity.metrics()
        extra = {f"{metric_key_prefix}_{name}": value for name, value in extra.items()}
        self.log(extra)
        self._eval_metrics = metrics | extra
        return self._eval_metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Saves model, processor, clip conventions and card: a folder that `AutoModel` and `AutoProcessor` load."""
        super()._save(output_dir, state_dict)
        # After the weights, and before `save_model` uploads the folder with `push_to_hub`.
        if self.args.should_save:
            self._write_files(Path(output_dir or self.args.output_dir))

    def _write_files(self, folder: Path) -> None:
        """The files that are stored next to the weights."""
        self.processor.save_pretrained(folder)
        self.train_dataset.conventions.save_pretrained(folder)
        self._write_card(folder)

    def _card_info(self, title: str | None) -> WorldModelCardInfo:
        names = card_names(self.args.output_dir, self.hub_model_id, title)
        return world_model_card_info(
            self.model,
            self.args,
            self.train_dataset,
            self._eval_metrics,
            self.state.global_step,
            **names,
            **self._told_facts,
        )


__all__ = ["LATENTS_FOLDER", "WorldModelTrainer"]
