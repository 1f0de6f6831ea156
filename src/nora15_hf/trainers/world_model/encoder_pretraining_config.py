# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the encoder pre-training trainer."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..argument_checks import refuse_hub_token, refuse_settings

# Options that the losses of world models would not look at, with their only value.
FIXED = {
    "label_smoothing_factor": (0.0, "latents are compared, not classes"),
    "neftune_noise_alpha": (None, "there are no embeddings of tokens to put noise on"),
    "remove_unused_columns": (False, "clips hold frames and actions, which are no argument names"),
    "use_liger_kernel": (False, "it replaces the forward of a language model, which is not what is trained here"),
}


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
        refuse_settings(self, FIXED)
        if self.push_to_hub:
            raise ValueError(
                "push_to_hub=True does not apply: this training saves its own state, which is not a loadable model. Call "
                "save_pretrained of the world model afterwards, and push that folder with `nora15 push`."
            )
        if self.reconstruction_weight <= 0:
            raise ValueError(
                f"reconstruction_weight={self.reconstruction_weight} must be positive: without the pixel error the "
                "encoder may collapse to a constant."
            )


__all__ = ["FIXED", "EncoderPretrainingConfig"]
