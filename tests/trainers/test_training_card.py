# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""A card never ends a training: weights come first, what fails is logged and left out."""

import dataclasses

import jinja2
import pytest
from huggingface_hub import ModelCard
from torch.utils.data import Dataset

from helpers.blobs import blob_clips, blob_model, write_blobs
from helpers.flow_dpo_runs import make_rows, make_trainer
from helpers.preference_records import SETTINGS, make_record
from nora15_hf.data import PolicyCollator
from nora15_hf.preferences.preference_record import with_preference_info
from nora15_hf.trainers import Nora15SFTConfig, Nora15SFTTrainer, training_card
from nora15_hf.trainers.world_model.world_model_trainer import WorldModelTrainer
from nora15_hf.trainers.world_model.world_model_training_config import WorldModelTrainingConfig

RUN = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


class ForeignSamples(Dataset):
    """Samples that come in a tuple, as another library's might."""

    def __init__(self, size: int = 4):
        rows = make_rows(size)
        self.samples = [
            {
                "images": row["images"],
                "instruction": row["instruction"],
                "actions": row["chosen"],
                "action_mask": [True] * 5,
                "dataset_key": "default",
            }
            for row in rows.with_format("numpy", columns=["chosen"], output_all_columns=True)
        ]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return (self.samples[index],)


def dpo(policy, processor, folder, rows=None, **options):
    return make_trainer(policy, processor, folder, rows, **(RUN | options))


def sft(policy, processor, folder, **options):
    collate = PolicyCollator(processor)
    return Nora15SFTTrainer(
        model=policy,
        args=Nora15SFTConfig(output_dir=str(folder), **(RUN | {"logging_steps": 1} | options)),
        train_dataset=ForeignSamples(),
        data_collator=lambda samples: collate([sample for (sample,) in samples]),
        processing_class=processor,
    )


def world_model(policy, processor, folder, **options):
    model, frames = blob_model()
    clips, _ = blob_clips(write_blobs(folder.parent / "blobs", 3), 4)
    args = WorldModelTrainingConfig(str(folder), **(RUN | options))
    return WorldModelTrainer(model=model, args=args, train_dataset=clips, processing_class=frames)


TRAININGS = {"dpo": dpo, "sft": sft, "world model": world_model}


def card_of(trainer, folder) -> ModelCard:
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    assert (folder / "checkpoint-1" / "model.safetensors").is_file()
    assert (folder / "checkpoint-1" / "trainer_state.json").is_file()
    assert (folder / "model.safetensors").is_file()
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize("training", TRAININGS)
def test_a_card_says_what_its_trainer_was_told(training, policy, processor, tmp_path):
    """By transformers' and TRL's names, and in every later card of the run."""
    trainer = TRAININGS[training](policy, processor, tmp_path / "run")
    trainer.create_model_card(tags="my-tag", dataset="me/data", license="mit", finetuned_from="me/base")
    trainer.create_model_card(model_name="mine")
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert (card.data.datasets, card.data.license, card.data.base_model) == (["me/data"], "mit", "me/base")
    assert "my-tag" in card.data.tags
    assert ("trl" in card.data.tags) is (training == "dpo")
    assert card.data.model_name == "mine"
    trainer.create_model_card("mine", "me/other", ["one", "two"])
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.datasets == ["me/other"]
    assert {"one", "two"} <= set(card.data.tags)
    with pytest.raises(ValueError, match=r"^language is not part of this library's cards, which accept license, "):
        trainer.create_model_card(language="en")
    with pytest.raises(ValueError, match=r"`dataset` is '/home/me'; expected a Hub repo id"):
        trainer.create_model_card(dataset="/home/me")


@pytest.mark.parametrize("training", TRAININGS)
def test_a_template_that_fails_leaves_metadata_and_title(training, policy, processor, tmp_path, monkeypatch, caplog):
    trainer = TRAININGS[training](policy, processor, tmp_path / "run")

    def fail(*args, **kwargs):
        raise jinja2.UndefinedError("'beta' is undefined")

    monkeypatch.setattr(ModelCard, "from_template", fail)
    card = card_of(trainer, tmp_path / "run")
    assert card.text.strip().startswith("# run\n")
    assert card.data.pipeline_tag == "robotics"
    assert "The card is written without its text: UndefinedError: 'beta' is undefined" in caplog.text


@pytest.mark.parametrize("training", TRAININGS)
def test_a_builder_that_fails_leaves_no_card(training, policy, processor, tmp_path, monkeypatch, caplog):
    trainer = TRAININGS[training](policy, processor, tmp_path / "run")
    # What every builder reads and none expects to fail.
    monkeypatch.setattr(type(trainer), "hub_model_id", property(lambda self: 1 / 0), raising=False)
    trainer.train()
    trainer.create_model_card()
    assert (tmp_path / "run" / "checkpoint-1" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "README.md").exists()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.slow
def test_a_record_that_cannot_be_told_is_left_out(policy, processor, tmp_path, caplog):
    record = make_record()
    record.settings = dataclasses.replace(SETTINGS, reward={})
    rows = with_preference_info(make_rows(2), record, sampled_by_policy=True)
    card = card_of(dpo(policy, processor, tmp_path / "run", rows, beta=50.0), tmp_path / "run")
    assert "without the rewards: KeyError: 'rewards'" in caplog.text
    assert "without how the preferences came about: KeyError: 'standardize'" in caplog.text
    assert "preferences: " not in card.text
    assert "Preference pairs are" not in card.text
    assert "| beta | 50 |" in card.text
    assert 'text="open the faucet"' in card.text


@pytest.mark.slow
def test_a_record_that_can_be_told_is_told(policy, processor, tmp_path, caplog):
    rows = with_preference_info(make_rows(2), make_record(), sampled_by_policy=True)
    card = card_of(dpo(policy, processor, tmp_path / "run", rows), tmp_path / "run")
    assert "| ground_truth | 0.5 |" in card.text
    assert "| preferences: demonstrations | not stated |" in card.text
    assert "The card is written without" not in caplog.text


def test_foreign_samples_and_names_are_left_out(policy, processor, tmp_path, caplog):
    policy.config.name_or_path = "my policy (2)"
    card = card_of(sft(policy, processor, tmp_path / "run"), tmp_path / "run")
    assert "without an instruction of its training: TypeError" in caplog.text
    assert "without the base model: ValueError: `base_model` is 'my policy (2)'" in caplog.text
    assert card.data.base_model is None
    assert "| started from | not stated |" in card.text
    assert "| steps | 1 |" in card.text


@pytest.mark.slow
def test_weights_come_before_the_card(policy, processor, tmp_path, monkeypatch):
    trainer = dpo(policy, processor, tmp_path / "run")
    monkeypatch.setattr(trainer, "create_model_card", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").is_file()
    assert (tmp_path / "run" / "checkpoint-1" / "model.safetensors").is_file()
    trainer = world_model(policy, processor, tmp_path / "world-model")
    monkeypatch.setattr(training_card, "save_training_card", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert (tmp_path / "world-model" / "checkpoint-1" / "model.safetensors").is_file()
