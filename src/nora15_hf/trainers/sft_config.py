# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the supervised trainer."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

FREEZABLE = {"backbone": ("vlm",), "vision_tower": ("vlm.model.visual",), "expert": ("action_expert", "action_")}


@dataclass
class Nora15SFTConfig(TrainingArguments):
    r"""
    Arguments of [`Nora15SFTTrainer`]: transformers' `TrainingArguments` with the defaults of NORA-1.5's LeRobot trainer
    and the following.

    Args:
        objective (`str`, *optional*, defaults to `"joint"`):
            `"joint"`: FAST cross-entropy plus 10 x flow matching; `"flow"` or `"fast"`: one of the two. With `"flow"`
            make the collator with `action_tokens=False`, which saves the FAST tokens' share of the backbone pass.
        freeze (`list[str]`, *optional*, defaults to `[]`):
            Parts that are not trained: `"backbone"` (vision tower included), `"vision_tower"`, `"expert"`.
        ema_decay (`float`, *optional*):
            Decay of a moving average of the weights, which replaces them at the end of training.
    """

    learning_rate: float = field(default=8e-5, metadata={"help": "Peak learning rate of AdamW."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Beta2 of AdamW."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Datasets yield samples for the collator, not model inputs: keep False."}
    )
    objective: str = field(default="joint", metadata={"help": "joint, flow or fast."})
    freeze: list[str] = field(
        default_factory=list, metadata={"help": "Parts not to train: backbone, vision_tower, expert."}
    )
    ema_decay: float | None = field(default=None, metadata={"help": "Decay of the weights' moving average."})

    def __post_init__(self):
        super().__post_init__()
        if self.objective not in ("joint", "flow", "fast"):
            raise ValueError(f'objective={self.objective!r} is not one of "joint", "flow", "fast".')
        unknown = sorted(set(self.freeze) - set(FREEZABLE))
        if unknown:
            raise ValueError(f"freeze={self.freeze} names {unknown}; known parts: {sorted(FREEZABLE)}.")
        if "backbone" in self.freeze and "expert" in self.freeze:
            raise ValueError("freeze names both backbone and expert, so nothing would be trained.")


__all__ = ["FREEZABLE", "Nora15SFTConfig"]
