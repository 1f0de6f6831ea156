# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the supervised trainer."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ...data.image_augmentation import ImageAugmentation
from ..argument_checks import refuse_hub_token, refuse_settings
from .reward_weighting import RewardWeighting

FREEZABLE = {
    "backbone": ("vlm",),
    "vision_tower": ("vlm.model.visual",),
    "expert": ("action_expert", "action_", "state_proj"),
}

# Options that the loss or the evaluation of this trainer would not look at, with their only value.
_FIXED = {
    "average_tokens_across_devices": (True, "the loss is always averaged over the whole batch of all processes"),
    "label_smoothing_factor": (0.0, "the policy computes its own cross-entropy"),
    "prediction_loss_only": (True, "evaluation returns losses and action errors, not logits"),
    "remove_unused_columns": (False, "samples are for the collator, which needs all of their columns"),
    "use_liger_kernel": (False, "it replaces the forward of a language model, which is not what is trained here"),
}


@dataclass
class Nora15SFTConfig(TrainingArguments):
    r"""
    Arguments of [`Nora15SFTTrainer`]: transformers' `TrainingArguments` with the defaults of NORA-1.5's LeRobot trainer
    and the following. Options of the parent that cannot apply are refused by name.

    Args:
        objective (`str`, *optional*, defaults to `"joint"`):
            `"joint"`: FAST cross-entropy plus 10 x flow matching; `"flow"` or `"fast"`: one of the two.
        freeze (`list[str]`, *optional*, defaults to `[]`):
            Parts that are not trained: `"backbone"` (vision tower included), `"vision_tower"`, `"expert"`. What the
            objective cannot reach is never trained.
        knowledge_insulation (`bool`, *optional*, defaults to `False`):
            Keep the flow loss's gradient out of the backbone, which then learns from FAST tokens alone.
        image_augmentation (`dict`, *optional*):
            Arguments of [`ImageAugmentation`], `{}` for its defaults. Training images only; off by default. It is applied
            by the collator, in the DataLoader's workers.
        pad_to_multiple_of (`int`, *optional*): Pad prompts to a multiple of this length, so that few shapes occur.
        ema_decay (`float`, *optional*):
            Decay of a moving average of the weights, which is evaluated, and replaces them at the end of training.
        open_loop_episodes (`int`, *optional*, defaults to 0):
            Episodes of each evaluation dataset on which sampled chunks are compared with the demonstrated ones.
        reward_weighting (`dict`, *optional*):
            Arguments of [`RewardWeighting`], `{}` for its defaults. The datasets are then preference rows, see
            [`~nora15_hf.preferences.load_preferences`], and the policy is trained on the candidates of each state by
            flow matching, weighted by their rewards: the baseline for flow DPO on the same labels. Off by default.

    > [!NOTE]
    > Other defaults than in `TrainingArguments`: `learning_rate` (8e-5), `adam_beta2` (0.95), `remove_unused_columns`
    > (off), `prediction_loss_only` (on), `logging_nan_inf_filter` (off, it waits for the device at every step) and
    > `ddp_find_unused_parameters` (off, there are none).
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "image_augmentation", "reward_weighting"]

    learning_rate: float = field(default=8e-5, metadata={"help": "Peak learning rate of AdamW."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Beta2 of AdamW."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Datasets yield samples for the collator, not model inputs: keep False."}
    )
    prediction_loss_only: bool = field(default=True, metadata={"help": "Must stay on: evaluation returns no logits."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Whether to hide NaN losses in the log."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Whether DDP searches for parameters without gradients; there are none."}
    )
    objective: str = field(default="joint", metadata={"help": "joint, flow or fast."})
    freeze: list[str] = field(
        default_factory=list, metadata={"help": "Parts that are not trained: backbone, vision_tower, expert."}
    )
    knowledge_insulation: bool = field(
        default=False, metadata={"help": "Stop the gradient of the flow loss at the backbone."}
    )
    image_augmentation: dict | str | None = field(
        default=None, metadata={"help": "Arguments of ImageAugmentation, {} for its defaults; off by default."}
    )
    pad_to_multiple_of: int | None = field(default=None, metadata={"help": "Pad prompts to a multiple of this."})
    ema_decay: float | None = field(default=None, metadata={"help": "Decay of the weights' moving average."})
    open_loop_episodes: int = field(
        default=0, metadata={"help": "Validation episodes on which sampled and demonstrated actions are compared."}
    )
    reward_weighting: dict | str | None = field(
        default=None,
        metadata={
            "help": "Arguments of RewardWeighting, {} for its defaults: train on the candidates of a preference set, weighted by "
            "their rewards; off by default."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        refuse_hub_token(self)
        refuse_settings(self, _FIXED)
        if self.objective not in ("joint", "flow", "fast"):
            raise ValueError(f'objective={self.objective!r} is not one of "joint", "flow", "fast".')
        unknown = sorted(set(self.freeze) - set(FREEZABLE))
        if unknown:
            raise ValueError(f"freeze={self.freeze} names {unknown}; known parts: {sorted(FREEZABLE)}.")
        untrained = {"joint": {"backbone", "expert"}, "flow": {"backbone", "expert"}, "fast": {"backbone"}}
        if untrained[self.objective] <= set(self.freeze):
            raise ValueError(f'freeze={self.freeze} with objective="{self.objective}": nothing would be trained.')
        if self.knowledge_insulation and (self.objective != "joint" or self.freeze):
            raise ValueError(
                f'knowledge_insulation=True with objective="{self.objective}" and freeze={self.freeze}: it separates the '
                'two losses of objective="joint" with nothing frozen. To train the expert alone, objective="flow" with '
                'freeze=["backbone"] does the same without a backward pass through the backbone.'
            )
        checkpointing = self.activation_checkpointing_kwargs or {}
        if not isinstance(checkpointing, dict):
            raise ValueError(
                f"activation_checkpointing_kwargs={checkpointing!r} is a {type(checkpointing).__name__}, expected a JSON object."
            )
        if checkpointing.get("use_reentrant"):
            raise ValueError(
                "activation_checkpointing_kwargs has use_reentrant=True, which gives unused parameters a gradient of zero "
                "and with it weight decay. Omit it."
            )
        if self.ema_decay is not None and self.load_best_model_at_end:
            raise ValueError(
                f"load_best_model_at_end=True with ema_decay={self.ema_decay}: the end result is either the best "
                "checkpoint or the average. With metric_for_best_model and save_total_limit the best checkpoint is kept."
            )
        if self.open_loop_episodes < 0:
            raise ValueError(f"open_loop_episodes={self.open_loop_episodes} must not be negative.")
        self.make_augmentation()
        if self.make_reward_weighting() is not None:
            self._refuse_without_demonstrations()

    def _refuse_without_demonstrations(self) -> None:
        """Refuses options that only apply to demonstrations."""
        for name, only in (
            ("objective", "flow"),
            ("image_augmentation", None),
            ("pad_to_multiple_of", None),
            ("open_loop_episodes", 0),
        ):
            if getattr(self, name) != only:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} does not apply with reward_weighting, which trains on the candidates of "
                    f"preference rows by flow matching. Set {name} to {only!r}."
                )

    def make_reward_weighting(self) -> RewardWeighting | None:
        """The weighting that `reward_weighting` describes."""
        if self.reward_weighting is None:
            return None
        try:
            return RewardWeighting(**self.reward_weighting)
        except TypeError as error:
            raise ValueError(f"reward_weighting={self.reward_weighting}: {error}.") from error

    def make_augmentation(self) -> ImageAugmentation | None:
        """The augmentation that `image_augmentation` describes, with the run's seed."""
        if self.image_augmentation is None:
            return None
        try:
            return ImageAugmentation(**{"seed": self.seed, **self.image_augmentation})
        except TypeError as error:
            raise ValueError(f"image_augmentation={self.image_augmentation}: {error}.") from error


__all__ = ["FREEZABLE", "Nora15SFTConfig"]
