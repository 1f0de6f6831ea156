# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Supervised training of the policy on transformers' Trainer."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import DistributedType
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from ...cards.card_info import PolicyCardInfo
from ...data.collator import PolicyCollator
from ...data.dataset_fingerprint import samples_fingerprint
from ...data.lerobot_dataset import LeRobotDataset
from ...data.lerobot_mixture import LeRobotMixture
from ...data.lerobot_stream import LeRobotStream, LeRobotStreamMixture
from ...data.policy_fit import fit_dataset
from ...nora15 import Nora15Config, Nora15ForActionPrediction, Nora15Output, Nora15Processor
from ...nora15.flow_matching import draw_flow_samples, flow_loss
from ...preferences.preference_record import preference_info
from ...runtime.shared_tensors import SharedTensors
from ...runtime.shared_work import ProcessPlace
from ..argument_checks import check_arguments, check_model, check_processor, check_training, refuse_options
from ..complete_push import CompletePushCallback, write_policy_files
from ..continued_run import ContinuedRunMixin, EpochCallback
from ..ema import EmaCallback
from ..flow_dpo.flow_dpo_card import preference_facts
from ..mean_metrics import MeanMetricsMixin
from ..saved_arguments import NoPickledArgumentsMixin
from ..training_card import TrainingCardMixin, card_names, known
from .loss_totals import PARTS, add_parts, count_targets, weigh_parts
from .open_loop import OPEN_LOOP_FOLDER, action_errors, check_replayable, plot_replay, replay_episodes
from .reward_weighting import CHUNK_WEIGHTS, CandidateCollator, weighted_states
from .sft_card import sft_card_info
from .sft_config import Nora15SFTConfig
from .trainable_parameters import select_trainable_parameters

# An objective drops the inputs of the part that it leaves out.
_DROPPED = {"joint": (), "flow": ("labels",), "fast": ("actions", "action_mask")}
_CHECKED = (LeRobotDataset, LeRobotMixture, LeRobotStream, LeRobotStreamMixture)


class Nora15SFTTrainer(ContinuedRunMixin, TrainingCardMixin, MeanMetricsMixin, NoPickledArgumentsMixin, Trainer):
    r"""
    Trains the policy on demonstrations: FAST-token cross-entropy plus 10 x flow matching (paper, appendix C).

    Both losses are means over the whole batch: of all processes and of all accumulated steps, however tokens and padding
    are spread over them. Noise and times of flow matching depend on `args.seed`, the step and the row of that batch.
    One process with a batch of 32, two with 16, and one that accumulates four times 8 therefore see the same losses.

    With `args.reward_weighting` the datasets are preference rows. The candidates of a state share a backbone pass, and the flow
    loss of each is multiplied by its weight.

    Args:
        model ([`Nora15ForActionPrediction`] or [`~peft.PeftModel`]): Float32 weights; bf16 compute through `args.bf16`.
        args ([`Nora15SFTConfig`]): The arguments.
        data_collator ([`PolicyCollator`], *optional*):
            For training and evaluation. By default made from `processing_class` and the arguments; images are then
            augmented for training only.
        train_dataset ([`~torch.utils.data.Dataset`], *optional*):
            Samples, as [`LeRobotDataset`] gives them. A [`LeRobotStream`] must be opened with `repeat=True`; under
            augmentation its samples look the same in every pass, since it has no epochs.
        eval_dataset ([`~torch.utils.data.Dataset`] or `dict` of them, *optional*): Samples to evaluate on.
        processing_class ([`Nora15Processor`], *optional*): Saved beside the model at every checkpoint.
        callbacks, optimizers: As in [`~transformers.Trainer`].
        peft_config ([`~peft.PeftConfig`], *optional*):
            Adapters to add, see [`~nora15_hf.trainers.adapters.policy_lora_config`].
        kwargs: Other arguments of [`~transformers.Trainer`].

    Logged besides the Trainer's own metrics:

    | key | meaning |
    |---|---|
    | `lm_loss`, `flow_loss` | the two parts of the loss, means since the last log |
    | `eval_loss`, `eval_lm_loss`, `eval_flow_loss` | exact means over an evaluation dataset, with the same draws each time |
    | `eval_action_error` | mean absolute error of sampled actions, physical units, with `args.open_loop_episodes` |
    | `eval_action_error/<i>` | the same of action dimension i |
    """

    args: Nora15SFTConfig

    def __init__(
        self,
        model: Nora15ForActionPrediction | PeftModel,
        args: Nora15SFTConfig,
        *,
        data_collator: Callable | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: Nora15Processor | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: PeftConfig | None = None,
        **kwargs,
    ):
        refuse_options(kwargs)
        check_arguments(args, Nora15SFTConfig)
        policy = check_model(model, Nora15ForActionPrediction)
        if peft_config is not None:
            model = get_peft_model(model, peft_config)
        select_trainable_parameters(model, policy.config, args)
        self.preference_info = preference_info(train_dataset) if isinstance(train_dataset, datasets.Dataset) else None
        if args.reward_weighting is not None:
            if data_collator is not None or processing_class is None:
                raise ValueError(
                    "reward_weighting makes batches of preference rows itself: leave data_collator out, and give "
                    "processing_class, the policy's Nora15Processor."
                )
            data_collator = CandidateCollator(processing_class)
        self.eval_collator = data_collator
        if data_collator is None:
            if processing_class is None:
                raise ValueError(
                    "data_collator and processing_class are both absent: pass one of them to form batches."
                )
            options = {"action_tokens": args.objective != "flow", "pad_to_multiple_of": args.pad_to_multiple_of}
            data_collator = PolicyCollator(processing_class, augmentation=args.make_augmentation(), **options)
            self.eval_collator = PolicyCollator(processing_class, **options)
        elif args.image_augmentation is not None or args.pad_to_multiple_of is not None:
            raise ValueError(
                "image_augmentation and pad_to_multiple_of are for the collator that the trainer creates, but data_collator "
                "is given. Pass these two to your collator, or pass processing_class instead of data_collator."
            )
        if processing_class is None and (args.open_loop_episodes or args.push_to_hub):
            raise ValueError(
                f"open_loop_episodes={args.open_loop_episodes} and push_to_hub={args.push_to_hub}, but processing_class is "
                "missing: it has the units of the actions and is part of the repo. Pass it."
            )
        # Also where the processor is the collator's only.
        collating = isinstance(self.eval_collator, PolicyCollator | CandidateCollator)
        self.fitting_processor = self.eval_collator.processor if collating else processing_class
        if self.fitting_processor is not None:
            check_processor("processing_class", self.fitting_processor, policy.config)
        _check_kind("train_dataset", train_dataset)
        self._weigh = partial(_weighted, args=args, config=policy.config, collator=self.eval_collator)
        train_dataset = _fitted(self._weigh(train_dataset, "train_dataset"), args, self.fitting_processor)
        if isinstance(eval_dataset, dict):
            eval_dataset = {
                name: _evaluated(self._weigh(dataset, name), args, self.fitting_processor)
                for name, dataset in eval_dataset.items()
            }
        else:
            eval_dataset = _evaluated(self._weigh(eval_dataset, "eval_dataset"), args, self.fitting_processor)
        if isinstance(train_dataset, LeRobotStream) and not train_dataset.repeat:
            raise ValueError(
                "train_dataset is a stream that ends after one epoch, so processes would run out of data at different steps. "
                "Open it with repeat=True and set max_steps."
            )
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            **kwargs,
        )
        check_training(self)
        self._refuse_what_does_not_work()
        # Its loss is a mean over the accumulated batch already.
        self.loss_is_scaled_for_ga = True
        self.policy = policy
        self.add_callback(CompletePushCallback(self, partial(write_policy_files, self)))
        augmentation = data_collator.augmentation if isinstance(data_collator, PolicyCollator) else None
        self.add_callback(EpochCallback([train_dataset, augmentation]))
        self.ema = None if args.ema_decay is None else EmaCallback(args.ema_decay, self)
        if self.ema is not None:
            self.add_callback(self.ema)
        # Of the next batch, among those that one optimizer step accumulates.
        self._microbatch = 0

    def _refuse_what_does_not_work(self) -> None:
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise ValueError(
                "FSDP version 1 flattens the parameters of different parts into one. Set fsdp_version: 2, as in "
                "examples/accelerate/fsdp2.yaml."
            )
        if self.ema_with_zero3:
            raise ValueError(
                f"ema_decay={self.args.ema_decay} with DeepSpeed ZeRO-3, whose parameters are empty between steps. Use "
                "ZeRO-2 or FSDP2, or omit ema_decay."
            )

    @property
    def ema_with_zero3(self) -> bool:
        """Whether a moving average is asked of parameters that ZeRO-3 has partitioned."""
        return (
            self.args.ema_decay is not None
            and self.accelerator.distributed_type == DistributedType.DEEPSPEED
            and self.accelerator.state.deepspeed_plugin.zero_stage == 3
        )

    def data_fingerprint(self) -> str | None:
        """See [`~nora15_hf.data.dataset_fingerprint.samples_fingerprint`]."""
        return samples_fingerprint(self.train_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """The batches of one optimizer step, and the targets `(2,)` that all processes have in theirs."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._microbatch = 0
        # Batches of a stream are still on the CPU.
        counts = (count_targets(batch).to(device) for batch in batches)
        totals = sum(counts, torch.zeros(len(PARTS), device=device))
        return batches, self.accelerator.reduce(totals, "sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Nora15Output]:
        """
        The joint loss, or one of its parts as `args.objective` says.

        Args:
            model (`nn.Module`): The policy, wrapped or not.
            inputs (`dict[str, torch.Tensor]`): A batch of [`PolicyCollator`].
            return_outputs (`bool`, *optional*, defaults to `False`): Whether to return the model's output too.
            num_items_in_batch (`torch.Tensor` of shape `(2,)`, *optional*):
                Targets of the whole batch as `get_batch_samples` counts them. Default: those of this batch.

        Returns:
            The loss, or the loss and the model's output.
        """
        inputs = {key: value for key, value in inputs.items() if key not in _DROPPED[self.args.objective]}
        chunk_weights = inputs.pop(CHUNK_WEIGHTS, None)
        if "actions" in inputs and "noise" not in inputs:
            inputs |= self._training_draws(inputs["actions"])
        outputs = model(**inputs, detach_prefix=self.args.knowledge_insulation)
        if chunk_weights is not None:
            outputs.flow_loss = flow_loss(
                outputs.velocity,
                inputs["actions"],
                inputs["noise"],
                inputs["action_mask"],
                chunk_weights=chunk_weights,
            )
        if num_items_in_batch is None:
            parts = tuple(outputs.get(name) for name in PARTS)
        else:
            # DDP and FSDP average the gradients of the processes, which are to be added.
            parts = weigh_parts(outputs, inputs, num_items_in_batch / self.args.world_size)
        if model.training:
            # Shares of a step's batch, which add up to its mean: the step counts once.
            recorded = {name: part for name, part in zip(PARTS, parts, strict=True) if part is not None}
            self._record(recorded, weight=int(self._microbatch == 0))
            self._microbatch += 1
        loss = add_parts(parts, self.policy.config.flow_loss_weight)
        return (loss, outputs) if return_outputs else loss

    def _training_draws(self, actions: torch.Tensor) -> dict[str, torch.Tensor]:
        """This batch's rows of the noise and times of a step, over all processes and accumulated batches."""
        args, config = self.args, self.policy.config
        in_step = args.gradient_accumulation_steps * args.world_size * args.per_device_train_batch_size
        [noise], [timestep] = draw_flow_samples(
            config,
            [(args.seed, self.state.global_step)],
            (in_step, *actions.shape[1:-2], config.num_flow_samples),
        )
        first = (self._microbatch * args.world_size + args.process_index) * args.per_device_train_batch_size
        rows = slice(first, first + len(actions))
        return {"noise": noise[rows].to(actions.device), "timestep": timestep[rows].to(actions.device)}

    def _evaluation_draws(self, actions: torch.Tensor) -> dict[str, torch.Tensor]:
        """Noise and times of each row of the evaluation dataset, whatever batch and process it is in."""
        args, config = self.args, self.policy.config
        first = (self._eval_batches * args.world_size + args.process_index) * args.per_device_eval_batch_size
        # Three numbers, so that no training step has the same ones.
        keys = [(args.seed, row, 1) for row in range(first, first + len(actions))]
        noise, timestep = draw_flow_samples(config, keys, (*actions.shape[1:-2], config.num_flow_samples))
        return {"noise": noise.to(actions.device), "timestep": timestep.to(actions.device)}

    def get_train_dataloader(self) -> DataLoader:
        """As in `Trainer`; of a stream every process reads its own part, instead of all waiting for the first."""
        if not isinstance(self.train_dataset, LeRobotStream | LeRobotStreamMixture):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset.shard(self.args.process_index, self.args.world_size),
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """As in `Trainer`, without image augmentation."""
        if not isinstance(eval_dataset, str | None):
            eval_dataset = _evaluated(self._weigh(eval_dataset, "eval_dataset"), self.args, self.fitting_processor)
        train_collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = train_collator

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """As in `Trainer`; with `args.ema_decay` it is the moving average that is evaluated."""
        if self.ema is None or not self.ema.average or not self.is_in_train:
            return super().evaluate(*args, **kwargs)
        with self.ema.applied(self.model):
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args, metric_key_prefix: str = "eval", **kwargs
    ) -> EvalLoopOutput:
        """As in `Trainer`, with exact means of the loss and its parts, and the open-loop action error."""
        self._eval_batches = 0
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        lm_loss, flow_loss = (output.metrics.get(f"{metric_key_prefix}_{name}", 0.0) for name in PARTS)
        metrics = {"loss": lm_loss + self.policy.config.flow_loss_weight * flow_loss}
        if self.args.open_loop_episodes:
            metrics |= self._replay(dataloader.dataset, metric_key_prefix)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, None, None]:
        """The loss of an evaluation batch; a row has the same noise and times in every batch and at every evaluation."""
        inputs = self._prepare_inputs(inputs)
        inputs = {key: value for key, value in inputs.items() if key not in _DROPPED[self.args.objective]}
        if "actions" in inputs:
            inputs |= self._evaluation_draws(inputs["actions"])
        self._eval_batches += 1
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        for name, count in zip(PARTS, count_targets(inputs), strict=True):
            if (mean := outputs.get(name)) is not None:
                self._record({name: mean * count}, weight=count)
        return loss.detach(), None, None

    def _replay(self, dataset: Dataset, name: str) -> dict[str, float]:
        """Open-loop action error on an evaluation dataset, and its plots in the output folder."""
        args = self.args
        folder = Path(args.output_dir) / OPEN_LOOP_FOLDER / f"{name}-step-{self.state.global_step:06d}"
        shared = SharedTensors()
        if isinstance(self.policy, FSDPModule):
            register_fsdp_forward_method(self.policy, "sample_actions")
        # Where weights are sharded, all processes run the policy at the same time, or none.
        elif args.world_size > 1 and not self.is_deepspeed_enabled:
            shared = SharedTensors(folder / "_sampled", ProcessPlace(args.process_index, args.world_size))
            with args.main_process_first(desc="clearing what an interrupted evaluation left"):
                if self.is_local_process_zero():
                    shutil.rmtree(shared.folder, ignore_errors=True)
        with self.accelerator.autocast():
            replays = replay_episodes(
                self.policy,
                self.processing_class,
                dataset,
                args.open_loop_episodes,
                batch_size=args.per_device_eval_batch_size,
                seed=args.seed,
                shared=shared,
                num_workers=args.dataloader_num_workers,
            )
        if shared.folder is not None:
            self.accelerator.wait_for_everyone()
            if self.is_local_process_zero():
                shutil.rmtree(shared.folder, ignore_errors=True)
        if self.is_world_process_zero():
            folder.mkdir(parents=True, exist_ok=True)
            for replay in replays:
                plot_replay(replay, folder / f"{replay.dataset_key}-episode-{replay.episode_index:06d}.png")
        return action_errors(replays)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in `Trainer`; the moving average is written first, so that a checkpoint is never without it."""
        if self.ema is not None and output_dir is not None and self.is_in_train:
            self.ema.save(Path(output_dir), self.is_world_process_zero())
        super().save_model(output_dir, _internal_call)

    def _preference_facts(self) -> dict[str, Any]:
        if self.args.reward_weighting is None:
            return {}
        rows = self.train_dataset
        return known("how the preferences came about", lambda: preference_facts(rows, self.preference_info), {})

    def _card_info(self, model_name: str | None) -> PolicyCardInfo:
        if self.processing_class is None:
            raise ValueError("A card states the processor's conventions: pass processing_class to the trainer.")
        # A stream would have to be opened for it.
        rows = None if isinstance(self.train_dataset, IterableDataset) else self.train_dataset
        instruction = rows and known("an instruction of its training", lambda: rows[0]["instruction"])
        return sft_card_info(
            self.policy,
            self.processing_class,
            self.args,
            **card_names(self.args.output_dir, self.hub_model_id, model_name),
            steps=self.state.global_step,
            log_history=self.state.log_history,
            example_instruction=instruction,
            is_adapter=isinstance(self.model, PeftModel),
            preferences=self._preference_facts(),
            **self._told_facts,
        )


def _check_kind(name: str, dataset: Any) -> None:
    """Refuses what a data loader would misread or fail on in the middle of training."""
    is_stream = isinstance(dataset, IterableDataset | datasets.IterableDataset)
    is_other = isinstance(dataset, str | Mapping) or not isinstance(dataset, Sized)
    if dataset is not None and is_other and not is_stream:
        raise TypeError(
            f"{name} is a {type(dataset).__name__}, expected a dataset of samples: LeRobotDataset(folder_or_repo), a LeRobotMixture "
            "of several, a LeRobotStream, or a list of samples instead of a generator."
        )


def _weighted(
    dataset: Dataset | None, name: str, *, args: Nora15SFTConfig, config: Nora15Config, collator: Callable
) -> Dataset | None:
    """Preference rows with the weights of their candidates; other datasets as they are."""
    if args.reward_weighting is None:
        if (
            isinstance(dataset, datasets.Dataset)
            and "candidates" in dataset.column_names
            and isinstance(collator, PolicyCollator)
        ):
            raise ValueError(
                f"{name} holds preference rows, whose chunks are normalised already. Set reward_weighting={{}} to train on their "
                "candidates, or train on the demonstrations."
            )
        return dataset
    if dataset is None or (isinstance(dataset, datasets.Dataset) and CHUNK_WEIGHTS in dataset.column_names):
        return dataset
    return weighted_states(dataset, args.make_reward_weighting(), config, collator.processor, name=name)


def _fitted(
    dataset: Dataset | None, args: Nora15SFTConfig, processor: Nora15Processor | None, check_values: bool = True
) -> Dataset | None:
    """The dataset in the form that the policy needs, also inside torch's subsets and concatenations; other datasets are unchanged."""
    if type(dataset) is ConcatDataset:
        return ConcatDataset([_fitted(part, args, processor, check_values) for part in dataset.datasets])
    if type(dataset) is Subset:
        return Subset(_fitted(dataset.dataset, args, processor, check_values=False), dataset.indices)
    if processor is None or not isinstance(dataset, _CHECKED):
        return dataset
    return fit_dataset(dataset, processor, action_tokens=args.objective != "flow", check_values=check_values)


def _evaluated(dataset: Dataset | None, args: Nora15SFTConfig, processor: Nora15Processor | None) -> Dataset | None:
    """[`_fitted`], after what no evaluation could get through has been refused."""
    _check_kind("eval_dataset", dataset)
    if isinstance(dataset, LeRobotStreamMixture) or (isinstance(dataset, LeRobotStream) and dataset.repeat):
        raise ValueError(
            f"eval_dataset is a {type(dataset).__name__} without end, which an evaluation would never finish. Evaluate on "
            "a LeRobotStream with repeat=False, or on a LeRobotDataset."
        )
    if dataset is not None and args.open_loop_episodes:
        check_replayable(dataset)
    return _fitted(dataset, args, processor)


__all__ = ["Nora15SFTTrainer"]
