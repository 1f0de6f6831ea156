# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""One tiny trainer of each kind, for what holds in all of them."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from helpers.blobs import blob_clips, blob_model, write_blobs
from helpers.flow_dpo_runs import make_rows
from helpers.small_demonstrations import write_demonstrations
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers import (
    EncoderPretrainingConfig,
    EncoderPretrainingTrainer,
    FlowDPOConfig,
    FlowDPOTrainer,
    Nora15SFTConfig,
    Nora15SFTTrainer,
    WorldModelTrainer,
    WorldModelTrainingConfig,
)

__all__ = ["encoder_pretraining", "preference", "supervised", "world_model"]

Change = Callable[[nn.Module], nn.Module]


def arguments(folder: Path, **changes) -> dict:
    return {
        "output_dir": str(folder / "training"),
        "max_steps": 2,
        "save_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        **changes,
    }


def supervised(folder: Path, change: Change = lambda model: model, **changes) -> Nora15SFTTrainer:
    model, processor = tiny_policy(("open the faucet",), image_size=56)
    return Nora15SFTTrainer(
        change(model),
        Nora15SFTConfig(**arguments(folder, **changes)),
        train_dataset=LeRobotDataset(write_demonstrations(folder / "demonstrations"), dataset_key="default"),
        processing_class=processor,
    )


def preference(folder: Path, change: Change = lambda model: model, **changes) -> FlowDPOTrainer:
    (model, processor), (reference, _) = (tiny_policy(("open the faucet",), image_size=56) for _ in range(2))
    return FlowDPOTrainer(
        change(model),
        FlowDPOConfig(**arguments(folder, **changes)),
        ref_model=reference,
        train_dataset=make_rows(),
        processing_class=processor,
    )


def world_model(folder: Path, change: Change = lambda model: model, **changes) -> WorldModelTrainer:
    model, processor = blob_model()
    clips, _ = blob_clips(write_blobs(folder / "blobs", 4), num_frames=3)
    return WorldModelTrainer(
        change(model),
        WorldModelTrainingConfig(**arguments(folder, **changes), sensitivity_horizon=1),
        train_dataset=clips,
        processing_class=processor,
    )


def encoder_pretraining(folder: Path, change: Change = lambda model: model, **changes) -> EncoderPretrainingTrainer:
    model, processor = blob_model()
    clips, _ = blob_clips(write_blobs(folder / "blobs", 4), num_frames=2)
    return EncoderPretrainingTrainer(
        change(model),
        EncoderPretrainingConfig(**arguments(folder, **changes)),
        train_dataset=clips,
        processing_class=processor,
    )
