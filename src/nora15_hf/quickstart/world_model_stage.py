# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart's stage that trains the world model, encoder included, on the demonstrations."""

import tempfile
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..clips.clip_conventions import ClipConventions
from ..clips.episode_clips import EpisodeClips
from ..data import LeRobotDataset
from ..nora15 import Nora15Processor
from ..simulation.expert_episodes import EXECUTED_ACTION
from ..stages.loss_progress import show_losses
from ..stages.post_training import curves
from ..trainers.world_model.encoder_pretraining_config import EncoderPretrainingConfig
from ..trainers.world_model.encoder_pretraining_trainer import EncoderPretrainingTrainer
from ..trainers.world_model.world_model_trainer import WorldModelTrainer
from ..trainers.world_model.world_model_training_config import WorldModelTrainingConfig
from ..vjepa2_ac.presets import tiny_world_model
from .config import STATE_FOLDER, QuickstartConfig
from .policy_stages import CHUNK_SIZE, trainer_arguments

VALIDATION_SHARE = 0.1
CLIP_FRAMES = CHUNK_SIZE + 1
# Fewer than a chunk has, to save time: the model then still learns to go on from its own imagination.
AUTOREGRESSIVE_STEPS = 3
SENSITIVITY_CASES = 128


def train_world_model(output: Path, config: QuickstartConfig, *, width: int = 128) -> dict[str, Any]:
    """
    Encoder and predictor from scratch, then the predictor alone on the frozen encoder's latents.

    `width` is that of [`tiny_world_model`].
    """
    processor = Nora15Processor.from_pretrained(output / "policy-sft")
    # Of what moved the robot: the demonstrations' labels are what the expert wanted, before the disturbance.
    dataset = LeRobotDataset(
        output / "demonstrations", chunk_size=CHUNK_SIZE, dataset_key=config.environment, action_key=EXECUTED_ACTION
    )
    # Chosen before anything is trained; written down beside the model.
    training, validation = dataset.split_by_episode(VALIDATION_SHARE, config.seed)
    conventions = ClipConventions.of_policy(
        training, processor, config.environment, held_out_episodes=validation.episodes["index"].tolist()
    )
    set_seed(config.seed)
    world_model, world_model_processor = tiny_world_model(config.image_size, dataset.action_dim, width=width)
    encoder_trainer = EncoderPretrainingTrainer(
        world_model,
        EncoderPretrainingConfig(
            **trainer_arguments(output, "encoder", config, config.encoder_steps, config.encoder_batch_size),
            learning_rate=config.encoder_learning_rate,
            warmup_steps=config.encoder_steps // 10,
        ),
        # Two frames suffice to learn what changes; longer clips hold more of the same picture.
        train_dataset=EpisodeClips(training, conventions, num_frames=2),
        processing_class=world_model_processor,
    )
    show_losses(encoder_trainer, "Encoder", ("prediction_loss", "reconstruction_loss"))
    encoder_trainer.train()
    # A tenth of a gigabyte that no later stage reads.
    with tempfile.TemporaryDirectory(dir=output / STATE_FOLDER) as latents:
        predictor_trainer = WorldModelTrainer(
            world_model,
            WorldModelTrainingConfig(
                **trainer_arguments(output, "predictor", config, config.predictor_steps, config.predictor_batch_size),
                learning_rate=config.predictor_learning_rate,
                warmup_steps=config.predictor_steps // 10,
                weight_decay=0.01,
                auto_steps=AUTOREGRESSIVE_STEPS,
                adam_beta2=0.95,
                sensitivity_horizon=CHUNK_SIZE,
                sensitivity_cases=SENSITIVITY_CASES,
                latent_cache_dir=latents,
            ),
            train_dataset=EpisodeClips(training, conventions, CLIP_FRAMES),
            eval_dataset=EpisodeClips(validation, conventions, CLIP_FRAMES),
            processing_class=world_model_processor,
        )
        show_losses(predictor_trainer, "Predictor", ("teacher_forcing_loss", "autoregressive_loss"))
        predictor_trainer.train()
        metrics = predictor_trainer.evaluate()
    world_model.save_pretrained(output / "world-model")
    world_model_processor.save_pretrained(output / "world-model")
    conventions.save_pretrained(output / "world-model")
    names = ("prediction_loss", "reconstruction_loss", "latent_std", "latent_rank")
    return {
        "encoder_curves": curves(encoder_trainer.state.log_history, names),
        "predictor_curves": curves(
            predictor_trainer.state.log_history, ("teacher_forcing_loss", "autoregressive_loss")
        ),
        "metrics": {name.removeprefix("eval_"): value for name, value in metrics.items() if isinstance(value, float)},
    }


__all__ = ["train_world_model"]
