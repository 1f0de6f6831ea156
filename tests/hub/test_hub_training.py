# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Trainers that push at every save and at the end: what arrives can be loaded at every one of these commits."""

import threading

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoProcessor, TrainerCallback

from helpers.every_trainer import preference, supervised, world_model
from nora15_hf.trainers import WorldModelTrainer

PUSH = {
    "push_to_hub": True,
    "hub_model_id": "robots/training",
    "hub_strategy": "every_save",
    # Otherwise a push is left out while the one before is still going on.
    "hub_always_push": True,
}


@pytest.mark.parametrize("make", [supervised, preference, world_model])
@pytest.mark.slow
def test_every_save_and_the_end_are_pushed(hub, tmp_path, make):
    trainer = make(tmp_path, **PUSH)
    # The first upload has looked at the files but not yet read them when the second step is saved.
    slow = hub.fail("preupload", delay=1.0)
    trainer.train()
    assert slow.hits == 1
    trainer.push_to_hub()
    # Of a supervised policy, the end has no file that step 2 had not.
    titles = hub.commit_titles("robots/training")
    assert titles[:3] == ["initial commit", "Training in progress, step 1", "Training in progress, step 2"]
    assert titles[3:] in ([], ["End of training"])
    saved = [AutoModel.from_pretrained(tmp_path / "training" / f"checkpoint-{step}").state_dict() for step in (1, 2)]
    assert any(not torch.equal(value, saved[1][name]) for name, value in saved[0].items())
    final = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    for expected, commit in zip([*saved, final], [*training_commits(hub)[:2], "main"], strict=True):
        pushed = AutoModel.from_pretrained("robots/training", revision=commit).state_dict()
        assert pushed.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in pushed.items())
        assert type(AutoProcessor.from_pretrained("robots/training", revision=commit)) is type(
            trainer_processor(trainer)
        )

    files = hub.files("robots/training")
    assert not any(hub.token.encode() in content for content in files.values())
    assert not any(path.startswith("checkpoint-") for path in files)
    card = ModelCard(files["README.md"].decode())
    assert card.data.pipeline_tag == "robotics"
    assert "nora15_hf" in card.data.tags
    assert str(tmp_path) not in str(card)


def trainer_processor(trainer):
    return trainer.processor if isinstance(trainer, WorldModelTrainer) else trainer.processing_class


class SecondSave(TrainerCallback):
    def __init__(self):
        self.done = threading.Event()

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.done.set()


@pytest.mark.parametrize("make", [supervised, preference, world_model])
@pytest.mark.slow
def test_an_upload_that_still_reads_the_folder_gets_no_files_of_the_next_save(hub, tmp_path, make):
    trainer = make(tmp_path, **PUSH | {"hub_always_push": False})
    second_save = SecondSave()
    trainer.add_callback(second_save)
    held = hub.fail("preupload", until=second_save.done)
    trainer.train()
    assert held.hits == 1
    # The save of step 2 is left out, as transformers does, and has touched nothing that step 1 sends.
    assert hub.commit_titles("robots/training") == ["initial commit", "Training in progress, step 1"]
    assert b"steps | 1 |" in hub.files("robots/training")["README.md"]
    trainer.push_to_hub()
    assert b"steps | 2 |" in hub.files("robots/training")["README.md"]


@pytest.mark.parametrize("step", [1, 2])
def test_an_upload_that_failed_is_reported(hub, tmp_path, caplog, step):
    trainer = supervised(tmp_path, **PUSH)
    hub.fail("commit", status=403, skip=step - 1)
    with caplog.at_level("WARNING", logger="nora15_hf.trainers.complete_push"):
        trainer.train()
    (report,) = [record.getMessage() for record in caplog.records if "during training failed" in record.getMessage()]
    assert report.startswith(
        "An upload to 'robots/training' during training failed, so its commit is missing there: 403 "
    )
    titles = [f"Training in progress, step {other}" for other in (1, 2) if other != step]
    assert hub.commit_titles("robots/training") == ["initial commit", *titles]


def training_commits(hub) -> list[str]:
    """Revisions after the first, oldest first."""
    repo = hub.state.repos["model", "robots/training"]
    return [commit.oid for commit in reversed(repo.history(repo.resolve("main")))][1:]
