# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of [`FlowDPOTrainer`]."""

from dataclasses import dataclass, field, fields
from typing import Any

from trl import DPOConfig

from ..argument_checks import refuse_hub_token

_LOSS_TYPES = ("sigmoid", "ipo", "hinge", "robust")

# Options of the parent classes that have no meaning for a flow policy, and what to do instead.
_INAPPLICABLE = {
    "model_init_kwargs": "load the policy yourself and pass the model",
    "trust_remote_code": "load the policy yourself and pass the model",
    "router_aux_loss_coef": "the backbone has no mixture of experts",
    "dataset_num_proc": "rows are prepared by the collator; use dataloader_num_workers",
    "max_length": "the prompt is one image and one instruction and is never truncated",
    "truncation_mode": "the prompt is one image and one instruction and is never truncated",
    "padding_free": "the processor pads the prompts",
    "pad_to_multiple_of": "the processor pads the prompts",
    "pad_token": "the processor's tokenizer knows its pad token",
    "loss_weights": "there is one type of preference loss; sft_weight, proximal_weight and fast_weight add terms",
    "ld_alpha": "chunks have one length",
    "f_divergence_type": "only the reverse KL divergence is implemented",
    "f_alpha_divergence_coef": "only the reverse KL divergence is implemented",
    "use_weighting": "a flow policy has no token probabilities",
    "discopop_tau": "the loss types are " + ", ".join(_LOSS_TYPES),
    "sync_ref_model": "the reference stays the policy from which training started",
    "ref_model_mixup_alpha": "the reference stays the policy from which training started",
    "ref_model_sync_steps": "the reference stays the policy from which training started",
    "use_liger_kernel": "it replaces the forward of a language model, which is not what is trained here",
    "label_smoothing_factor": 'use loss_type=["robust"] with label_smoothing',
    "neftune_noise_alpha": "the prompt is not trained",
    "bf16_full_eval": "it would round the float32 weights for good; with bf16=True evaluation computes in bfloat16 too",
    "fp16_full_eval": "it would round the float32 weights for good; with fp16=True evaluation computes in float16 too",
    "parallelism_config": "prompts are too short to be split over devices; use DDP or FSDP2",
}

# Options of this class that do nothing unless another one has a value that uses them.
_NEEDS = {
    "fast_beta": ("objective", ("fast", "joint")),
    "fast_weight": ("objective", ("joint",)),
    "num_draws": ("objective", ("flow", "joint")),
    "shared_draws": ("objective", ("flow", "joint")),
    "antithetic_noise": ("objective", ("flow", "joint")),
    "freeze_backbone": ("objective", ("flow",)),
    "prefix_cache_dir": ("freeze_backbone", (True,)),
    "precompute_ref_batch_size": ("precompute_ref_log_probs", (True,)),
    "precompute_ref_folder": ("precompute_ref_log_probs", (True,)),
}


@dataclass
class FlowDPOConfig(DPOConfig):
    r"""
    Configuration of [`FlowDPOTrainer`]: direct preference optimisation of a flow-matching policy (arXiv 2511.14659,
    Eq. 9), of its FAST tokens, or of both. Only what is added to or differs from [`~trl.DPOConfig`] is listed; options
    that cannot apply, or that nothing uses, are refused by name.

    The defaults are the released setting, for the 3 B model. A policy of a few million parameters needs a higher
    learning rate (1e-5); the learning rate decides between improvement and collapse, beta much less.

    Parameters:
        > Parameters that control the preference loss

        objective (`str`, *optional*, defaults to `"flow"`):
            What stands for the log-likelihood of a chunk: `"flow"`, minus the velocity error of the action expert;
            `"fast"`, the backbone's log-likelihood of the chunk's FAST tokens; `"joint"`, a loss for each.
        beta (`float`, *optional*, defaults to `250.0`):
            Strength of the preference. It multiplies velocity errors, so its scale depends on `reduction`: 250 on the
            mean of a 5 x 7 chunk equals 250 / 35 = 7.14 on the sum.
        loss_type (`list[str]`, *optional*, defaults to `["sigmoid"]`):
            One of `"sigmoid"`, `"ipo"`, `"hinge"`, `"robust"` (sigmoid for labels that are wrong with probability
            `label_smoothing`). `beta` is the margin's inverse scale for `"ipo"`.
        fast_beta (`float`, *optional*, defaults to `0.1`):
            Strength of the preference between FAST tokens; it multiplies log-likelihoods summed over a chunk's tokens.
        fast_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the loss on FAST tokens beside that on velocity errors, with `objective="joint"`.
        sft_weight (`float`, *optional*, defaults to `0.0`):
            Weight of minus the (surrogate) log-likelihood of the chosen chunk, an anchor against both halves becoming
            less likely: the velocity error, reduced as `reduction` says, and the FAST tokens' summed cross-entropy.
        proximal_weight (`float`, *optional*, defaults to `0.0`):
            Weight of the squared distance by which implicit rewards leave `[-proximal_bound, proximal_bound]`, an
            anchor for both halves that needs no demonstrations.
        proximal_bound (`float`, *optional*, defaults to `5.0`):
            Bound of the implicit rewards, which are log-ratios times `beta` or `fast_beta`.

        > Parameters that control the likelihood surrogate

        num_draws (`int`, *optional*, defaults to `1`):
            Draws of noise and time per pair and step, stratified in time; they share one backbone pass.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` of the squared velocity error over valid steps and dimensions (released code), or `"sum"` (paper).
        shared_draws (`bool`, *optional*, defaults to `True`):
            Whether chosen and rejected see the same noise and time. `False` is the released code; its margins vary
            more.
        antithetic_noise (`bool`, *optional*, defaults to `False`):
            Whether every second draw takes the negated noise of the one before it; needs an even `num_draws`.

        > Parameters that control the reference

        precompute_ref_log_probs (`bool`, *optional*, defaults to `False`):
            Whether to ask the reference once per row before training instead of at every step. A row then keeps its
            draws of noise and time for the whole run, and no reference is held in memory.
        precompute_ref_folder (`str`, *optional*):
            Folder of the precomputed values, `<output_dir>/_reference` by default, which is not pushed to the Hub. Values found there are used when they
            belong to the same reference, rows and draws, and refused otherwise.

        > Parameters that control what is trained

        freeze_backbone (`bool`, *optional*, defaults to `False`):
            Whether only the action expert and its projections learn. The prefix is then encoded once per batch,
            without gradient, and serves the reference too, which shares the backbone's memory.
        prefix_cache_dir (`str`, *optional*):
            With `freeze_backbone`: folder for the backbone's keys and values of every prompt, on a disk that all processes
            share. They are computed before training, and then read instead of images. Each prompt has a file, which other
            runs and datasets with the same backbone use too; another backbone is refused. A token takes 36 kB in bfloat16
            with the 3 B model, a prompt of one camera about 3 MB; the size of the whole is announced.

        > Parameters that control the collapse guard

        collapse_factor (`float`, *optional*, defaults to `1.25`):
            A warning is given when the logged velocity error on the chosen chunks exceeds this multiple of the
            reference's: the margin may still grow while the policy forgets.
        stop_on_collapse (`bool`, *optional*, defaults to `False`):
            Whether training also stops there.

    > [!NOTE]
    > These parameters have default values different from [`~trl.DPOConfig`]: `beta` (250), `learning_rate` (5e-7),
    > `lr_scheduler_type` (cosine), `warmup_steps` (150), `per_device_train_batch_size` (16), `adam_beta2` (0.95),
    > `weight_decay` (1e-8), `bf16` and `gradient_checkpointing` (off: the loss compares errors that differ by 1e-3;
    > switch them on for the 3 B model), `max_length` (none), `remove_unused_columns` (off),
    > `prediction_loss_only` (on) and `logging_nan_inf_filter` (off).
    """

    learning_rate: float = field(default=5e-7, metadata={"help": "The initial learning rate for AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "The learning-rate schedule."})
    warmup_steps: float = field(
        default=150, metadata={"help": "Steps of linear warm-up; a value below 1 is a share of all steps."}
    )
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Pairs per device and step."})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW's second beta."})
    weight_decay: float = field(default=1e-8, metadata={"help": "AdamW's weight decay."})
    bf16: bool | None = field(default=False, metadata={"help": "Whether to autocast to bfloat16."})
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "Whether to recompute activations in the backward pass to save memory."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Not applicable."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: the collator needs them."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Must stay on: there are no logits."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Whether to hide NaN losses in the log."})

    objective: str = field(
        default="flow",
        metadata={"help": "The surrogate for the log-likelihood of a chunk.", "choices": ["flow", "fast", "joint"]},
    )
    beta: float = field(
        default=250.0, metadata={"help": "Strength of the preference, which multiplies the velocity errors."}
    )
    fast_beta: float = field(default=0.1, metadata={"help": "Strength of the preference between FAST tokens."})
    fast_weight: float = field(
        default=1.0, metadata={"help": "Weight of the FAST tokens' loss in the joint objective."}
    )
    sft_weight: float = field(
        default=0.0, metadata={"help": "Weight of the negative log-likelihood of the chosen chunk."}
    )
    proximal_weight: float = field(
        default=0.0, metadata={"help": "Weight of the penalty on implicit rewards outside proximal_bound."}
    )
    proximal_bound: float = field(default=5.0, metadata={"help": "Bound of the implicit rewards."})
    num_draws: int = field(default=1, metadata={"help": "Draws of noise and time per pair and step."})
    reduction: str = field(
        default="mean",
        metadata={"help": "Reduction of the velocity error over steps and dimensions.", "choices": ["mean", "sum"]},
    )
    shared_draws: bool = field(
        default=True, metadata={"help": "Whether chosen and rejected chunks share noise and time."}
    )
    antithetic_noise: bool = field(
        default=False, metadata={"help": "Whether every second draw uses the negated noise of the previous one."}
    )
    precompute_ref_folder: str | None = field(
        default=None, metadata={"help": "Folder of the precomputed reference values."}
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Whether only the action expert is trained."})
    prefix_cache_dir: str | None = field(
        default=None, metadata={"help": "Folder for the frozen backbone's keys and values of every prompt."}
    )
    collapse_factor: float = field(
        default=1.25, metadata={"help": "Warn when the chosen error exceeds this multiple of the reference's."}
    )
    stop_on_collapse: bool = field(default=False, metadata={"help": "Whether the collapse guard stops the training."})

    def __post_init__(self):
        self._refuse_inapplicable()
        super().__post_init__()
        refuse_hub_token(self)
        if len(self.loss_type) != 1 or self.loss_type[0] not in _LOSS_TYPES:
            raise ValueError(
                f"loss_type={self.loss_type} must be a list with one of {list(_LOSS_TYPES)}. For an additional flow "
                "loss on the chosen chunk set sft_weight."
            )
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 0.5).")
        if self.label_smoothing and self.loss_type != ["robust"]:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} has no effect with loss_type={self.loss_type}. "
                'Set loss_type=["robust"] or leave label_smoothing at 0.'
            )
        for name in ("beta", "fast_beta", "proximal_bound", "fast_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be greater than 0.")
        for name in ("sft_weight", "proximal_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative.")
        if self.objective not in ("flow", "fast", "joint"):
            raise ValueError(f'objective="{self.objective}" must be "flow", "fast" or "joint".')
        if self.num_draws < 1 or (self.antithetic_noise and self.num_draws % 2):
            raise ValueError(
                f"num_draws={self.num_draws} must be at least 1, and even with antithetic_noise=True "
                f"(it is {self.antithetic_noise})."
            )
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f'reduction="{self.reduction}" must be "mean" (released code) or "sum" (paper).')
        if not self.collapse_factor > 1:
            raise ValueError(f"collapse_factor={self.collapse_factor} must be greater than 1.")
        if self.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns=True would drop the columns that the collator reads. Leave it False."
            )
        if not self.prediction_loss_only:
            raise ValueError(
                "prediction_loss_only=False asks for logits, which a flow policy does not have. Leave it True."
            )

    def _refuse_inapplicable(self):
        defaults: dict[str, Any] = {option.name: option.default for option in fields(self)}
        # A release of TRL may have dropped some.
        for name in [name for name in _INAPPLICABLE if name in defaults]:
            value = getattr(self, name)
            # The parent turns "auto" into None, which a copy of a config then starts from.
            if value != defaults[name] and value is not None:
                raise ValueError(
                    f"{name}={value!r} does not apply to FlowDPOTrainer: {_INAPPLICABLE[name]}. Remove it."
                )
        for name, (user, values) in _NEEDS.items():
            if getattr(self, name) != defaults[name] and getattr(self, user) not in values:
                needed = " or ".join(repr(value) for value in values)
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no effect with {user}={getattr(self, user)!r}. Remove it, or set "
                    f"{user} to {needed}."
                )
        if self.proximal_bound != defaults["proximal_bound"] and not self.proximal_weight:
            raise ValueError(
                f"proximal_bound={self.proximal_bound} has no effect with proximal_weight=0. Remove it, or set "
                "proximal_weight."
            )


__all__ = ["FlowDPOConfig"]
