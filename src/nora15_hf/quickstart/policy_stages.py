# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stages that train the policy: supervised, flow DPO, and continued supervised training."""

import functools
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import Subset
from transformers import set_seed

from ..data import LeRobotDataset, PolicyCollator
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..preferences.preference_dataset import load_preferences
from ..stages.loss_progress import show_losses
from ..stages.post_training import (
    PostTraining,
    continue_supervised,
    curves,
    load_policy,
    save_policy,
    stage_arguments,
    tune_with_dpo,
)
from ..trainers.policy_setup import complete_chunk_indices, tiny_policy_for
from ..trainers.supervised.sft_config import Nora15SFTConfig
from ..trainers.supervised.sft_trainer import Nora15SFTTrainer
from .config import STATE_FOLDER, QuickstartConfig

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
    save_policy(output / "policy-sft", model, processor)
    return {"curves": curves(trainer.state.log_history, ("lm_loss", "flow_loss"))}


def train_dpo(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """Flow DPO of the action expert from the SFT policy; the backbone is frozen."""
    model, processor = load_policy(output / "policy-sft")
    preferences = load_preferences(output / "preferences", policy=model, processor=processor)
    # A hundred megabytes that no later stage reads.
    with tempfile.TemporaryDirectory(dir=output / STATE_FOLDER) as prefixes:
        found = tune_with_dpo(
            model,
            processor,
            preferences,
            trainer_folder(output, "dpo"),
            _post_training(config),
            prefix_cache=Path(prefixes),
        )
    save_policy(output / "policy-dpo", model, processor)
    return {"curves": found}


def train_continued_sft(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """
    The control of DPO: the same states, steps, batch size, learning rate and trained parameters, but the demonstrated
    chunk is imitated instead of candidates being compared.
    """
    model, processor = load_policy(output / "policy-sft")
    dataset = open_demonstrations(output, config)
    states = demonstrated_states(dataset, load_preferences(output / "preferences"))
    found = continue_supervised(
        model, processor, dataset, states, trainer_folder(output, "continued-sft"), _post_training(config)
    )
    save_policy(output / "policy-continued-sft", model, processor)
    return {"curves": found}


def trainer_arguments(
    output: Path, name: str, config: QuickstartConfig, steps: int, batch_size: int
) -> dict[str, Any]:
    return stage_arguments(trainer_folder(output, name), steps, batch_size, config.seed)


def trainer_folder(output: Path, name: str) -> Path:
    return output / STATE_FOLDER / f"trainer-{name}"


def _post_training(config: QuickstartConfig) -> PostTraining:
    return PostTraining(
        steps=config.dpo_steps,
        batch_size=config.dpo_batch_size,
        learning_rate=config.dpo_learning_rate,
        beta=config.dpo_beta,
        seed=config.seed,
    )


__all__ = [
    "CHUNK_SIZE",
    "demonstrated_states",
    "initial_policy",
    "open_demonstrations",
    "train_continued_sft",
    "train_dpo",
    "train_sft",
    "trainer_arguments",
]
