# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Training of a small world model's encoder from scratch, where no pretrained V-JEPA 2 encoder is at hand.

Encoder and predictor are trained together on two terms: the predictor must hit the next frame's latents as an
exponential moving average of the encoder makes them, and a linear layer must recover each patch's pixels from its
latent. The first makes latents predictable from actions, but alone it is minimised by a constant; the second cannot be
minimised by a constant. The linear layer is thrown away.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from ...clips.episode_clips import EpisodeClips
from ...vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor, normalize_latents
from ..argument_checks import check_arguments, check_dataset, check_model, check_training, refuse_options
from ..continued_run import ContinuedRunMixin
from ..ema import EmaCallback
from ..mean_metrics import MeanMetricsMixin
from ..saved_arguments import NoPickledArgumentsMixin
from .encoder_pretraining_config import EncoderPretrainingConfig
from .world_model_metrics import latent_statistics


class PretrainedWorldModel(nn.Module):
    """A world model together with the linear pixel decoder that is needed while its encoder is trained."""

    def __init__(self, world_model: VJEPA2ACModel):
        super().__init__()
        encoder = world_model.config.encoder_config
        self.world_model = world_model
        self.pixel_decoder = nn.Linear(encoder.hidden_size, encoder.in_chans * encoder.patch_size**2)

    def forward(
        self, pixel_values: torch.Tensor, actions: torch.Tensor, states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(B, T, 3, size, size)`), actions (`(B, T - 1, A)`): Clips.
            states (`torch.Tensor` of shape `(B, T, S)`, *optional*): Poses, in the metric convention.

        Returns:
            Latents `(B, T, P, D)`, layer-normed predictions of frames 1 ... T - 1 `(B, T - 1, P, D)`, and the mean
            squared pixel error of the reconstruction, in normalised pixels.
        """
        latents = self.world_model.encode(pixel_values)
        past_states = None if states is None else states[:, :-1]
        predictions = normalize_latents(self.world_model(latents[:, :-1], actions, past_states).predicted_latents)
        size = self.world_model.config.encoder_config.patch_size
        patches = pixel_values.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        # (B, T, 3, rows, size, columns, size) -> one vector of pixels per patch, row-major as the encoder's
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
        return latents, predictions, nn.functional.mse_loss(self.pixel_decoder(latents), patches)


class EncoderPretrainingTrainer(ContinuedRunMixin, MeanMetricsMixin, NoPickledArgumentsMixin, Trainer):
    r"""
    Trains the encoder of a small [`VJEPA2ACModel`] from scratch, and its predictor along the way.

    Logs, each the mean over all processes since the last log, `prediction_loss` (mean absolute difference from the target
    encoder's latents), `reconstruction_loss` (normalised pixels) and the collapse metrics `latent_std` and `latent_rank`
    of the batch of a process ([`latent_statistics`]). When training ends, encoder and predictor hold their moving averages.

    Args:
        model ([`VJEPA2ACModel`]): Float32 weights, trained in place; bf16 compute through `args.bf16`.
        args ([`EncoderPretrainingConfig`]): The arguments.
        train_dataset ([`EpisodeClips`]): Clips of frames (not of latents).
        eval_dataset ([`EpisodeClips`], *optional*): Held-out clips of frames.
        processing_class ([`VJEPA2ACProcessor`]): Makes pixel values of frames.
        callbacks, optimizers: As in [`~transformers.Trainer`].
        kwargs: Other arguments of [`~transformers.Trainer`].

    Raises:
        TypeError: `model`, `args` or a dataset of another type.
        ValueError: An argument of `Trainer` that has no meaning here, clips of latents, or what [`~nora15_hf.trainers.argument_checks.check_training`] refuses.
    """

    args: EncoderPretrainingConfig

    def __init__(
        self,
        model: VJEPA2ACModel,
        args: EncoderPretrainingConfig,
        *,
        train_dataset: EpisodeClips,
        eval_dataset: EpisodeClips | None = None,
        processing_class: VJEPA2ACProcessor,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        **kwargs,
    ):
        refuse_options(kwargs)
        check_arguments(args, EncoderPretrainingConfig)
        check_model(model, VJEPA2ACModel)
        check_dataset("train_dataset", train_dataset, EpisodeClips)
        if eval_dataset is not None:
            check_dataset("eval_dataset", eval_dataset, EpisodeClips)
            train_dataset.conventions.check_same_clips(eval_dataset.conventions)
        for name, clips in {"train_dataset": train_dataset, "eval_dataset": eval_dataset}.items():
            if clips is not None and clips.has_latents:
                raise ValueError(f"{name} holds latents; training an encoder needs the clips with their frames.")
        model.encoder.requires_grad_(True)
        # Not passed on as `processing_class`: transformers' Trainer expects a tokenizer inside every processor.
        self.processor = processing_class
        super().__init__(
            model=PretrainedWorldModel(model),
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
            **kwargs,
        )
        check_training(self)
        self.target = EmaCallback(args.ema_decay, self)
        self.add_callback(self.target)

    def data_fingerprint(self) -> str:
        """See [`EpisodeClips.fingerprint`]."""
        return self.train_dataset.fingerprint()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Prediction error against the target encoder's latents plus the weighted reconstruction error."""
        pixel_values = self.processor(inputs["frames"])["pixel_values"]
        latents, predictions, reconstruction_loss = model(pixel_values, inputs["actions"], inputs.get("states"))
        target_loss = (predictions - self.target_latents(pixel_values[:, 1:])).abs().mean()
        if model.training:
            losses = {"prediction_loss": target_loss, "reconstruction_loss": reconstruction_loss}
            self._record(losses | latent_statistics(latents.detach().flatten(0, 1)))
        loss = target_loss + self.args.reconstruction_weight * reconstruction_loss
        return (loss, latents) if return_outputs else loss

    def evaluate(self, eval_dataset: EpisodeClips | None = None, *args, **kwargs) -> dict[str, float]:
        """As in `Trainer`."""
        check_dataset("eval_dataset", self.eval_dataset if eval_dataset is None else eval_dataset, EpisodeClips)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The loss alone, as against the target encoder's latents in training."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss, None, None

    @torch.no_grad()
    def target_latents(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Latents `(B, T, P, D)` as the moving average of the encoder makes them."""
        prefix = "world_model.encoder."
        weights = {
            name.removeprefix(prefix): value for name, value in self.target.average.items() if name.startswith(prefix)
        }
        encoder = self.model.world_model.encoder
        frames = pixel_values.flatten(0, 1)[:, None]
        hidden = torch.func.functional_call(encoder, weights, (frames,)).last_hidden_state
        return normalize_latents(hidden).unflatten(0, pixel_values.shape[:2])

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in `Trainer`; the moving average is written first, so that a checkpoint is never without it."""
        if output_dir is not None and self.is_in_train:
            self.target.save(Path(output_dir), self.is_world_process_zero())
        super().save_model(output_dir, _internal_call)


__all__ = ["EncoderPretrainingTrainer", "PretrainedWorldModel"]
