# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stage that trains the world model, encoder included, on the demonstrations."""

from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from ..data import LeRobotDataset
from ..data.clips import EpisodeClips
from ..nora15 import Nora15Processor
from ..trainers.encoder_pretraining import EncoderPretrainingConfig, EncoderPretrainingTrainer
from ..trainers.progress import show_losses
from ..trainers.world_model_config import WorldModelConfig
from ..trainers.world_model_trainer import WorldModelTrainer
from ..vjepa2_ac.presets import tiny_world_model
from .config import QuickstartConfig
from .policy_stages import CHUNK_SIZE, DATASET_KEY, curves, trainer_arguments

# What moved the robot: the demonstrations' labels are what the expert wanted, before the disturbance.
EXECUTED_ACTION_KEY = "action.executed"
VALIDATION_SHARE = 0.1
# The autoregressive loss imagines as far as a chunk reaches, and clips hold the frames for it.
CLIP_FRAMES = CHUNK_SIZE + 1


def train_world_model(output: Path, config: QuickstartConfig) -> dict[str, Any]:
    """Encoder and predictor from scratch, then the predictor alone on the frozen encoder's latents."""
    processor = Nora15Processor.from_pretrained(output / "policy-sft")
    dataset = LeRobotDataset(
        output / "demonstrations", chunk_size=CHUNK_SIZE, dataset_key=DATASET_KEY, action_key=EXECUTED_ACTION_KEY
    )
    training, validation = (
        _clips(part, processor, num_frames=CLIP_FRAMES)
        for part in dataset.split_by_episode(VALIDATION_SHARE, config.seed)
    )
    set_seed(config.seed)
    world_model, world_model_processor = tiny_world_model(config.image_size, dataset.action_dim)
    encoder_trainer = EncoderPretrainingTrainer(
        world_model,
        EncoderPretrainingConfig(
            **trainer_arguments(output, "encoder", config, config.encoder_steps, config.encoder_batch_size),
            warmup_steps=config.encoder_steps // 10,
        ),
        # Two frames suffice to learn what changes; longer clips hold more of the same picture.
        _clips(dataset, processor, num_frames=2),
        world_model_processor,
    )
    show_losses(encoder_trainer, "Encoder", ("prediction_loss", "reconstruction_loss"))
    encoder_trainer.train()
    predictor_trainer = WorldModelTrainer(
        world_model,
        WorldModelConfig(
            **trainer_arguments(output, "predictor", config, config.predictor_steps, config.predictor_batch_size),
            learning_rate=config.predictor_learning_rate,
            warmup_steps=config.predictor_steps // 10,
            weight_decay=0.01,
            auto_steps=CHUNK_SIZE,
            sensitivity_horizon=CHUNK_SIZE,
        ),
        training,
        world_model_processor,
        eval_dataset=validation,
    )
    show_losses(predictor_trainer, "Predictor", ("teacher_forcing_loss", "autoregressive_loss"))
    predictor_trainer.train()
    metrics = predictor_trainer.evaluate()
    world_model.save_pretrained(output / "world-model")
    world_model_processor.save_pretrained(output / "world-model")
    names = ("prediction_loss", "reconstruction_loss", "latent_std", "latent_rank")
    return {
        "encoder_curves": curves(encoder_trainer.state.log_history, names),
        "predictor_curves": curves(
            predictor_trainer.state.log_history, ("teacher_forcing_loss", "autoregressive_loss")
        ),
        "metrics": {name.removeprefix("eval_"): value for name, value in metrics.items() if isinstance(value, float)},
    }


def _clips(dataset: LeRobotDataset, processor: Nora15Processor, num_frames: int) -> EpisodeClips:
    episodes = (dataset.episode_arrays(episode) for episode in range(dataset.num_episodes))
    return EpisodeClips(
        [
            (torch.from_numpy(frames), processor.normalize_actions(actions, DATASET_KEY))
            for frames, actions in episodes
        ],
        num_frames=num_frames,
    )


__all__ = ["train_world_model"]
