# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Training of a small world model's encoder from scratch, where no pretrained V-JEPA 2 encoder is at hand.

Encoder and predictor are trained together on two terms: the predictor must hit the next frame's latents as an
exponential moving average of the encoder makes them, and a linear layer must recover each patch's pixels from its
latent. The first makes latents predictable from actions, but alone it is minimised by a constant; the second cannot be
minimised by a constant. The linear layer is thrown away.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from ...clips.episode_clips import EpisodeClips
from ...vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor, normalize_latents
from ..ema import EmaCallback
from ..hub_token import refuse_hub_token
from .world_model_metrics import latent_statistics


@dataclass
class EncoderPretrainingConfig(TrainingArguments):
    r"""
    Arguments of [`EncoderPretrainingTrainer`]: transformers' `TrainingArguments` and the following.

    Args:
        reconstruction_weight (`float`, *optional*, defaults to 1.0):
            Weight of the pixel error; positive, because it is what prevents collapse.
        ema_decay (`float`, *optional*, defaults to 0.99):
            Decay of the target encoder, which also is what remains at the end.
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Beta2 of AdamW."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Clips hold frames and actions, which are no argument names: keep False."}
    )
    reconstruction_weight: float = field(default=1.0, metadata={"help": "Weight of the pixel error."})
    ema_decay: float = field(default=0.99, metadata={"help": "Decay of the target encoder."})

    def __post_init__(self):
        super().__post_init__()
        refuse_hub_token(self)
        if self.reconstruction_weight <= 0:
            raise ValueError(
                f"reconstruction_weight={self.reconstruction_weight} must be positive: without the pixel error the "
                "encoder may collapse to a constant."
            )


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
        predictions = normalize_latents(self.world_model(latents[:, :-1], actions, past_states))
        size = self.world_model.config.encoder_config.patch_size
        patches = pixel_values.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        # (B, T, 3, rows, size, columns, size) -> one vector of pixels per patch, row-major as the encoder's
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
        return latents, predictions, nn.functional.mse_loss(self.pixel_decoder(latents), patches)


class EncoderPretrainingTrainer(Trainer):
    r"""
    Trains the encoder of a small [`VJEPA2ACModel`] from scratch, and its predictor along the way.

    Logs, each the mean since the last log, `prediction_loss` (mean absolute difference from the target encoder's
    latents), `reconstruction_loss` (normalised pixels) and the collapse metrics `latent_std` and `latent_rank` of the
    batch ([`latent_statistics`]). When training ends, encoder and predictor hold their moving averages.

    Args:
        model ([`VJEPA2ACModel`]): Trained in place.
        args ([`EncoderPretrainingConfig`]): The arguments.
        train_dataset ([`EpisodeClips`]): Clips of frames (not of latents).
        processor ([`VJEPA2ACProcessor`]): Makes pixel values of frames.
        kwargs: As for `Trainer`.
    """

    args: EncoderPretrainingConfig

    def __init__(
        self,
        model: VJEPA2ACModel,
        args: EncoderPretrainingConfig,
        train_dataset: EpisodeClips,
        processor: VJEPA2ACProcessor,
        **kwargs,
    ):
        if train_dataset.has_latents:
            raise ValueError("train_dataset holds latents; training an encoder needs the clips with their frames.")
        model.encoder.requires_grad_(True)
        # Not passed on as `processing_class`: transformers' Trainer expects a tokenizer inside every processor.
        self.processor = processor
        super().__init__(model=PretrainedWorldModel(model), args=args, train_dataset=train_dataset, **kwargs)
        self.target = EmaCallback(args.ema_decay)
        self.add_callback(self.target)
        self._logged: dict[str, list[float]] = defaultdict(list)

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
            self._logged["prediction_loss"].append(target_loss.item())
            self._logged["reconstruction_loss"].append(reconstruction_loss.item())
            for name, value in latent_statistics(latents.detach().flatten(0, 1)).items():
                self._logged[name].append(value)
        loss = target_loss + self.args.reconstruction_weight * reconstruction_loss
        return (loss, latents) if return_outputs else loss

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

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the losses and collapse metrics collected since the last call."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._logged.items()}
            self._logged.clear()
        super().log(logs, *args, **kwargs)


__all__ = ["EncoderPretrainingConfig", "EncoderPretrainingTrainer", "PretrainedWorldModel"]
