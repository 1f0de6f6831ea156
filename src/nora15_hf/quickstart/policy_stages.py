# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stages that train the policy: supervised, flow DPO, and continued supervised training."""

import functools
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Subset
from transformers import set_seed

from ..data import LeRobotDataset, PolicyCollator
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..preferences.preference_dataset import load_preferences
from ..trainers.flow_dpo.flow_dpo_config import FlowDPOConfig
from ..trainers.flow_dpo.flow_dpo_trainer import FlowDPOTrainer
from ..trainers.policy_setup import complete_chunk_indices, tiny_policy_for
from ..trainers.supervised.sft_config import Nora15SFTConfig
from ..trainers.supervised.sft_trainer import Nora15SFTTrainer
from .config import QuickstartConfig
from .progress import show_losses
from .stage_runner import STATE_FOLDER

CHUNK_SIZE = 5


# The pictures that one stage has decoded are there for the next.
@functools.lru_cache(maxsize=1)
def open_demonstrations(output: Path, config: QuickstartConfig) -> LeRobotDataset:
    """The recorded demonstrations, with chunks as the policy takes them."""
    return LeRobotDataset(output / "demonstrations", chunk_size=CHUNK_SIZE, dataset_key=config.environment)


def demonstrated_states(dataset: LeRobotDataset, preferences: Dataset) -> list[int]:
    """Positions in the demonstrations of the states of a preference dataset."""
    first_frame = dict(zip(dataset.episodes["index"].tolist(), dataset.episodes["from"].tolist(), strict=True))
    return [
        first_frame[episode] + frame
        for episode, frame in zip(preferences["episode_index"], preferences["frame_index"], strict=True)
    ]


def load_policy(folder: Path) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """A policy of this run, in float32."""
    model = Nora15ForActionPrediction.from_pretrained(folder, dtype=torch.float32)
    return model, Nora15Processor.from_pretrained(folder)


def initial_policy(output: Path, config: QuickstartConfig) -> tuple[Nora15ForActionPrediction, Nora15Processor]:
    """The policy before training: random weights; codec and statistics fitted on the demonstrations."""
    return tiny_policy_for(
        open_demonstrations(output, config),
        [config.task(name).instruction for name in config.tasks],
        image_size=config.image_size,
        seed=config.seed,
    )


def train_sft(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """Joint training on the demonstrations: FAST cross-entropy + 10 x flow matching."""
    dataset = open_demonstrations(output, config)
    model, processor = initial_policy(output, config)
    set_seed(config.seed)
    trainer = Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(
            **trainer_arguments(output, "sft", config, config.sft_steps, config.sft_batch_size),
            learning_rate=config.sft_learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.05},
            warmup_steps=min(100, config.sft_steps // 3),
            weight_decay=0.01,
            ema_decay=0.99,
        ),
        train_dataset=Subset(dataset, complete_chunk_indices(dataset).tolist()),
        data_collator=PolicyCollator(processor),
    )
    show_losses(trainer, "SFT", ("lm_loss", "flow_loss"))
    trainer.train()
    _save_policy(output / "policy-sft", model, processor)
    return {"curves": curves(trainer.state.log_history, ("lm_loss", "flow_loss"))}


def train_dpo(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """Flow DPO of the action expert from the SFT policy; the backbone is frozen."""
    model, processor = load_policy(output / "policy-sft")
    preferences = load_preferences(output / "preferences", policy=model, processor=processor)
    set_seed(config.seed)
    trainer = FlowDPOTrainer(
        model=model,
        args=FlowDPOConfig(
            **trainer_arguments(output, "dpo", config, config.dpo_steps, config.dpo_batch_size),
            learning_rate=config.dpo_learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=min(20, config.dpo_steps // 3),
            weight_decay=0.0,
            beta=config.dpo_beta,
            num_draws=4,
            freeze_backbone=True,
        ),
        train_dataset=preferences,
        processing_class=processor,
    )
    show_losses(trainer, "Flow DPO", ("loss", "rewards/accuracies"))
    trainer.train()
    _save_policy(output / "policy-dpo", model, processor)
    names = (
        "loss",
        "rewards/margins",
        "rewards/accuracies",
        "flow_error/chosen",
        "flow_error/rejected",
        "flow_error/reference_chosen",
        "flow_error/reference_rejected",
    )
    return {"curves": curves(trainer.state.log_history, names)}


def train_continued_sft(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """
    The control of DPO: the same states, steps, batch size, learning rate and trained parameters, but the demonstrated
    chunk is imitated instead of candidates being compared.
    """
    model, processor = load_policy(output / "policy-sft")
    dataset = open_demonstrations(output, config)
    states = demonstrated_states(dataset, load_preferences(output / "preferences"))
    set_seed(config.seed)
    trainer = Nora15SFTTrainer(
        model=model,
        args=Nora15SFTConfig(
            **trainer_arguments(output, "continued-sft", config, config.dpo_steps, config.dpo_batch_size),
            learning_rate=config.dpo_learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=min(20, config.dpo_steps // 3),
            weight_decay=0.0,
            objective="flow",
            freeze=["backbone"],
        ),
        train_dataset=Subset(dataset, states),
        data_collator=PolicyCollator(processor, action_tokens=False),
    )
    show_losses(trainer, "Continued SFT", ("flow_loss",))
    trainer.train()
    _save_policy(output / "policy-continued-sft", model, processor)
    return {"curves": curves(trainer.state.log_history, ("flow_loss",))}


def trainer_arguments(
    output: Path, name: str, config: QuickstartConfig, steps: int, batch_size: int
) -> dict[str, Any]:
    return {
        "output_dir": str(output / STATE_FOLDER / f"trainer-{name}"),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "logging_steps": max(1, steps // 25),
        # A stage is the unit of resuming; it takes two minutes at most.
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_drop_last": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "max_grad_norm": 1.0,
        "seed": config.seed,
    }


def _save_policy(folder: Path, model: Nora15ForActionPrediction, processor: Nora15Processor) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def curves(log_history: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of each metric."""
    return {name: [(log["step"], log[name]) for log in log_history if name in log] for name in names}


__all__ = [
    "CHUNK_SIZE",
    "curves",
    "demonstrated_states",
    "initial_policy",
    "load_policy",
    "open_demonstrations",
    "train_continued_sft",
    "train_dpo",
    "train_sft",
    "trainer_arguments",
]
