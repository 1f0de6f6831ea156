# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Trainers that push at every save and at the end: what arrives can be loaded at every one of these commits."""

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoProcessor

from blobs import blob_clips, blob_model, write_blobs
from flow_dpo_runs import make_rows
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers import (
    FlowDPOConfig,
    FlowDPOTrainer,
    Nora15SFTConfig,
    Nora15SFTTrainer,
    WorldModelConfig,
    WorldModelTrainer,
)
from small_demonstrations import write_demonstrations


def arguments(folder) -> dict:
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
        "push_to_hub": True,
        "hub_model_id": "robots/training",
        "hub_strategy": "every_save",
        # Otherwise a push is left out while the one before is still going on.
        "hub_always_push": True,
    }


def supervised(folder) -> Nora15SFTTrainer:
    model, processor = tiny_policy(("open the faucet",), image_size=56)
    dataset = LeRobotDataset(write_demonstrations(folder / "demonstrations"), dataset_key="default")
    return Nora15SFTTrainer(
        model, Nora15SFTConfig(**arguments(folder)), train_dataset=dataset, processing_class=processor
    )


def preference(folder) -> FlowDPOTrainer:
    (model, processor), (reference, _) = (tiny_policy(("open the faucet",), image_size=56) for _ in range(2))
    return FlowDPOTrainer(model, FlowDPOConfig(**arguments(folder)), make_rows(), processor, ref_model=reference)


def world_model(folder) -> WorldModelTrainer:
    model, processor = blob_model()
    clips, _ = blob_clips(write_blobs(folder / "blobs", 4), num_frames=3)
    return WorldModelTrainer(model, WorldModelConfig(**arguments(folder), sensitivity_horizon=1), clips, processor)


@pytest.mark.parametrize("make", [supervised, preference, world_model])
def test_every_save_and_the_end_are_pushed(hub, tmp_path, make):
    trainer = make(tmp_path)
    trainer.train()
    trainer.push_to_hub()
    titles = hub.commit_titles("robots/training")
    assert titles[:3] == ["initial commit", "Training in progress, step 1", "Training in progress, step 2"]
    repo = hub.state.repos["model", "robots/training"]
    commits = [commit.oid for commit in reversed(repo.history(repo.resolve("main")))]
    weights = {}
    for title, commit in list(zip(titles, commits, strict=True))[1:]:
        model = AutoModel.from_pretrained("robots/training", revision=commit)
        weights[title] = torch.cat([value.flatten() for value in model.state_dict().values()])
        assert type(AutoProcessor.from_pretrained("robots/training", revision=commit)) is type(
            trainer_processor(trainer)
        )
    assert not torch.equal(weights[titles[1]], weights[titles[2]])
    final = torch.cat(
        [value.flatten() for value in trainer.accelerator.unwrap_model(trainer.model).state_dict().values()]
    )
    assert torch.equal(weights[titles[-1]], final)

    files = hub.files("robots/training")
    assert not any(hub.token.encode() in content for content in files.values())
    assert not any(path.startswith("checkpoint-") for path in files)
    card = ModelCard(files["README.md"].decode())
    assert card.data.pipeline_tag == "robotics"
    assert "nora15_hf" in card.data.tags
    assert str(tmp_path) not in str(card)


def trainer_processor(trainer):
    return trainer.processor if isinstance(trainer, WorldModelTrainer) else trainer.processing_class
