# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the world-model trainer."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..argument_checks import refuse_hub_token, refuse_settings
from .encoder_pretraining_config import FIXED
from .latent_cache import LATENT_DTYPES


@dataclass
class WorldModelTrainingConfig(TrainingArguments):
    r"""
    Arguments of [`WorldModelTrainer`]: transformers' `TrainingArguments`, with the defaults of NORA-1.5's world-model
    training, and the following.

    The learning rate warms up and follows `lr_scheduler_type`: `"cosine"` (NORA-1.5), or `"warmup_stable_decay"` with
    `lr_scheduler_kwargs={"num_decay_steps": ...}` (V-JEPA 2-AC).

    Args:
        auto_steps (`int`, *optional*, defaults to 2):
            Frames that the autoregressive loss imagines, each from the ones imagined before.
        loss_exponent (`float`, *optional*, defaults to 1.0):
            Exponent p of the loss |difference|^p / p.
        precompute_latents (`bool`, *optional*, defaults to `True`):
            Encode every frame once before training and keep the latents on disk. The encoder is frozen in either case.
        latent_cache_dir (`str`, *optional*):
            Folder of these latents, which later runs with the same encoder and dataset share. `_latents` in
            `output_dir` by default.
        latent_dtype (`str`, *optional*, defaults to `"float32"`):
            `"bfloat16"` halves the folder; F frames take F * P * D * 4 bytes in float32.
        encode_batch_size (`int`, *optional*, defaults to 64):
            Frames per encoder pass.
        sensitivity_horizon (`int`, *optional*, defaults to 5):
            Actions per chunk in the action-sensitivity metrics; the policy's chunk size.
        sensitivity_cases (`int`, *optional*, defaults to 512):
            Held-out frames that the action-sensitivity metrics look at.
    """

    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Clips hold frames and actions, which are no argument names: keep False."}
    )
    auto_steps: int = field(default=2, metadata={"help": "Frames imagined in the autoregressive loss."})
    loss_exponent: float = field(default=1.0, metadata={"help": "Exponent of the loss."})
    precompute_latents: bool = field(default=True, metadata={"help": "Encode every frame once, before training."})
    latent_cache_dir: str | None = field(default=None, metadata={"help": "Folder of the encoded frames."})
    latent_dtype: str = field(
        default="float32", metadata={"help": "Precision of the encoded frames.", "choices": [*LATENT_DTYPES]}
    )
    encode_batch_size: int = field(default=64, metadata={"help": "Frames per encoder pass."})
    sensitivity_horizon: int = field(default=5, metadata={"help": "Actions per chunk in the sensitivity metrics."})
    sensitivity_cases: int = field(default=512, metadata={"help": "Held-out frames in the sensitivity metrics."})

    def __post_init__(self):
        super().__post_init__()
        refuse_hub_token(self)
        refuse_settings(self, FIXED)
        for name in ("auto_steps", "encode_batch_size", "sensitivity_horizon", "sensitivity_cases"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.loss_exponent < 1:
            raise ValueError(f"loss_exponent={self.loss_exponent} must be at least 1, or the loss has a cusp at zero.")
        if self.latent_dtype not in LATENT_DTYPES:
            raise ValueError(f"latent_dtype={self.latent_dtype!r} must be one of {', '.join(LATENT_DTYPES)}.")
        if not self.precompute_latents and self.latent_cache_dir is not None:
            raise ValueError(
                f"latent_cache_dir={self.latent_cache_dir!r} is not used with precompute_latents=False. Omit one of them."
            )


__all__ = ["WorldModelTrainingConfig"]
