# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Direct preference optimisation of a flow-matching policy on TRL."""

import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, concatenate_datasets
from peft import PeftConfig, PeftModel
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ProcessorMixin, TrainerCallback
from trl import DPOTrainer
from trl.trainer.utils import use_adapter

from ...cards.card_info import PolicyCardInfo
from ...nora15.alternative_answers import answer_log_probs
from ...nora15.backbone_parts import PrefixCache
from ...nora15.flow_matching import FlowDraws, draw_flow_samples, flow_loss
from ...nora15.modeling_nora15 import Nora15ForActionPrediction
from ...preferences.preference_dataset import check_preferences, is_sampler, pairs_fingerprint
from ...preferences.preference_record import preference_info
from ...repo_files.fingerprint import digest, fingerprint
from ..argument_checks import check_arguments, check_model, check_processor, check_training, refuse_options
from ..cache_folder import computation_settings
from ..complete_push import CompletePushCallback, is_uploading, write_policy_files
from ..continued_run import ContinuedRunMixin
from ..mean_metrics import MeanMetricsMixin
from ..saved_arguments import NoPickledArgumentsMixin
from ..training_card import TrainingCardMixin, card_names, known
from .flow_dpo_card import CURVES_FILE, flow_dpo_card_info, plot_preference_curves
from .flow_dpo_config import FlowDPOConfig
from .flow_dpo_setup import (
    freeze_backbone,
    initial_reference,
    refuse_backbone_adapters,
    restore_float32,
    restore_forward,
)
from .preference_collator import (
    PREFIX_NAME,
    REFERENCE_COLUMNS,
    ROW_INDEX,
    SIDES,
    PreferenceCollator,
    check_action_tokens,
)
from .preference_loss import preference_loss, proximal_penalty
from .preference_reference import load_reference_values, rows_fingerprint, save_reference_values
from .prefix_cache import PrefixStore, batch_prefix, prefix_settings, token_bytes
from .prompt_names import image_settings, name_prompts

logger = logging.getLogger(__name__)

# First numbers of the keys that draws of noise and time depend on.
TRAIN, EVAL, PRECOMPUTED = range(3)
# What of a batch is not an input of the policy.
_PAIR_KEYS = {*SIDES, "action_mask", ROW_INDEX, *REFERENCE_COLUMNS}


@dataclass(frozen=True)
class Surrogate:
    """A surrogate for a chunk's log-likelihood: names of its metrics, strength of the preference, weight in the loss."""

    reward_prefix: str
    error_prefix: str
    beta: float
    weight: float


class FlowDPOTrainer(ContinuedRunMixin, TrainingCardMixin, MeanMetricsMixin, NoPickledArgumentsMixin, DPOTrainer):
    r"""
    Trains a [`Nora15ForActionPrediction`] on preferences between action chunks (arXiv 2511.14659, Eq. 9).

    All passes go through the `forward` of the (wrapped) policy, in one or several processes, with DDP or FSDP2.

    The loss of a pair is, for `loss_type=["sigmoid"]`,

    `-log sigmoid(beta * [(error_ref(chosen) - error(chosen)) - (error_ref(rejected) - error(rejected))])`

    with the velocity errors of [`~nora15_hf.nora15.flow_matching.flow_loss`] under the same noise and times for all four,
    which depend on `seed`, step and row alone. It is ln 2 at the first step. With `objective="fast"` the errors are those
    of the FAST tokens, minus their log-likelihood; `"joint"` adds both losses. The reference is complete and never
    changes: a frozen copy of the policy, the base model under freshly added adapters (`peft_config`), the adapters as they
    came (a `PeftModel`), or values computed before training (`precompute_ref_log_probs`).

    Args:
        model ([`Nora15ForActionPrediction`] or [`~peft.PeftModel`]):
            The policy. All parameters that learn must be float32: at a learning rate of 5e-7 every bfloat16 step is
            rounded away. Set `bf16=True` to compute in bfloat16.
        args ([`FlowDPOConfig`]): The configuration.
        ref_model ([`Nora15ForActionPrediction`], *optional*): Another reference than the policy at the start.
        train_dataset ([`~datasets.Dataset`]): Preference rows, see [`~nora15_hf.preferences.load_preferences`].
        eval_dataset ([`~datasets.Dataset`] or `dict` of them, *optional*): Preference rows to evaluate on, under the
            same draws of noise and time at every evaluation.
        processing_class ([`Nora15Processor`]): The policy's processor.
        callbacks, optimizers: As in [`~transformers.Trainer`].
        peft_config ([`~peft.PeftConfig`], *optional*): Adapters to add to the policy.

    Raises:
        TypeError: `model`, `args` or a dataset of another type.
        ValueError: Rows that the policy cannot be trained on, see
            [`~nora15_hf.preferences.preference_dataset.check_preferences`], or an argument of `Trainer` or `DPOTrainer` that
            has no meaning here.

    Logged besides the loss and the gradient norm, as means over all processes since the last log (`eval_` in front in
    evaluation). For FAST tokens the first word is `token_rewards` and `token_error`, an error being minus the summed
    log-likelihood of the chunk's tokens.

    | key | meaning |
    |---|---|
    | `rewards/chosen`, `rewards/rejected` | implicit reward: beta times the error's fall against the reference |
    | `rewards/margins`, `rewards/accuracies` | their difference, and how often it is positive |
    | `rewards/out_of_bounds` | share of implicit rewards beyond `proximal_bound`, with `proximal_weight` |
    | `flow_error/chosen`, `flow_error/rejected` | velocity error of the policy; both rising is collapse |
    | `flow_error/reference_chosen`, `flow_error/reference_rejected` | velocity error of the reference |
    | `reference_distance` | mean squared difference of the two velocities |

    Example:

    ```python
    >>> from nora15_hf.preferences import load_preferences
    >>> from nora15_hf.trainers.flow_dpo.flow_dpo_config import FlowDPOConfig
    >>> from nora15_hf.trainers.flow_dpo.flow_dpo_trainer import FlowDPOTrainer

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
        *,
        ref_model: Nora15ForActionPrediction | None = None,
        train_dataset: Dataset,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: ProcessorMixin,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: PeftConfig | None = None,
        **kwargs,
    ):
        refuse_options(kwargs, data_collator="makes batches, which PreferenceCollator does here. Leave it out.")
        check_arguments(args, FlowDPOConfig)
        policy = check_model(model, Nora15ForActionPrediction)
        check_processor("processing_class", processing_class, policy.config)
        if ref_model is not None:
            processing_class.check_model(check_model(ref_model, Nora15ForActionPrediction, "ref_model").config)
        has_adapters = isinstance(model, PeftModel)
        named = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
        for name, dataset in {"train_dataset": train_dataset, **named}.items():
            if dataset is not None:
                _check_rows(dataset, policy, processing_class, args.objective, name)
        # Kept here, because it is lost when the reference's values are added as columns.
        self.preference_info = preference_info(train_dataset)
        if (
            self.preference_info is not None
            and self.preference_info.sampled_by_policy is None
            # Adapters and weights in 4 bits have other names and bits than what was sampled from.
            and not has_adapters
            and not hasattr(policy.config, "quantization_config")
        ):
            sampled = is_sampler(policy, self.preference_info.record, name="train_dataset")
            self.preference_info = replace(self.preference_info, sampled_by_policy=sampled)
        if args.freeze_backbone:
            freeze_backbone(policy, ref_model, has_adapters)
        precompute = args.precompute_ref_log_probs
        self._reference_fingerprints = _reference_fingerprints(ref_model or model) if precompute else {}
        if ref_model is not None:
            ref_model.requires_grad_(False)
        elif not has_adapters and peft_config is None:
            ref_model = initial_reference(policy, args)
        adapters = {
            name: p.detach().clone() for name, p in model.named_parameters() if has_adapters and p.requires_grad
        }

        # The parent refuses precomputed values for images, which it would have to tokenise first; ours come below.
        args.precompute_ref_log_probs = False
        forward = vars(policy).get("forward")
        super().__init__(
            model=model,
            ref_model=ref_model,
            args=args,
            data_collator=PreferenceCollator(processing_class, policy.config, action_tokens=args.objective != "flow"),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
            **kwargs,
        )
        args.precompute_ref_log_probs = precompute
        restore_forward(policy, forward)
        self.add_callback(CompletePushCallback(self, partial(write_policy_files, self)))
        if args.freeze_backbone:
            refuse_backbone_adapters(policy)
        if hasattr(policy.config, "quantization_config"):
            restore_float32(self.model, adapters)
        check_training(self)
        self._surrogates = _surrogates(args)
        if args.prefix_cache_dir is not None:
            settings = prefix_settings(policy, processing_class, self.accelerator.mixed_precision)
            with args.main_process_first(desc="opening the prefix cache"):
                self.data_collator.prefixes = PrefixStore(args.prefix_cache_dir, settings)
        self.train_dataset = self._prepare_rows(self.train_dataset, "train")
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {
                name: self._prepare_rows(rows, f"eval_{name}") for name, rows in self.eval_dataset.items()
            }
        elif self.eval_dataset is not None:
            self.eval_dataset = self._prepare_rows(self.eval_dataset, "eval")
        if precompute:
            self.ref_model = None

    def data_fingerprint(self) -> str:
        """See [`~nora15_hf.preferences.preference_dataset.pairs_fingerprint`]."""
        return pairs_fingerprint(self.train_dataset)

    # The reference

    @contextmanager
    def _reference(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model that computes the reference: a separate one, or the policy with its adapters disabled."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        adapted = self.accelerator.unwrap_model(model)
        # The parent keeps a copy of adapters that came with the model under the name "ref".
        with use_adapter(adapted, "ref" if "ref" in adapted.peft_config else None):
            yield model

    def _prepare_rows(self, dataset: Dataset, name: str | None) -> Dataset:
        """
        Numbers the rows; with a cache of prefixes names their files, with precomputation adds the reference's values, whose
        file has the dataset's name, or that of its content.
        """
        if ROW_INDEX in dataset.column_names:
            return dataset
        args = self.args
        used = {"prefix_cache_dir": args.prefix_cache_dir, "precompute_ref_log_probs": args.precompute_ref_log_probs}
        for option in (option for option, value in used.items() if value):
            if dataset.format["type"] == "custom":
                raise ValueError(
                    f"Dataset {name or 'given to evaluate'!r} has its own transform, which may show other images in every "
                    f"epoch, but {option} reads each prompt once. Call dataset.reset_format(), or omit {option}."
                )
        rows = numbered = dataset.add_column(ROW_INDEX, list(range(len(dataset))))
        if args.prefix_cache_dir is not None:
            rows = self._with_prefixes(numbered, name)
        if not args.precompute_ref_log_probs:
            return rows
        of_rows = rows_fingerprint(dataset, self.processing_class, action_tokens=args.objective != "flow")
        values = self._reference_values(rows, name or f"rows_{of_rows}", of_rows)
        return concatenate_datasets(
            [rows, Dataset.from_dict({key: value.numpy() for key, value in values.items()})], axis=1
        )

    def _reference_values(self, dataset: Dataset, name: str, of_rows: str) -> dict[str, torch.Tensor]:
        args = self.args
        folder = Path(args.precompute_ref_folder or Path(args.output_dir) / "_reference")
        path = folder / f"{name}.safetensors"
        config = self.accelerator.unwrap_model(self.model).config
        draws = {key: getattr(args, key) for key in ("seed", "num_draws", "antithetic_noise", "shared_draws")}
        draws |= {key: getattr(args, key) for key in ("objective", "bf16", "fp16")}
        draws |= {key: value for key, value in config.to_dict().items() if key.startswith("time_sampling_")}
        fingerprints = {
            **self._reference_fingerprints,
            "set of image settings": image_settings(self.processing_class),
            "set of rows": of_rows,
            "set of draws": json.dumps(draws, sort_keys=True),
        }
        # One process decides, since another may look when the file is half there.
        [exists] = broadcast_object_list([path.is_file()])
        if exists:
            return load_reference_values(path, fingerprints)
        if self.ref_model is None and not isinstance(self.accelerator.unwrap_model(self.model), PeftModel):
            raise ValueError(
                f"The reference's values of dataset {name!r} were not computed before training, and with "
                "precompute_ref_log_probs=True no reference remains. Pass the dataset to the trainer as eval_dataset."
            )
        collected = defaultdict(list)
        for _, values, _ in self._reference_passes(dataset, f"Reference values, {name}"):
            stored = {
                name: values[key] for name in REFERENCE_COLUMNS if (key := name.removeprefix("reference_")) in values
            }
            for name, value in self.accelerator.gather_for_metrics(stored).items():
                collected[name].append(value.flatten(1).float().cpu())
        values = {key: torch.cat(parts) for key, parts in collected.items()}
        if self.accelerator.is_main_process:
            save_reference_values(path, values, fingerprints)
        self.accelerator.wait_for_everyone()
        return values

    def _reference_passes(
        self, dataset: Dataset, description: str
    ) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], PrefixCache]]:
        """Batches of this process's share of the rows, with what [`_predict`] returns for the reference."""
        args = self.args
        batch_size = args.precompute_ref_batch_size or args.per_device_train_batch_size
        loader = self.accelerator.prepare(
            DataLoader(dataset, batch_size, collate_fn=self.data_collator, num_workers=args.dataloader_num_workers)
        )
        is_hidden = args.disable_tqdm or not self.is_local_process_zero()
        for inputs in tqdm(loader, desc=description, disable=is_hidden):
            draws = self._draws(inputs, PRECOMPUTED)
            with torch.no_grad(), self.accelerator.autocast(), self._reference(self.model) as reference:
                values, prefix = self._predict(reference, inputs, draws)
            yield inputs, values, prefix

    # Prefixes on disk

    def _with_prefixes(self, dataset: Dataset, dataset_name: str) -> Dataset:
        """Encodes the prompts that have no file yet, each process its share; the rows name files instead of images."""
        store, prompts = self.data_collator.prefixes, name_prompts(dataset, self.processing_class)
        names = [prompt.name for prompt in prompts]
        # One list for all processes: files of another one may already be there when this one looks.
        [missing] = broadcast_object_list([store.missing(names)])
        if missing:
            first_row = dict(zip(reversed(names), reversed(range(len(names))), strict=True))
            rows = [first_row[name] for name in missing]
            compute = self.accelerator.mixed_precision
            policy = self.accelerator.unwrap_model(self.model)
            policy = policy.get_base_model() if isinstance(policy, PeftModel) else policy
            size = sum(prompts[row].length for row in rows) * token_bytes(policy, compute)
            free = shutil.disk_usage(store.folder).free
            if size > free:
                raise OSError(
                    f"The prefixes of {len(rows)} prompts in dataset {dataset_name!r} take {size / 2**30:.2f} GiB, but "
                    f"prefix_cache_dir={self.args.prefix_cache_dir!r} has {free / 2**30:.2f} GiB free. Choose another "
                    "folder, train on fewer rows, or omit prefix_cache_dir."
                )
            description = f"{len(rows)} prefixes of {dataset_name}, {size / 2**30:.2f} GiB in {store.folder}"
            logger.info("Encoding %s.", description)
            for inputs, _, prefix in self._reference_passes(dataset.select(rows), description):
                encoded = [names[row] for row in inputs[ROW_INDEX].tolist()]
                store.write(encoded, prefix, self.args.process_index)
        self.accelerator.wait_for_everyone()
        if store.missing(names):
            raise OSError(
                f"Process {self.args.process_index} does not find all prefixes in {store.folder} that other processes "
                "wrote: prefix_cache_dir must be on a disk that all of them share."
            )
        return dataset.remove_columns("images").add_column(PREFIX_NAME, names)

    # The loss

    def _draws(self, inputs: dict[str, torch.Tensor], purpose: int) -> FlowDraws:
        args = self.args
        step = self.state.global_step if purpose == TRAIN else 0
        draws = draw_flow_samples(
            self.accelerator.unwrap_model(self.model).config,
            [(args.seed, purpose, step, row) for row in inputs[ROW_INDEX].tolist()],
            (1 if args.shared_draws else len(SIDES), args.num_draws),
            stratified=True,
            antithetic=args.antithetic_noise,
        )
        return FlowDraws(*(drawn.to(self.accelerator.device) for drawn in draws))

    def _predict(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], draws: FlowDraws, prefix: PrefixCache | None = None
    ) -> tuple[dict[str, torch.Tensor], PrefixCache]:
        """One pass: velocities `(B, 2, K, H, A)` and their errors `(B, 2)`, log-likelihoods `(B, 2)`, the prefix to share."""
        request = {}
        prefix = batch_prefix(inputs) if prefix is None else prefix
        if self.args.objective != "fast":
            request.update(draws._asdict(), actions=_chunks(inputs), action_mask=inputs["action_mask"])
            request["loss_reduction"] = f"chunk_{self.args.reduction}"
        if prefix is None:
            request.update((key, value) for key, value in inputs.items() if key not in _PAIR_KEYS)
        outputs = model(prefix=prefix, **request)
        values = {}
        if self.args.objective != "fast":
            values.update(velocity=outputs.velocity, flow_error=outputs.flow_loss)
        if self.args.objective != "flow":
            values["log_probs"] = answer_log_probs(outputs.token_log_probs, inputs["answer_index"], len(SIDES))
        return values, outputs.prefix

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        The mean loss of a batch of [`PreferenceCollator`].

        Args:
            model (`nn.Module`): the policy, wrapped or not.
            inputs (`dict[str, torch.Tensor]`): the batch.
            return_outputs (`bool`, *optional*, defaults to `False`): whether to return the policy's predictions too.
            num_items_in_batch (`torch.Tensor`, *optional*): not used, every pair counts the same.

        Returns:
            The loss, or the loss and the predictions: `velocity` `(B, 2, K, H, A)`, `flow_error` and `log_probs` `(B, 2)`,
            as far as the objective has them.
        """
        args = self.args
        if args.precompute_ref_log_probs:
            purpose = PRECOMPUTED
        else:
            purpose = TRAIN if model.training else EVAL
        draws = self._draws(inputs, purpose)
        with self.accelerator.autocast():
            prefix = None
            if args.precompute_ref_log_probs:
                reference = self._stored_reference(inputs, draws)
            else:
                with torch.no_grad(), self._reference(model) as reference_model:
                    reference, prefix = self._predict(reference_model, inputs, draws)
            # A frozen backbone is common to both.
            values, _ = self._predict(model, inputs, draws, prefix if args.freeze_backbone else None)

        loss = torch.zeros((), device=self.accelerator.device)
        metrics = {}
        for surrogate in self._surrogates:
            error, reference_error = (self._error(surrogate, source) for source in (values, reference))
            rewards = surrogate.beta * (reference_error - error)
            loss = loss + surrogate.weight * self._pair_loss(error, reference_error, rewards, surrogate.beta)
            metrics |= self._metrics_of(surrogate, error, reference_error, rewards)
        if "velocity" in values:
            difference = values["velocity"] - reference["velocity"]
            metrics["reference_distance"] = difference.square().flatten(1).mean(1)
        # One exchange between the processes for all of them, which leaves out the rows that fill up a last batch.
        pairs = self.accelerator.gather_for_metrics(
            torch.stack([value.detach().float() for value in metrics.values()], dim=1)
        )
        self._record(dict(zip(metrics, pairs.sum(0), strict=True)), weight=len(pairs))
        return (loss, values) if return_outputs else loss

    def _stored_reference(self, inputs: dict[str, torch.Tensor], draws: FlowDraws) -> dict[str, torch.Tensor]:
        """What [`_predict`] returned for the reference before training."""
        values = {name.removeprefix("reference_"): inputs[name] for name in REFERENCE_COLUMNS if name in inputs}
        if "velocity" in values:
            chunks = _chunks(inputs)
            velocity = values["velocity"].view(*chunks.shape[:2], -1, *chunks.shape[2:])
            error = flow_loss(
                velocity, chunks, draws.noise, inputs["action_mask"], reduction=f"chunk_{self.args.reduction}"
            )
            values.update(velocity=velocity, flow_error=error)
        return values

    def _error(self, surrogate: Surrogate, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Minus the (surrogate) log-likelihood of chosen and rejected, `(B, 2)`."""
        return -values["log_probs"] if surrogate.error_prefix == "token_error" else values["flow_error"]

    def _pair_loss(
        self, error: torch.Tensor, reference_error: torch.Tensor, rewards: torch.Tensor, beta: float
    ) -> torch.Tensor:
        args = self.args
        chosen_logratio, rejected_logratio = (reference_error - error).unbind(1)
        loss = preference_loss(
            chosen_logratio - rejected_logratio, args.loss_type[0], beta, args.label_smoothing
        ).mean()
        if args.sft_weight:
            loss = loss + args.sft_weight * error[:, 0].mean()
        if args.proximal_weight:
            loss = loss + args.proximal_weight * proximal_penalty(rewards, args.proximal_bound).mean()
        return loss

    # The log

    def _metrics_of(
        self, surrogate: Surrogate, error: torch.Tensor, reference_error: torch.Tensor, rewards: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """One value per pair, `(B,)` each."""
        margins = rewards[:, 0] - rewards[:, 1]
        metrics = {
            f"{surrogate.reward_prefix}/margins": margins,
            f"{surrogate.reward_prefix}/accuracies": (margins > 0).float(),
        }
        for side, name in enumerate(SIDES):
            metrics[f"{surrogate.reward_prefix}/{name}"] = rewards[:, side]
            metrics[f"{surrogate.error_prefix}/{name}"] = error[:, side]
            metrics[f"{surrogate.error_prefix}/reference_{name}"] = reference_error[:, side]
        if self.args.proximal_weight:
            outside = rewards.abs() > self.args.proximal_bound
            metrics[f"{surrogate.reward_prefix}/out_of_bounds"] = outside.float().mean(1)
        return metrics

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As in [`~trl.DPOTrainer`]; every evaluation sees the same noise and times, so that two can be compared."""
        # Those of a dictionary come here one by one.
        if eval_dataset is not None and not isinstance(eval_dataset, str | dict):
            if not isinstance(eval_dataset, Dataset) or ROW_INDEX not in eval_dataset.column_names:
                policy = self.accelerator.unwrap_model(self.model)
                _check_rows(eval_dataset, policy, self.processing_class, self.args.objective, "eval_dataset")
            eval_dataset = self._prepare_rows(eval_dataset, None)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`, with the means since the last log, and watches for collapse."""
        super().log(logs, start_time)
        self._guard_against_collapse(logs)

    def _guard_against_collapse(self, metrics: dict[str, float]):
        for name in (surrogate.error_prefix for surrogate in self._surrogates):
            if f"{name}/chosen" not in metrics:
                continue
            chosen, reference = metrics[f"{name}/chosen"], metrics[f"{name}/reference_chosen"]
            if chosen > self.args.collapse_factor * reference:
                logger.warning(
                    "Step %d: %s on the chosen chunks is %.4g, above %g times the reference's %.4g. The policy is "
                    "forgetting, whatever the margin says. Lower learning_rate, or set sft_weight or proximal_weight.",
                    self.state.global_step,
                    name,
                    chosen,
                    self.args.collapse_factor,
                    reference,
                )
                self.control.should_training_stop |= self.args.stop_on_collapse

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        # TRL writes the card first. Here the weights come first, so that nothing about a card can lose a checkpoint.
        super(DPOTrainer, self)._save_checkpoint(model, trial)
        self.create_model_card()

    def _write_card(self, folder: Path, title: str | None = None) -> None:
        # An upload in the background reads the folder; the next one begins with a new card.
        if not is_uploading(self):
            super()._write_card(folder, title)

    def _card_info(self, model_name: str | None) -> PolicyCardInfo:
        folder, rows = Path(self.args.output_dir), self.train_dataset
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        is_adapter = isinstance(model, PeftModel)
        curves = known("curves", lambda: plot_preference_curves(self.state.log_history, folder / CURVES_FILE))
        return flow_dpo_card_info(
            model.get_base_model() if is_adapter else model,
            self.processing_class,
            self.args,
            **card_names(self.args.output_dir, self.hub_model_id, model_name),
            steps=self.state.global_step,
            rows=rows,
            preferences=self.preference_info,
            example_instruction=known("an instruction of its training", lambda: rows[0]["instruction"]),
            is_adapter=is_adapter,
            curves=None if curves is None else CURVES_FILE,
            **self._told_facts,
        )


def _check_rows(
    dataset: Dataset, policy: Nora15ForActionPrediction, processor: ProcessorMixin, objective: str, name: str
) -> None:
    check_preferences(dataset, policy.config, processor, name=name)
    if objective != "flow":
        check_action_tokens(dataset, processor, name=name)


def _reference_fingerprints(model: nn.Module) -> dict[str, str]:
    """What identifies a reference: its weights, and what is computed with them."""
    adapters = {}
    if isinstance(model, PeftModel):
        adapters = {name: _stated(adapter) for name, adapter in model.peft_config.items()}
        model = model.get_base_model()
    configuration = computation_settings(model.config) + json.dumps(adapters, sort_keys=True, default=str)
    return {
        "reference": fingerprint(model.state_dict()),
        "configuration of the reference": digest([configuration.encode()]),
    }


def _stated(adapter: PeftConfig) -> dict[str, Any]:
    """An adapter's configuration, without the source of its base."""
    unrelated = ("base_model_name_or_path", "revision", "inference_mode")
    return {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in adapter.to_dict().items()
        if name not in unrelated
    }


def _surrogates(args: FlowDPOConfig) -> list[Surrogate]:
    flow = Surrogate("rewards", "flow_error", args.beta, 1.0)
    tokens = Surrogate("token_rewards", "token_error", args.fast_beta, args.fast_weight)
    return {"flow": [flow], "fast": [tokens], "joint": [flow, tokens]}[args.objective]


def _chunks(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """`(B, 2, H, A)`."""
    return torch.stack([inputs[side] for side in SIDES], dim=1)


__all__ = ["PRECOMPUTED", "FlowDPOTrainer"]
