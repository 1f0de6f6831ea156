# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Direct preference optimisation of a flow-matching policy on TRL."""

import copy
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import ProcessorMixin, TrainerCallback
from trl import DPOTrainer

from ..nora15.modeling_nora15 import Nora15ForActionPrediction
from ..preferences.preference_dataset import check_preferences
from .flow_dpo_config import FlowDPOConfig
from .flow_surrogate import FlowErrors, flow_errors, sample_flow_draws
from .preference_collator import PreferenceCollator

logger = logging.getLogger(__name__)


def preference_loss(delta: torch.Tensor, loss_type: str, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """
    The loss of each pair.

    Args:
        delta (`torch.Tensor`): `(B,)`, log-ratio of chosen minus that of rejected, each policy against reference.
        loss_type (`str`):
            `"sigmoid"` (DPO, arXiv 2305.18290), `"robust"` (arXiv 2403.00409), `"hinge"` (SLiC, arXiv 2309.06657) or
            `"ipo"` (arXiv 2310.12036).
        beta (`float`): strength of the preference.
        label_smoothing (`float`, *optional*, defaults to 0.0): share of wrong labels that `"robust"` assumes.

    Returns:
        `torch.Tensor` `(B,)`.
    """
    logits = beta * delta
    match loss_type:
        case "sigmoid":
            return -F.logsigmoid(logits)
        case "robust":
            expected = label_smoothing * F.logsigmoid(-logits) - (1 - label_smoothing) * F.logsigmoid(logits)
            return expected / (1 - 2 * label_smoothing)
        case "hinge":
            return torch.relu(1 - logits)
        case "ipo":
            return (delta - 1 / (2 * beta)) ** 2
        case _:
            raise ValueError(f'loss_type="{loss_type}" must be one of "sigmoid", "robust", "hinge", "ipo".')


class FlowDPOTrainer(DPOTrainer):
    r"""
    Trains a [`Nora15ForActionPrediction`] on preferences between action chunks (arXiv 2511.14659, Eq. 9).

    The loss of a pair is, for `loss_type=["sigmoid"]`,

    `-log sigmoid(beta * [(error_ref(chosen) - error(chosen)) - (error_ref(rejected) - error(rejected))])`

    with the velocity errors of [`~nora15_hf.trainers.flow_surrogate.flow_errors`] under the same noise and times for
    all four. It is ln 2 at the first step. The reference is complete and never changes: a frozen copy of the policy,
    the base model under freshly added adapters (`peft_config`), or the adapters as they came (a `PeftModel`).

    Args:
        model ([`Nora15ForActionPrediction`] or [`~peft.PeftModel`]):
            The policy. All parameters that learn must be float32: at a learning rate of 5e-7 every bfloat16 step is
            rounded away. Set `bf16=True` to compute in bfloat16.
        args ([`FlowDPOConfig`]): The configuration.
        train_dataset ([`~datasets.Dataset`]): Preference rows, see [`~nora15_hf.preferences.load_preferences`].
        processing_class ([`Nora15Processor`]): The policy's processor.
        eval_dataset ([`~datasets.Dataset`] or `dict` of them, *optional*): Preference rows to evaluate on, under the
            same draws of noise and time at every evaluation.
        ref_model ([`Nora15ForActionPrediction`], *optional*): Another reference than the policy at the start.
        peft_config ([`~peft.PeftConfig`], *optional*): Adapters to add to the policy.
        callbacks, optimizers: As in [`~transformers.Trainer`].

    Logged besides the loss and the gradient norm, as means since the last log (`eval_` in front in evaluation):

    | key | meaning |
    |---|---|
    | `rewards/chosen`, `rewards/rejected` | implicit reward: beta times the error's fall against the reference |
    | `rewards/margins`, `rewards/accuracies` | their difference, and how often it is positive |
    | `flow_error/chosen`, `flow_error/rejected` | velocity error of the policy; both rising is collapse |
    | `flow_error/reference_chosen`, `flow_error/reference_rejected` | velocity error of the reference |
    | `reference_distance` | mean squared difference of the two velocities |

    Example:

    ```python
    >>> from nora15_hf.preferences import load_preferences
    >>> from nora15_hf.trainers.flow_dpo_config import FlowDPOConfig
    >>> from nora15_hf.trainers.flow_dpo_trainer import FlowDPOTrainer

    >>> trainer = FlowDPOTrainer(
    ...     model=model,
    ...     args=FlowDPOConfig("policy-dpo", max_steps=200, learning_rate=1e-5),
    ...     train_dataset=load_preferences("preferences"),
    ...     processing_class=processor,
    ... )
    >>> trainer.train()
    ```
    """

    def __init__(
        self,
        model: Nora15ForActionPrediction | PeftModel,
        args: FlowDPOConfig,
        train_dataset: Dataset,
        processing_class: ProcessorMixin,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ref_model: Nora15ForActionPrediction | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
    ):
        has_adapters = isinstance(model, PeftModel)
        policy = model.get_base_model() if has_adapters else model
        if not isinstance(policy, Nora15ForActionPrediction):
            raise TypeError(
                f"model is a {type(policy).__name__}, expected a Nora15ForActionPrediction. Load it with "
                "Nora15ForActionPrediction.from_pretrained(..., dtype=torch.float32)."
            )
        if args.world_size > 1:
            raise ValueError(
                f"FlowDPOTrainer was launched in {args.world_size} processes, but it trains in one. Launch it with "
                "--num_processes 1 and raise per_device_train_batch_size or gradient_accumulation_steps."
            )
        for name, dataset in self._name_datasets(train_dataset, eval_dataset):
            check_preferences(dataset, policy.config, processing_class, name=name)

        if args.freeze_backbone:
            adapted = [name for name, p in policy.vlm.named_parameters() if has_adapters and p.requires_grad]
            if adapted:
                raise ValueError(
                    f"freeze_backbone=True, but {len(adapted)} adapter parameters of the backbone learn, for example "
                    f"{adapted[0]!r}. Set freeze_backbone=False or put adapters on action_expert only."
                )
            policy.vlm.requires_grad_(False)
        if ref_model is None and not has_adapters and peft_config is None:
            # A frozen backbone is the reference's own too: the copy shares its memory.
            shared = {id(policy.vlm): policy.vlm} if args.freeze_backbone else {}
            ref_model = copy.deepcopy(policy, shared)
        elif ref_model is not None and args.freeze_backbone:
            own, given = policy.vlm.state_dict(), ref_model.vlm.state_dict()
            if not all(torch.equal(own[name], given[name]) for name in own):
                raise ValueError(
                    "freeze_backbone=True encodes the prompt once for policy and reference, but the backbones of model "
                    "and ref_model differ. Set freeze_backbone=False, or give no ref_model."
                )
        if ref_model is not None:
            ref_model.requires_grad_(False)

        super().__init__(
            model=model,
            ref_model=ref_model,
            args=args,
            data_collator=PreferenceCollator(processing_class, policy.config),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        self._check_trainable_parameters()
        self._eval_generator = torch.Generator()
        self._flow_metrics = {"train": defaultdict(list), "eval": defaultdict(list)}

    @staticmethod
    def _name_datasets(train_dataset, eval_dataset) -> Iterator[tuple[str, Dataset]]:
        yield "train_dataset", train_dataset
        if isinstance(eval_dataset, dict):
            yield from ((f"eval_dataset[{key!r}]", dataset) for key, dataset in eval_dataset.items())
        elif eval_dataset is not None:
            yield "eval_dataset", eval_dataset

    def _check_trainable_parameters(self):
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not trainable:
            raise ValueError(
                "No parameter of model requires a gradient. Call requires_grad_(True) on what shall learn."
            )
        for name, parameter in trainable.items():
            if parameter.dtype != torch.float32:
                raise ValueError(
                    f"Parameter {name!r} learns in {parameter.dtype}, where steps at learning rates around 5e-7 are "
                    "rounded away. Load the policy with dtype=torch.float32; bf16=True still computes in bfloat16."
                )

    @contextmanager
    def _reference_policy(self) -> Iterator[Nora15ForActionPrediction]:
        if self.ref_model is not None:
            yield self.accelerator.unwrap_model(self.ref_model)
            return
        policy = self.accelerator.unwrap_model(self.model)
        # The parent keeps a copy of adapters that came with the model under this name.
        if "ref" in policy.peft_config:
            policy.set_adapter("ref")
            try:
                yield policy
            finally:
                policy.set_adapter("default")
        else:
            with policy.disable_adapter():
                yield policy

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, FlowErrors]:
        """
        The mean loss of a batch of [`PreferenceCollator`].

        Args:
            model (`torch.nn.Module`): the policy, wrapped or not.
            inputs (`dict[str, torch.Tensor]`): the batch.
            return_outputs (`bool`, *optional*, defaults to `False`): whether to return the policy's errors too.
            num_items_in_batch (`torch.Tensor`, *optional*): not used, every pair counts the same.

        Returns:
            The loss, or `(loss, FlowErrors)` with errors `(B, 2)` of chosen and rejected.
        """
        args = self.args
        policy = self.accelerator.unwrap_model(model)
        prompt = {key: value for key, value in inputs.items() if key not in ("chosen", "rejected", "action_mask")}
        chunks = torch.stack([inputs["chosen"], inputs["rejected"]], dim=1)
        draws = sample_flow_draws(
            policy.config,
            len(chunks),
            num_draws=args.num_draws,
            num_chunks=1 if args.shared_draws else 2,
            antithetic=args.antithetic_noise,
            generator=None if model.training else self._eval_generator,
        )
        surrogate = {"draws": draws, "action_mask": inputs["action_mask"], "reduction": args.reduction}

        with self.accelerator.autocast():
            with torch.no_grad(), self._reference_policy() as reference:
                # A frozen backbone is common to both.
                reference_prefix = (policy if args.freeze_backbone else reference).encode_prefix(**prompt)
                reference_errors = flow_errors(reference, reference_prefix, chunks, **surrogate)
            prefix = reference_prefix if args.freeze_backbone else policy.encode_prefix(**prompt)
            errors = flow_errors(policy, prefix, chunks, **surrogate)

        chosen_logratio, rejected_logratio = (reference_errors.error - errors.error).unbind(1)
        delta = chosen_logratio - rejected_logratio
        loss = preference_loss(delta, args.loss_type[0], args.beta, args.label_smoothing).mean()
        if args.sft_weight:
            loss = loss + args.sft_weight * errors.error[:, 0].mean()
        self._record("train" if model.training else "eval", errors, reference_errors)
        return (loss, errors) if return_outputs else loss

    @torch.no_grad()
    def _record(self, mode: str, errors: FlowErrors, reference_errors: FlowErrors):
        rewards = self.args.beta * (reference_errors.error - errors.error)
        margins = rewards[:, 0] - rewards[:, 1]
        distance = (errors.velocity - reference_errors.velocity).square().flatten(1).mean(1)
        for key, value in {
            "rewards/chosen": rewards[:, 0],
            "rewards/rejected": rewards[:, 1],
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).float(),
            "flow_error/chosen": errors.error[:, 0],
            "flow_error/rejected": errors.error[:, 1],
            "flow_error/reference_chosen": reference_errors.error[:, 0],
            "flow_error/reference_rejected": reference_errors.error[:, 1],
            "reference_distance": distance,
        }.items():
            self._flow_metrics[mode][key].append(value.detach())

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """As in [`~trl.DPOTrainer`]; every evaluation sees the same noise and times, so that two can be compared."""
        self._eval_generator.manual_seed(self.args.seed)
        return super().evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the metrics since the last log, and watches for collapse."""
        mode = "train" if self.model.training else "eval"
        metrics = {key: torch.cat(values).mean().item() for key, values in self._flow_metrics[mode].items()}
        self._flow_metrics[mode].clear()
        if mode == "train" and metrics:
            self._guard_against_collapse(metrics)
        # In place: the caller returns this dictionary as the result of an evaluation.
        logs.update({key if mode == "train" else f"eval_{key}": value for key, value in metrics.items()})
        super().log(logs, start_time)

    def _guard_against_collapse(self, metrics: dict[str, float]):
        chosen, reference = metrics["flow_error/chosen"], metrics["flow_error/reference_chosen"]
        if chosen > self.args.collapse_factor * reference:
            logger.warning(
                "Step %d: the velocity error on the chosen chunks is %.4g, above %g times the reference's %.4g. The "
                "policy is forgetting, whatever the margin says. Lower learning_rate, or set sft_weight.",
                self.state.global_step,
                chosen,
                self.args.collapse_factor,
                reference,
            )
            if self.args.stop_on_collapse:
                self.control.should_training_stop = True


__all__ = ["FlowDPOTrainer", "preference_loss"]
