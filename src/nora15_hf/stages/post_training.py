# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A policy trained on from where it is, by flow DPO and by supervised training of the same length, its control."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import Subset
from transformers import set_seed

from ..data import LeRobotDataset, PolicyCollator
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..repo_files.written_whole import written_whole
from ..trainers.flow_dpo.flow_dpo_config import FlowDPOConfig
from ..trainers.flow_dpo.flow_dpo_trainer import FlowDPOTrainer
from ..trainers.supervised.sft_config import Nora15SFTConfig
from ..trainers.supervised.sft_trainer import Nora15SFTTrainer
from .loss_progress import show_losses

DPO_CURVES = (
    "loss",
    "rewards/margins",
    "rewards/accuracies",
    "flow_error/chosen",
    "flow_error/rejected",
    "flow_error/reference_chosen",
    "flow_error/reference_rejected",
)


@dataclass(frozen=True, kw_only=True)
class PostTraining:
    """
    The budget of flow DPO and of its control, which have it in common.

    Args:
        steps (`int`), batch_size (`int`), learning_rate (`float`): Of either training; the batch is that of a step over all
            processes.
        beta (`float`): Of flow DPO alone.
        sft_weight (`float`, *optional*, defaults to 0.0): Of flow DPO alone, see [`FlowDPOConfig`].
        seed (`int`): Of data order and draws.
    """

    steps: int
    batch_size: int
    learning_rate: float
    beta: float
    seed: int
    sft_weight: float = 0.0

    def arguments(self, folder: Path) -> dict[str, Any]:
        """What the arguments of both trainers share."""
        return stage_arguments(folder, self.steps, self.batch_size, self.seed) | {
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": min(20, self.steps // 3),
            "weight_decay": 0.0,
        }


def stage_arguments(folder: Path, steps: int, batch_size: int, seed: int) -> dict[str, Any]:
    """
    Arguments of any training that is a stage of a run.

    Raises:
        ValueError: A batch that the processes cannot share equally.
    """
    processes = PartialState().num_processes
    if batch_size % processes:
        raise ValueError(
            f"A batch of {batch_size} cannot be shared equally by {processes} processes. Choose a multiple of {processes}."
        )
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size // processes,
        "logging_steps": max(1, steps // 25),
        # A stage is the unit of resuming.
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_drop_last": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "max_grad_norm": 1.0,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
    }


def tune_with_dpo(
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
    preferences: Dataset,
    folder: Path,
    budget: PostTraining,
    *,
    reference: Nora15ForActionPrediction | None = None,
    prefix_cache: Path | None = None,
) -> dict[str, list[tuple[int, float]]]:
    """
    Flow DPO of the action expert; the backbone stays as it is.

    Args:
        model ([`Nora15ForActionPrediction`]): Is trained.
        processor ([`Nora15Processor`]): Its processor.
        preferences ([`~datasets.Dataset`]): Of [`~nora15_hf.preferences.load_preferences`].
        folder (`Path`): For the trainer.
        budget ([`PostTraining`]): How long.
        reference ([`Nora15ForActionPrediction`], *optional*): Another one than the model as it is now, with the same backbone.
        prefix_cache (`Path`, *optional*): For what the backbone makes of the prompts, which several runs can share.

    Returns:
        `dict`: Name of each metric to its curve, see [`curves`].
    """
    set_seed(budget.seed)
    trainer = FlowDPOTrainer(
        model=model,
        args=FlowDPOConfig(
            **budget.arguments(folder),
            beta=budget.beta,
            sft_weight=budget.sft_weight,
            num_draws=4,
            freeze_backbone=True,
            prefix_cache_dir=None if prefix_cache is None else str(prefix_cache),
        ),
        ref_model=reference,
        train_dataset=preferences,
        processing_class=processor,
    )
    show_losses(trainer, "Flow DPO", ("loss", "rewards/accuracies"))
    trainer.train()
    return curves(trainer.state.log_history, DPO_CURVES)


def continue_supervised(
    model: Nora15ForActionPrediction,
    processor: Nora15Processor,
    dataset: LeRobotDataset,
    states: Sequence[int],
    folder: Path,
    budget: PostTraining,
) -> dict[str, list[tuple[int, float]]]:
    """
    The control of flow DPO: the same steps, batch size, learning rate and trained parameters, but demonstrated chunks are
    imitated instead of candidates being compared. Arguments as for [`tune_with_dpo`].

    Args:
        dataset ([`LeRobotDataset`]): Demonstrations.
        states (`Sequence[int]`): Positions in it whose chunks are imitated.
    """
    set_seed(budget.seed)
    trainer = Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(**budget.arguments(folder), objective="flow", freeze=["backbone"]),
        train_dataset=Subset(dataset, states),
        data_collator=PolicyCollator(processor, action_tokens=False),
    )
    show_losses(trainer, "Continued SFT", ("flow_loss",))
    trainer.train()
    return curves(trainer.state.log_history, ("flow_loss",))


def save_policy(folder: Path, model: Nora15ForActionPrediction, processor: Nora15Processor) -> None:
    """Writes a policy's repo, whole or not at all; of several processes the first does."""
    if PartialState().is_main_process:
        with written_whole(folder) as part:
            model.save_pretrained(part)
            processor.save_pretrained(part)


def load_policy(
    source: str | Path, *, revision: str | None = None
) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """A policy of a folder or the Hub to be trained, in float32."""
    model = Nora15ForActionPrediction.from_pretrained(source, dtype=torch.float32, revision=revision)
    return model, Nora15Processor.from_pretrained(source, revision=revision)


def curves(log_history: list[dict[str, Any]], names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of each metric."""
    return {name: [(log["step"], log[name]) for log in log_history if name in log] for name in names}


__all__ = [
    "PostTraining",
    "continue_supervised",
    "curves",
    "load_policy",
    "save_policy",
    "stage_arguments",
    "tune_with_dpo",
]
